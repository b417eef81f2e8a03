/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk-queue.c - see ublk-queue.h. Commands for a request fit into the entries of any ring, so they go with the file operations of the
 * engine in one system call a turn, and nothing has to be woken in between.
 *
 * Buffers are not registered with the ring: that would pin the memory of every tag, which is 64 MiB of a device that nobody uses,
 * to spare the look-up of a few pages a request.
 */
#include "export/ublk-queue.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/list.h"
#include "device/device.h"
#include "export/ublk-abi.h"
#include "io/loop.h"

struct ublk_tag {
	struct device_request device;
	struct loop_completion completion;
	struct ublk_queue *queue;
	struct list node; /* in ublk_queue.waiting */
	int result;
	uint16_t number;
	bool fresh; /* never fetched */
};

struct ublk_queue {
	struct ublk_queue_config config;
	struct io_uring *ring;
	const volatile struct ublk_request *requests; /* of the tags; the kernel's, read-only */
	size_t requests_size;
	char *buffers;
	struct ublk_tag *tags;
	unsigned owned;  /* tags that are not lost to us: the kernel has them, or the engine */
	unsigned busy;   /* tags that the engine has */
	bool leaving;
	struct list waiting; /* tags that wait for an entry of the ring */
	struct loop_task retry;
	void (*left)(void *data);
	void *left_data;
};

static uint32_t queue_opcode(const struct ublk_queue *queue, uint32_t number)
{
	return queue->config.encoded ? UBLK_ENCODED(number, struct ublk_io_command) : number;
}

static void *tag_buffer(const struct ublk_tag *tag)
{
	return tag->queue->buffers + (size_t)tag->number * tag->queue->config.buffer;
}

/* Giving a tag to the kernel, with the result of its request if there was one */

static struct io_uring_sqe *queue_entry(struct ublk_queue *queue)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(queue->ring);

	if (sqe)
		return sqe;
	io_uring_submit(queue->ring);
	return io_uring_get_sqe(queue->ring);
}

static void tag_give(struct ublk_tag *tag)
{
	struct ublk_queue *queue = tag->queue;
	struct io_uring_sqe *sqe = queue_entry(queue);
	struct ublk_io_command command = { .tag = tag->number, .result = tag->result,
					   .address = (uintptr_t)tag_buffer(tag) };

	if (!sqe) {
		list_push_back(&queue->waiting, &tag->node);
		loop_defer(queue->config.loop, &queue->retry);
		return;
	}
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = queue->config.channel;
	sqe->off = queue_opcode(queue, tag->fresh ? UBLK_FETCH : UBLK_COMMIT_AND_FETCH);
	memcpy((char *)sqe + 48, &command, sizeof(command));
	io_uring_sqe_set_data(sqe, &tag->completion);
	tag->fresh = false;
}

static void queue_retry(struct loop_task *task)
{
	struct ublk_queue *queue = container_of(task, struct ublk_queue, retry);
	struct list now, *node;

	list_init(&now);
	list_move_all(&now, &queue->waiting);
	while ((node = list_pop(&now)))
		tag_give(container_of(node, struct ublk_tag, node));
}

/* Serving */

static void queue_left(struct ublk_queue *queue)
{
	if (queue->leaving && !queue->busy && queue->left) {
		void (*left)(void *data) = queue->left;

		queue->left = NULL;
		left(queue->left_data);
	}
}

static void tag_answer(struct ublk_tag *tag, int result)
{
	tag->queue->busy--;
	tag->result = result;
	tag_give(tag);
	queue_left(tag->queue);
}

static void tag_done(struct device_request *device, int result)
{
	struct ublk_tag *tag = container_of(device, struct ublk_tag, device);
	bool transfer = device->kind == DEVICE_READ || device->kind == DEVICE_WRITE;

	tag_answer(tag, !result && transfer ? (int)device->length : result);
}

static int tag_kind(uint32_t operation, enum device_kind *ret)
{
	switch (operation & 0xff) {
	case UBLK_READ:
		*ret = DEVICE_READ;
		return 0;
	case UBLK_WRITE:
		*ret = DEVICE_WRITE;
		return 0;
	case UBLK_FLUSH:
		*ret = DEVICE_FLUSH;
		return 0;
	case UBLK_DISCARD:
		*ret = DEVICE_DISCARD;
		return 0;
	case UBLK_WRITE_ZEROES:
		*ret = DEVICE_WRITE_ZEROES;
		return 0;
	default:
		return -EOPNOTSUPP;
	}
}

/* Fills in what the device is asked for. 0: it is; 1: nothing has to be done; or a negative errno. */
static int tag_parse(struct ublk_tag *tag)
{
	const struct ublk_queue *queue = tag->queue;
	const volatile struct ublk_request *asked = &queue->requests[tag->number];
	struct device_request *device = &tag->device;
	uint32_t operation = asked->operation;
	uint64_t start = asked->start, size = device_size(queue->config.device);
	int r = tag_kind(operation, &device->kind);

	if (r)
		return r;
	device->flags = operation & UBLK_REQUEST_FUA ? DEVICE_FUA : 0;
	if (device->kind == DEVICE_READ)
		device->flags = 0;
	device->offset = device->length = 0;
	if (device->kind == DEVICE_FLUSH)
		return queue->config.read_only ? 1 : 0;
	if (device->kind != DEVICE_READ && queue->config.read_only)
		return -EROFS;
	device->length = (uint64_t)asked->sectors * 512;
	if (start > size / 512 || device->length > size - start * 512)
		return -EINVAL;
	device->offset = start * 512;
	if ((device->kind == DEVICE_READ || device->kind == DEVICE_WRITE) && device->length > queue->config.buffer)
		return -EINVAL;
	return device->length ? 0 : 1;
}

static void tag_serve(struct ublk_tag *tag)
{
	int r;

	/* It is not answered, and so comes again to the next engine. */
	if (tag->queue->leaving)
		return;
	tag->queue->busy++;
	r = tag_parse(tag);
	if (r)
		tag_answer(tag, r < 0 ? r : 0);
	else
		device_submit(tag->queue->config.device, &tag->device);
}

static void tag_completed(struct loop_completion *completion, int result, unsigned flags)
{
	struct ublk_tag *tag = container_of(completion, struct ublk_tag, completion);
	struct ublk_queue *queue = tag->queue;

	(void)flags;
	if (result == 0) {
		tag_serve(tag);
		return;
	}
	/* The kernel has no more use for it: the device is stopped. */
	if (!--queue->owned)
		queue->config.ended(queue->config.data);
}

/* Making and ending */

static int queue_map(struct ublk_queue *queue)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), size = queue->config.depth * sizeof(struct ublk_request);
	void *at;

	queue->requests_size = (size + page - 1) & ~(page - 1);
	at = mmap(NULL, queue->requests_size, PROT_READ, MAP_SHARED | MAP_POPULATE, queue->config.channel, 0);
	if (at == MAP_FAILED)
		return -errno;
	queue->requests = at;
	at = mmap(NULL, (size_t)queue->config.depth * queue->config.buffer, PROT_READ | PROT_WRITE,
		  MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (at == MAP_FAILED)
		return -errno;
	queue->buffers = at;
	return 0;
}

static void queue_init_tags(struct ublk_queue *queue)
{
	for (unsigned i = 0; i < queue->config.depth; i++) {
		struct ublk_tag *tag = &queue->tags[i];

		tag->queue = queue;
		tag->number = (uint16_t)i;
		tag->fresh = true;
		tag->completion.done = tag_completed;
		tag->device.buffer = tag_buffer(tag);
		tag->device.done = tag_done;
	}
}

int ublk_queue_new(const struct ublk_queue_config *config, struct ublk_queue **ret)
{
	struct ublk_queue *queue = calloc(1, sizeof(*queue));
	int r;

	if (!queue) {
		close(config->channel);
		return -ENOMEM;
	}
	queue->config = *config;
	queue->ring = loop_ring(config->loop);
	queue->retry.run = queue_retry;
	list_init(&queue->waiting);
	queue->tags = calloc(config->depth, sizeof(*queue->tags));
	r = queue->tags ? queue_map(queue) : -ENOMEM;
	if (r) {
		ublk_queue_free(queue);
		return r;
	}
	queue_init_tags(queue);
	*ret = queue;
	return 0;
}

void ublk_queue_start(struct ublk_queue *queue)
{
	queue->owned = queue->config.depth;
	for (unsigned i = 0; i < queue->config.depth; i++)
		tag_give(&queue->tags[i]);
}

void ublk_queue_free(struct ublk_queue *queue)
{
	if (!queue)
		return;
	if (queue->buffers)
		munmap(queue->buffers, (size_t)queue->config.depth * queue->config.buffer);
	if (queue->requests)
		munmap((void *)(uintptr_t)queue->requests, queue->requests_size);
	close(queue->config.channel);
	free(queue->tags);
	free(queue);
}

void ublk_queue_leave(struct ublk_queue *queue, void (*left)(void *data), void *data)
{
	queue->leaving = true;
	queue->left = left;
	queue->left_data = data;
	queue_left(queue);
}
