/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * bench.c - measures the engine with its I/O modules, without a front end, the way `qemu-img bench` measures that of QEMU.
 *
 * All requests live in one array. An answer only counts, marks its request free and stops the loop at the end of its turn;
 * the free ones are started again between two turns, so that one turn submits many.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/prng.h"
#include "device/device.h"
#include "image/stack.h"
#include "io/loop.h"
#include "lib/disk.h"

#define BENCH_COUNT 75000
#define BENCH_DEPTH 64
#define BENCH_DEPTH_MAX 4096
#define BENCH_LENGTH 4096
#define BENCH_LENGTH_MAX (64u << 20)
#define BENCH_PATTERN 0xa5
#define SECOND 1000000000ull

struct bench_slot {
	struct device_request request;
	struct bench *bench;
	struct list node; /* in bench->free */
	void *buffer;
};

struct bench {
	struct ploop_bench run; /* nothing is 0 that must not be */
	struct ploop_disk *disk;
	uint64_t size;
	struct bench_slot *slots;
	void *buffers;
	size_t buffers_size;
	struct list free;
	struct prng prng;
	uint64_t next; /* offset of the next request */
	uint64_t started, finished;
	uint64_t unflushed; /* writes started since the last flush */
	unsigned in_flight;
	struct bench_slot flush;
	bool flushing;
	uint64_t flushes;
	int result; /* the first error */
};

static uint64_t wall_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static uint64_t timeval_ns(struct timeval t)
{
	return (uint64_t)t.tv_sec * SECOND + (uint64_t)t.tv_usec * 1000;
}

static uint64_t cpu_ns(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return timeval_ns(usage.ru_utime) + timeval_ns(usage.ru_stime);
}

static void bench_done(struct device_request *request, int result)
{
	struct bench_slot *slot = container_of(request, struct bench_slot, request);
	struct bench *bench = slot->bench;

	if (result < 0 && !bench->result)
		bench->result = result;
	bench->in_flight--;
	loop_stop(bench->disk->loop);
	if (slot == &bench->flush) {
		bench->flushing = false;
		return;
	}
	bench->finished++;
	list_push_back(&bench->free, &slot->node);
}

static void bench_submit(struct bench *bench, struct bench_slot *slot, enum device_kind kind, uint64_t offset,
			 uint64_t length)
{
	struct device_request *request = &slot->request;

	/* Only what is the caller's to set: the whole is a kilobyte. */
	request->kind = kind;
	request->offset = offset;
	request->length = length;
	request->buffer = slot->buffer;
	request->done = bench_done;
	bench->in_flight++;
	device_submit(bench->disk->device, request);
}

static uint64_t bench_next_offset(struct bench *bench)
{
	const struct ploop_bench *run = &bench->run;
	uint64_t offset;

	if (run->random)
		return run->offset + prng_below(&bench->prng, (bench->size - run->offset) / run->length) * run->length;
	/* Like qemu-img: a step beyond the end goes on from the start, by as much. */
	bench->next %= bench->size;
	if (bench->next > bench->size - run->length)
		bench->next = 0;
	offset = bench->next;
	bench->next += run->step;
	return offset;
}

/* A flush is due. Without no_drain it waits for what is in flight, and everything waits for it. */
static bool bench_flush_waits(struct bench *bench)
{
	const struct ploop_bench *run = &bench->run;

	if (bench->flushing)
		return !run->no_drain;
	if (!run->flush_interval || bench->unflushed < run->flush_interval)
		return false;
	if (!run->no_drain && bench->in_flight)
		return true;
	bench->unflushed = 0;
	bench->flushing = true;
	bench->flushes++;
	bench_submit(bench, &bench->flush, DEVICE_FLUSH, 0, 0);
	return bench->flushing && !run->no_drain;
}

static void bench_start_free(struct bench *bench)
{
	const struct ploop_bench *run = &bench->run;

	while (!bench->result && bench->started < run->count && !bench_flush_waits(bench)) {
		struct list *node = list_pop(&bench->free);

		if (!node)
			return;
		list_init(node);
		bench->started++;
		bench->unflushed++;
		bench_submit(bench, container_of(node, struct bench_slot, node),
			     run->write ? DEVICE_WRITE : DEVICE_READ, bench_next_offset(bench), run->length);
	}
}

static int bench_loop(struct bench *bench)
{
	int r = 0;

	while (!r && (bench->in_flight || (!bench->result && bench->finished < bench->run.count))) {
		bench_start_free(bench);
		if (bench->in_flight)
			r = loop_run(bench->disk->loop);
	}
	return r < 0 ? r : bench->result;
}

static int bench_check_first_write(struct bench *bench, struct ploop_error *err)
{
	struct ploop_bench *run = &bench->run;
	uint32_t cluster = device_cluster(bench->disk->device);
	struct device_usage usage;
	uint64_t fit;

	device_get_usage(bench->disk->device, &usage);
	if (usage.mapped)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "first writes need an empty disk: make a new one with ploop init -t none");
	if (run->random)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "first writes are in order, not random");
	if (!run->step)
		run->step = cluster;
	if (run->step < cluster || run->offset % cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "first writes must be at least a cluster (%u bytes) apart", cluster);
	fit = run->offset < bench->size ? div_round_up(bench->size - run->offset, run->step) : 0;
	if (!run->count)
		run->count = fit;
	if (run->count > fit)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "the disk has room for %llu first writes only",
				 (unsigned long long)fit);
	run->write = true;
	return 0;
}

/* Fills in what was left open and refuses what cannot be. */
static int bench_check(struct bench *bench, struct ploop_error *err)
{
	struct ploop_bench *run = &bench->run;
	int r = 0;

	bench->size = device_size(bench->disk->device);
	if (!run->length)
		run->length = BENCH_LENGTH;
	if (!run->depth)
		run->depth = BENCH_DEPTH;
	if (run->first_write)
		r = bench_check_first_write(bench, err);
	if (r < 0)
		return r;
	if (!run->step)
		run->step = run->length;
	if (!run->count)
		run->count = BENCH_COUNT;
	if (run->length % SECTOR || run->step % SECTOR || run->offset % SECTOR || run->length > BENCH_LENGTH_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "sizes and offsets are multiples of 512, a request at most 64 MiB");
	if (run->depth > BENCH_DEPTH_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "the depth is at most %u", BENCH_DEPTH_MAX);
	if (run->offset >= bench->size || run->length > bench->size - run->offset)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "the disk has only %llu bytes",
				 (unsigned long long)bench->size);
	if (run->flush_interval && !run->write)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "flushes need writes");
	return 0;
}

static int bench_prepare(struct bench *bench, struct ploop_error *err)
{
	const struct ploop_bench *run = &bench->run;
	size_t each = round_up(run->length, 4096);

	bench->slots = calloc(run->depth, sizeof(*bench->slots));
	bench->buffers_size = each * run->depth;
	bench->buffers = io_buffer_new(bench->buffers_size);
	if (!bench->slots || !bench->buffers)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%u requests of %u bytes", run->depth, run->length);
	memset(bench->buffers, BENCH_PATTERN, bench->buffers_size);
	list_init(&bench->free);
	for (unsigned i = 0; i < run->depth; i++) {
		bench->slots[i].bench = bench;
		bench->slots[i].buffer = (uint8_t *)bench->buffers + each * i;
		list_push_back(&bench->free, &bench->slots[i].node);
	}
	bench->flush.bench = bench;
	bench->next = run->offset;
	prng_seed(&bench->prng, 1);
	return 0;
}

static int bench_measure(struct bench *bench, struct ploop_bench_result *ret, struct ploop_error *err)
{
	struct stack *stack = bench->disk->stack;
	uint64_t wall = wall_ns(), cpu = cpu_ns();
	int r = bench_loop(bench);

	*ret = (struct ploop_bench_result){
		.requests = bench->finished,
		.bytes = bench->finished * bench->run.length,
		.flushes = bench->flushes,
		.wall_ns = wall_ns() - wall,
		.cpu_ns = cpu_ns() - cpu,
		.size = bench->size,
		.cluster = device_cluster(bench->disk->device),
		.run = bench->run,
		.io = stack->levels[stack->nlevels - 1].file->ops->name,
	};
	ret->run.loop = bench->disk->loop->ops->name;
	if (r < 0)
		return error_sys(err, r, bench->run.write ? PLOOP_EXIT_WRITE : PLOOP_EXIT_READ, "%s",
				 stack->levels[stack->nlevels - 1].file->path);
	return 0;
}

int ploop_bench(const struct ploop_bench *run, struct ploop_bench_result *ret, struct ploop_error *err)
{
	struct bench bench = { .run = *run };
	struct ploop_bench_result result;
	const struct disk_config config = {
		.files = run->files,
		.write = run->write || run->first_write,
		.loop = run->loop,
		.depth = min_u64(run->depth ? run->depth : BENCH_DEPTH, BENCH_DEPTH_MAX),
	};
	int r, closed;

	r = disk_open(&config, &bench.disk, err);
	if (r < 0)
		return r;
	r = bench_check(&bench, err);
	if (!r)
		r = bench_prepare(&bench, err);
	if (!r)
		r = bench_measure(&bench, &result, err);
	closed = disk_close(bench.disk, r < 0 ? NULL : err);
	io_buffer_free(bench.buffers, bench.buffers_size);
	free(bench.slots);
	if (!r)
		r = closed;
	if (!r)
		*ret = result;
	return r;
}
