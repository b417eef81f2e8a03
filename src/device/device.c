/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.c - opening and closing a device.
 *
 * Nothing is written before every index has been read and found good. How the top is marked and unmarked is in writer.c; a
 * device that aborted leaves its mark.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "device/internal.h"

#define RETRY_NS UINT64_C(1000000000)

void device_event(struct device *dev, enum device_event event)
{
	if (dev->event)
		dev->event(dev->event_data, event);
}

void device_abort(struct device *dev)
{
	if (dev->aborted)
		return;
	dev->aborted = true;
	device_event(dev, DEVICE_EVENT_ABORTED);
	device_resume(dev); /* what waits for space fails now */
}

static int device_init_buffers(struct device *dev)
{
	dev->buffer_size = (uint32_t)min_u64(dev->cluster, UINT64_C(1) << 20);
	dev->buffer_memory = io_buffer_new((size_t)DEVICE_BUFFERS * dev->buffer_size);
	if (!dev->buffer_memory)
		return -ENOMEM;
	for (unsigned i = 0; i < DEVICE_BUFFERS; i++)
		dev->buffers[i] = (char *)dev->buffer_memory + (size_t)i * dev->buffer_size;
	dev->free_buffers = DEVICE_BUFFERS;
	return 0;
}

static void device_free(struct device *dev)
{
	if (dev->retry_timer.armed)
		loop_timer_cancel(dev->loop, &dev->retry_timer);
	cbt_fini(dev);
	partials_free(dev->partials);
	writer_free(dev->under);
	writer_free(dev->writer);
	map_fini(&dev->map);
	if (dev->buffer_memory)
		io_buffer_free(dev->buffer_memory, (size_t)DEVICE_BUFFERS * dev->buffer_size);
	free(dev);
}

static void device_init(struct device *dev, const struct device_config *config)
{
	dev->loop = config->loop;
	dev->nlevels = config->nlevels;
	memcpy(dev->levels, config->levels, config->nlevels * sizeof(dev->levels[0]));
	dev->top = &dev->levels[config->nlevels - 1];
	dev->read_only = config->read_only;
	dev->size = dev->top->geometry.size;
	dev->cluster = dev->top->geometry.cluster;
	dev->on_full = config->on_full;
	dev->retry_ns = config->retry_ns ? config->retry_ns : RETRY_NS;
	dev->retry_timer.expired = stall_retry;
	dev->partial_limit = config->partial_limit;
	dev->shadow = config->read_only ? NULL : config->shadow;
	dev->event = config->event;
	dev->event_data = config->event_data;
	list_init(&dev->gate);
	list_init(&dev->trackers);
	list_init(&dev->active);
	list_init(&dev->locks);
	list_init(&dev->drainers);
	list_init(&dev->buffer_waiters);
	list_init(&dev->stalled_ops);
	list_init(&dev->stalled_requests);
}

/* What the stack's opener has checked already; a mistake here would write to the wrong place. */
static int device_check_levels(const struct device *dev, struct ploop_error *err)
{
	for (unsigned i = 0; i < dev->nlevels; i++) {
		const struct delta *delta = &dev->levels[i];

		if (delta->geometry.cluster == dev->cluster &&
		    delta->geometry.clusters <= dev->top->geometry.clusters && (delta->format->has_index || i == 0))
			continue;
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: does not fit the deltas above it",
				 delta->file->path);
	}
	return 0;
}

int device_open(const struct device_config *config, struct device **ret, struct ploop_error *err)
{
	struct device *dev;
	int r;

	if (config->nlevels < 1 || config->nlevels > DEVICE_MAX_LEVELS)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "a stack has 1 to %d deltas, not %u",
				 DEVICE_MAX_LEVELS, config->nlevels);
	dev = calloc(1, sizeof(*dev));
	if (!dev)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for a device");
	device_init(dev, config);
	r = device_check_levels(dev, err);
	if (!r && !dev->read_only)
		r = writer_check(dev->top, err);
	if (!r && (map_init(&dev->map, dev->top->geometry.clusters) ||
		   writer_new(dev, device_top_level(dev), &dev->writer) || partials_new(dev, &dev->partials) ||
		   device_init_buffers(dev)))
		r = error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for the map of a disk of %u clusters",
			      dev->top->geometry.clusters);
	if (!r)
		r = load_levels(dev, err);
	if (!r)
		r = cbt_load(dev, err);
	if (!r && !dev->read_only)
		r = writer_start(dev->writer, err);
	if (r) {
		device_free(dev);
		return r;
	}
	if (dev->shadow) {
		shadow_level_activate(dev->writer->shadow);
		shadow_level_set_top(dev->writer->shadow);
	}
	*ret = dev;
	return 0;
}

static int device_finalize(struct device *dev)
{
	int r = 0;

	if (dev->read_only)
		return 0;
	if (dev->aborted)
		return -EIO;
	/* A merge that was stopped left two. The lower one first: until it is whole the upper one must count as in use. */
	if (dev->under)
		r = writer_finish(dev->under);
	return r ? r : writer_finish(dev->writer);
}

static void device_close_flushed(struct device_request *request, int result)
{
	struct device *dev = container_of(request, struct device, close_flush);

	dev->close_flushed = true;
	if (result)
		dev->close_result = result;
	loop_defer(dev->loop, &dev->close_task);
}

static void device_close_settled(struct device_settle *settle, int result)
{
	struct device *dev = container_of(settle, struct device, close_settle);

	dev->close_settled = true;
	if (result)
		dev->close_result = result;
	loop_defer(dev->loop, &dev->close_task);
}

/* What was written in part is filled; where that fails the image stays as after a crash. True: not yet. */
static bool device_close_settles(struct device *dev)
{
	if (!dev->close_settling) {
		dev->close_settle.done = device_close_settled;
		device_settle(dev, &dev->close_settle);
	}
	dev->close_settling = true;
	if (dev->close_settled && !partials_quiet(dev->partials))
		loop_defer(dev->loop, &dev->close_task);
	return !dev->close_settled || !partials_quiet(dev->partials);
}

static void device_closed(struct device *dev)
{
	void (*done)(void *data, int result) = dev->close_done;
	void *data = dev->close_data;
	int r = dev->close_result;

	device_free(dev);
	done(data, r);
}

static void device_close_punched(struct io_op *op, int result)
{
	(void)result; /* a cluster that nothing uses holds blocks: no more than that */
	device_closed(container_of(op, struct device, close_punch));
}

static void device_close_punch(struct device *dev)
{
	const struct writer *writer = dev->writer;
	struct io_op *op = &dev->close_punch;

	op->kind = IO_PUNCH;
	op->file = writer->delta->file;
	op->offset = geometry_offset(&writer->delta->geometry, writer->useless);
	op->length = dev->cluster;
	op->done = device_close_punched;
	device_io(dev, op);
}

static void device_close_step(struct loop_task *task)
{
	struct device *dev = container_of(task, struct device, close_task);

	if (!list_empty(&dev->active) || dev->job || device_close_settles(dev))
		return;
	if (!dev->close_flushed || commit_busy(&dev->writer->commit) ||
	    (dev->under && commit_busy(&dev->under->commit))) {
		dev->close_flush.kind = DEVICE_FLUSH;
		dev->close_flush.done = device_close_flushed;
		request_submit(dev, &dev->close_flush);
		return;
	}
	partials_refuse_plants(dev->partials, -ESHUTDOWN);
	if (!dev->close_result)
		dev->close_result = device_finalize(dev);
	if (dev->writer->useless)
		device_close_punch(dev);
	else
		device_closed(dev);
}

void device_check_close(struct device *dev)
{
	if (dev->closing && list_empty(&dev->active) && !dev->job)
		loop_defer(dev->loop, &dev->close_task);
}

void device_close(struct device *dev, void (*done)(void *data, int result), void *data)
{
	dev->close_done = done;
	dev->close_data = data;
	dev->closing = true;
	dev->close_task.run = device_close_step;
	if (dev->job && dev->job->stop)
		dev->job->stop(dev->job);
	device_check_close(dev);
}

uint64_t device_size(const struct device *dev)
{
	return dev->size;
}

const struct geometry *device_geometry(const struct device *dev, unsigned level)
{
	return &dev->levels[level].geometry;
}

uint32_t device_cluster(const struct device *dev)
{
	return dev->cluster;
}

bool device_read_only(const struct device *dev)
{
	return dev->read_only;
}

bool device_aborted(const struct device *dev)
{
	return dev->aborted;
}

bool device_full(const struct device *dev)
{
	return dev->full;
}

unsigned device_levels(const struct device *dev)
{
	return dev->nlevels;
}

struct device_place device_lookup(const struct device *dev, uint32_t v)
{
	return (struct device_place){ .level = dev->map.level[v], .cluster = dev->map.cluster[v] };
}

bool device_is_partial(const struct device *dev, uint32_t v)
{
	return partial_find(dev->partials, v);
}

bool device_releasable(const struct device *dev, uint32_t v)
{
	return map_in(&dev->map, v, device_writer(dev, v)->level) && device_can_unmap(dev, v);
}

void device_get_usage(const struct device *dev, struct device_usage *ret)
{
	ret->mapped = dev->map.mapped;
	ret->top_used = dev->writer->alloc.used.set;
	ret->top_free = dev->writer->alloc.file > dev->writer->alloc.first + dev->writer->alloc.used.set
				? dev->writer->alloc.file - dev->writer->alloc.first - dev->writer->alloc.used.set
				: 0;
}

struct device_stats *device_get_stats(struct device *dev)
{
	return &dev->stats;
}

const char *const device_stats_names[] = {
#define DEVICE_STATS_NAME(name) #name,
	DEVICE_STATS(DEVICE_STATS_NAME)
#undef DEVICE_STATS_NAME
		NULL,
};
