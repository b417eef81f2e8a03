/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* shared.c - see shared.h. */
#include "lib/shared.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "image/stack.h"
#include "io/inline.h"
#include "io/loop.h"

struct shared {
	pthread_mutex_t lock; /* of loop and device */
	struct loop *loop;
	struct stack *stack;
	struct device *device;
	bool zeroes_fast;
};

/* One thread inside the engine. */
struct visit {
	struct shared *shared;
	struct device_request request;
	struct list ops; /* to be performed, whoever they belong to */
	pthread_cond_t finished;
	bool done;
	int result;
};

static void visit_start(struct visit *visit, struct shared *shared)
{
	visit->shared = shared;
	visit->done = false;
	list_init(&visit->ops);
	pthread_cond_init(&visit->finished, NULL);
	pthread_mutex_lock(&shared->lock);
	io_inline_collect(&visit->ops);
}

static void visit_end(struct visit *visit)
{
	io_inline_collect(NULL);
	pthread_mutex_unlock(&visit->shared->lock);
	pthread_cond_destroy(&visit->finished);
}

static void visit_done(struct visit *visit, int result)
{
	visit->result = result;
	visit->done = true;
	pthread_cond_signal(&visit->finished);
}

/* Inside nothing waits for a turn of the loop. */
static void run_tasks(struct shared *shared)
{
	while (!list_empty(&shared->loop->tasks))
		(void)loop_turn(shared->loop, 0);
}

static void perform(struct visit *visit, struct io_op *op)
{
	struct shared *shared = visit->shared;
	int r;

	pthread_mutex_unlock(&shared->lock);
	r = io_inline_perform(op);
	pthread_mutex_lock(&shared->lock);
	io_inline_done(op, r);
}

/* Until our request is done, and nothing that came of it is left to others. */
static void visit_wait(struct visit *visit)
{
	for (;;) {
		struct list *node;

		run_tasks(visit->shared);
		node = list_pop(&visit->ops);
		if (node)
			perform(visit, io_inline_op(node));
		else if (visit->done)
			return;
		else
			pthread_cond_wait(&visit->finished, &visit->shared->lock);
	}
}

static void request_done(struct device_request *request, int result)
{
	visit_done(container_of(request, struct visit, request), result);
}

int shared_request(struct shared *shared, enum device_kind kind, unsigned flags, void *buffer, uint64_t length,
		   uint64_t offset)
{
	struct visit visit;

	visit.request.kind = kind;
	visit.request.flags = flags;
	visit.request.buffer = buffer;
	visit.request.length = length;
	visit.request.offset = offset;
	visit.request.done = request_done;
	visit_start(&visit, shared);
	device_submit(shared->device, &visit.request);
	visit_wait(&visit);
	visit_end(&visit);
	return visit.result;
}

/* The cluster's part from `offset` on: its data, or the hole that it starts with. */
static int cluster_extent(struct shared *shared, const struct device_place *place, uint64_t offset,
			  uint64_t *ret_length, bool *ret_hole)
{
	const struct delta *level = &shared->stack->levels[place->level];
	uint32_t cluster = level->geometry.cluster, inside = (uint32_t)(offset % cluster);
	uint64_t at = geometry_offset(&level->geometry, place->cluster) + inside, end = at + cluster - inside, start,
		 stop;
	int r = io_next_data(level->file, at, &start, &stop);

	if (r < 0)
		return r;
	*ret_hole = start > at;
	*ret_length = (*ret_hole ? min_u64(start, end) : min_u64(stop, end)) - at;
	/* Both ends at whole sectors: what is rounded away is data. */
	if (*ret_length % SECTOR)
		*ret_length = *ret_hole ? round_down(*ret_length, SECTOR) : round_up(*ret_length, SECTOR);
	if (!*ret_length) {
		*ret_hole = false;
		*ret_length = min_u64(SECTOR, end - at);
	}
	return 0;
}

static int extent_here(struct shared *shared, uint64_t offset, uint64_t *ret_length, bool *ret_hole)
{
	uint32_t cluster = device_cluster(shared->device);
	const struct device_place place = device_lookup(shared->device, (uint32_t)(offset / cluster));

	if (place.cluster)
		return cluster_extent(shared, &place, offset, ret_length, ret_hole);
	*ret_hole = true;
	*ret_length = cluster - offset % cluster;
	return 0;
}

int shared_extent(struct shared *shared, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_hole)
{
	uint64_t done = 0, more;
	bool hole, first = false;
	int r = 0;

	length = min_u64(length, shared_size(shared) - offset);
	pthread_mutex_lock(&shared->lock);
	while (done < length) {
		r = extent_here(shared, offset + done, &more, &hole);
		if (r < 0 || (done && hole != first))
			break;
		first = hole;
		done += more;
	}
	pthread_mutex_unlock(&shared->lock);
	if (r < 0)
		return r;
	*ret_length = min_u64(done, length);
	*ret_hole = first;
	return 0;
}

/* Whether the file system of the top gives room back. */
static bool can_punch(const char *image)
{
	_free_ char *folder = strdup(image);
	_close_ int fd = -EBADF;
	char *slash = folder ? strrchr(folder, '/') : NULL;

	if (!slash)
		return false;
	slash[slash == folder] = 0;
	fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	return fd >= 0 && !ftruncate(fd, 4096) && !fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096);
}

static int open_device(struct shared *shared, struct ploop_error *err)
{
	const struct device_config config = {
		.loop = shared->loop,
		.levels = shared->stack->levels,
		.nlevels = shared->stack->nlevels,
		.read_only = shared->stack->read_only,
		.on_full = DEVICE_FULL_ERROR,
	};
	struct visit visit;
	int r;

	visit_start(&visit, shared);
	r = device_open(&config, &shared->device, err);
	visit.done = true;
	visit_wait(&visit);
	visit_end(&visit);
	return r;
}

int shared_open(const struct ploop_files *files, bool write, struct shared **ret, struct ploop_error *err)
{
	const struct stack_request request = {
		.operands = files->paths,
		.noperands = files->npaths,
		.base_format = files->format,
		.cluster = files->cluster,
		.snapshot = files->snapshot,
		.read_only = !write,
		.outside = files->outside,
		.module = &io_inline_ops,
	};
	struct shared *shared = calloc(1, sizeof(*shared));
	int r;

	if (!shared)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "opening a disk");
	pthread_mutex_init(&shared->lock, NULL);
	/* It only runs tasks here, so that it needs nothing that a fork would leave behind. */
	r = loop_new("poll", 1, &shared->loop, err);
	if (!r)
		r = stack_open(shared->loop, &request, &shared->stack, err);
	if (!r)
		r = open_device(shared, err);
	if (r < 0) {
		shared_close(shared, NULL);
		return r;
	}
	shared->zeroes_fast = write && can_punch(shared->stack->levels[shared->stack->nlevels - 1].file->path);
	*ret = shared;
	return 0;
}

static void closed(void *data, int result)
{
	visit_done(data, result);
}

int shared_close(struct shared *shared, struct ploop_error *err)
{
	struct visit visit = { .result = 0 };

	if (shared->device) {
		visit_start(&visit, shared);
		device_close(shared->device, closed, &visit);
		visit_wait(&visit);
		visit_end(&visit);
		if (visit.result < 0)
			error_sys(err, visit.result, PLOOP_EXIT_WRITE, "%s: closing the disk",
				  shared->stack->levels[shared->stack->nlevels - 1].file->path);
	}
	stack_close(shared->stack);
	if (shared->loop)
		loop_free(shared->loop);
	pthread_mutex_destroy(&shared->lock);
	free(shared);
	return visit.result;
}

uint64_t shared_size(const struct shared *shared)
{
	return device_size(shared->device);
}

bool shared_zeroes_fast(const struct shared *shared)
{
	return shared->zeroes_fast;
}
