/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * device.c - opening and closing a device.
 *
 * Order of writes:
 *  open   1. nothing is written until every index has been read and found good;
 *         2. the top is marked in use, synced, which tells everybody that a dirty bitmap in it is out of date;
 *         3. a dirty bitmap is rewritten so that it says that everything changed, synced; or the header stops naming an
 *            extension of which nothing is left; only then
 *         4. clusters at the end of the file that no entry names (left by a crash, or preallocated by another program)
 *            are cut off.
 *  close  1. all requests are done, and a commit after the last of them;
 *         2. free clusters at the end of the file are cut off, synced;
 *         3. the in-use mark is cleared, synced.
 * A crash before open 2 changes nothing; between open 2 and close 3 the mark stays, which makes the next open scan the
 * index, as it does anyway. A device that aborted skips close 2 and 3.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "device/internal.h"
#include "format/extension.h"

#define FLAG_EMPTY 1u /* CIF_Empty */
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

/* Writes the header of the top, and nothing else of its sector: the entries that share it come from the map. */
static int device_write_head(struct device *dev, enum format_state state)
{
	struct delta *top = &dev->levels[device_top_level(dev)];
	uint8_t sector[SECTOR];
	int r = io_pread(top->file, sector, sizeof(sector), 0);

	if (r)
		return r;
	top->geometry.state = state;
	if (state == FORMAT_CLEAN && alloc_end(&dev->alloc) > dev->alloc.first)
		top->geometry.flags &= ~FLAG_EMPTY;
	top->format->build(&top->geometry, sector);
	memcpy(dev->commit.head, sector, COMMIT_HEAD);
	r = io_pwrite(top->file, sector, sizeof(sector), 0);
	return r ? r : io_sync(top->file);
}

/* Cuts what no entry names off the end of the file. */
static int device_cut_tail(struct device *dev)
{
	const struct geometry *g = &dev->top->geometry;
	uint64_t end = alloc_end(&dev->alloc);
	uint64_t size;
	int r = io_size(dev->top->file, &size);

	if (r)
		return r;
	if (size != geometry_offset(g, (uint32_t)end)) {
		r = io_truncate(dev->top->file, geometry_offset(g, (uint32_t)end));
		if (r)
			return r;
	}
	dev->alloc.file = end;
	dev->alloc.opened = end;
	return 0;
}

static int device_check_writable(const struct device *dev, struct ploop_error *err)
{
	const struct geometry *g = &dev->top->geometry;

	if (g->read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_FORMAT, "%s: can only be opened read-only: %s",
				 dev->top->file->path, g->reason);
	if (dev->top->format->has_index &&
	    (geometry_offset(g, g->first) < geometry_pages(g) * FORMAT_PAGE || g->index > COMMIT_HEAD))
		return error_set(err, -EROFS, PLOOP_EXIT_FORMAT,
				 "%s: can only be opened read-only: its data starts inside the index's last page",
				 dev->top->file->path);
	return 0;
}

/* Settles the format extension before the first write: see format/extension.h. */
static int device_spend_extension(struct device *dev)
{
	struct geometry *g = &dev->top->geometry;
	uint8_t *cluster;
	uint32_t k;
	int r;

	if (!g->extension)
		return 0;
	k = device_extension_cluster(dev);
	cluster = io_buffer_new(g->cluster);
	if (!cluster)
		return -ENOMEM;
	r = io_pread(dev->top->file, cluster, g->cluster, g->extension);
	if (!r && extension_spend(g, cluster)) {
		r = io_pwrite(dev->top->file, cluster, g->cluster, g->extension);
		r = r ? r : io_sync(dev->top->file);
	} else if (!r) {
		alloc_untake(&dev->alloc, k, 1);
		r = device_write_head(dev, FORMAT_IN_USE);
	}
	io_buffer_free(cluster, g->cluster);
	return r;
}

static int device_prepare_top(struct device *dev, struct ploop_error *err)
{
	int r;

	if (dev->read_only)
		return 0;
	/* What a process that died left in the cache of the disk is seen, so that the first flush must make it durable. With
	 * an index the mark does that. */
	dev->commit.written++;
	if (!dev->top->format->has_index)
		return 0;
	r = device_write_head(dev, FORMAT_IN_USE);
	if (!r)
		r = device_spend_extension(dev);
	if (!r)
		r = device_cut_tail(dev);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot mark the image as in use", dev->top->file->path);
	return 0;
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
	if (dev->commit.timer.armed)
		loop_timer_cancel(dev->loop, &dev->commit.timer);
	commit_fini(&dev->commit);
	alloc_fini(&dev->alloc);
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
	dev->event = config->event;
	dev->event_data = config->event_data;
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
		r = device_check_writable(dev, err);
	if (!r && (map_init(&dev->map, dev->top->geometry.clusters) || commit_init(&dev->commit, dev) ||
		   device_init_buffers(dev)))
		r = error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for the map of a disk of %u clusters",
			      dev->top->geometry.clusters);
	if (!r)
		r = load_levels(dev, err);
	if (!r)
		r = device_prepare_top(dev, err);
	if (r) {
		device_free(dev);
		return r;
	}
	*ret = dev;
	return 0;
}

/* Leaves the files as any other software would expect them. */
static int device_finalize(struct device *dev)
{
	int r;

	if (dev->read_only)
		return 0;
	if (dev->aborted)
		return -EIO;
	if (!dev->top->format->has_index)
		return io_sync(dev->top->file);
	r = device_cut_tail(dev);
	if (!r)
		r = io_sync(dev->top->file);
	return r ? r : device_write_head(dev, FORMAT_CLEAN);
}

static void device_close_flushed(struct device_request *request, int result)
{
	struct device *dev = container_of(request, struct device, close_flush);

	dev->close_flushed = true;
	if (result)
		dev->close_result = result;
	loop_defer(dev->loop, &dev->close_task);
}

static void device_close_step(struct loop_task *task)
{
	struct device *dev = container_of(task, struct device, close_task);
	void (*done)(void *data, int result) = dev->close_done;
	void *data = dev->close_data;
	int r;

	if (!list_empty(&dev->active))
		return;
	if (!dev->close_flushed || commit_busy(&dev->commit)) {
		dev->close_flush.kind = DEVICE_FLUSH;
		dev->close_flush.done = device_close_flushed;
		device_submit(dev, &dev->close_flush);
		return;
	}
	r = dev->close_result ? dev->close_result : device_finalize(dev);
	device_free(dev);
	done(data, r);
}

void device_check_close(struct device *dev)
{
	if (dev->closing && list_empty(&dev->active))
		loop_defer(dev->loop, &dev->close_task);
}

void device_close(struct device *dev, void (*done)(void *data, int result), void *data)
{
	dev->close_done = done;
	dev->close_data = data;
	dev->closing = true;
	dev->close_task.run = device_close_step;
	device_check_close(dev);
}

uint64_t device_size(const struct device *dev)
{
	return dev->size;
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
	return !list_empty(&dev->stalled_ops) || !list_empty(&dev->stalled_requests);
}

unsigned device_levels(const struct device *dev)
{
	return dev->nlevels;
}

struct device_place device_lookup(const struct device *dev, uint32_t v)
{
	return (struct device_place){ .level = dev->map.level[v], .cluster = dev->map.cluster[v] };
}

void device_get_usage(const struct device *dev, struct device_usage *ret)
{
	ret->mapped = dev->map.mapped;
	ret->top_used = dev->alloc.used.set;
	ret->top_free = dev->alloc.file > dev->alloc.first + dev->alloc.used.set
				? dev->alloc.file - dev->alloc.first - dev->alloc.used.set
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
