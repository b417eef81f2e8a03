/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backup-offline.c - a backup of a disk that nobody uses: a device in this process keeps everybody else off, knows what changed, and
 * writes the bitmaps when it is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "image/descriptor.h"
#include "image/journal.h"
#include "image/lock.h"
#include "image/stack.h"
#include "io/loop.h"
#include "lib/backup.h"
#include "lib/bitmap-id.h"
#include "lib/bitmaps.h"
#include "lib/disk.h"

struct offline {
	struct backup *backup;
	struct ploop_disk *disk;
	const struct cbt_map *map; /* NULL: a full backup */
	struct copy_reader *reader;
	struct copy_run *runs;
	size_t nruns;
};

static int send_runs(struct offline *offline, struct ploop_error *err)
{
	int r = copy_reader_send(offline->reader, offline->runs, offline->nruns, offline->backup->sink, err);

	offline->nruns = 0;
	return r == 0 ? backup_tell(offline->backup, "backup", offline->reader, err) : r;
}

/* One stretch inside one cluster. What is nowhere comes as a whole cluster. */
static int add(struct offline *offline, uint64_t start, uint64_t end, struct ploop_error *err)
{
	const struct device *device = offline->disk->device;
	uint64_t cluster = device_cluster(device), base = round_down(start, cluster);
	struct device_place place = device_lookup(device, (uint32_t)(start / cluster));
	struct copy_run *run = &offline->runs[offline->nruns];

	if (!place.cluster && !offline->map)
		return 0;
	if (!place.cluster)
		*run = (struct copy_run){ base, min_u64(cluster, device_size(device) - base), COPY_NOWHERE, 0 };
	else
		*run = (struct copy_run){ start, end - start, (int)place.level,
					  geometry_offset(device_geometry(device, place.level), place.cluster) +
						  start - base };
	return ++offline->nruns == COPY_RUNS ? send_runs(offline, err) : 0;
}

static int send_stretch(struct offline *offline, uint64_t start, uint64_t end, struct ploop_error *err)
{
	uint64_t cluster = device_cluster(offline->disk->device);
	int r = 0;

	while (r == 0 && start < end) {
		uint64_t stop = min_u64(end, round_down(start, cluster) + cluster);

		r = add(offline, start, stop, err);
		start = stop;
	}
	return r;
}

static int send_all(struct offline *offline, struct ploop_error *err)
{
	uint64_t size = device_size(offline->disk->device), unit;
	const struct bitmap *dirty;
	int r = 0;

	if (!offline->map) {
		r = send_stretch(offline, 0, size, err);
		return r == 0 ? send_runs(offline, err) : r;
	}
	dirty = &offline->map->tracker.dirty;
	unit = offline->map->tracker.unit;
	for (uint64_t bit = bitmap_next_set(dirty, 0); r == 0 && bit < dirty->bits;) {
		uint64_t end = bitmap_next_clear(dirty, bit);

		r = send_stretch(offline, bit * unit, min_u64(end * unit, size), err);
		bit = bitmap_next_set(dirty, end);
	}
	return r == 0 ? send_runs(offline, err) : r;
}

static int open_reader(struct offline *offline, struct ploop_error *err)
{
	const struct stack *stack = offline->disk->stack;
	_free_ char **files = calloc(stack->nlevels, sizeof(char *));

	if (!files)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "backup");
	for (unsigned i = 0; i < stack->nlevels; i++)
		files[i] = stack->levels[i].file->path;
	return copy_reader_new(files, stack->nlevels, &offline->reader, err);
}

static int find_map(struct offline *offline, struct ploop_error *err)
{
	const struct backup *backup = offline->backup;

	if (!backup->since.only)
		return 0;
	offline->map = device_cbt_find(offline->disk->device, backup->since.id);
	return offline->map ? 0 : bitmaps_missing(backup->config->disk, backup->since.id, err);
}

/* Nobody writes: it is the moment of the backup from the beginning to the end. */
static int run(struct offline *offline, bool raw, struct ploop_error *err)
{
	struct backup *backup = offline->backup;
	struct device *device = offline->disk->device;
	const struct geometry *g = device_geometry(device, device_levels(device) - 1);
	int r = find_map(offline, err);

	if (r == 0)
		r = open_reader(offline, err);
	if (r == 0 && !raw)
		r = device_cbt_start(device, backup->record.id, err);
	if (r == 0)
		r = backup_begin(backup, g->size, g->cluster, raw ? 2 : g->version, err);
	if (r == 0) {
		copy_reader_limit(offline->reader, backup->config->bytes_a_second);
		r = send_all(offline, err);
	}
	if (r == 0)
		r = backup_finish(backup, err);
	/* The list of bitmaps is written when the device is closed. */
	if (r < 0)
		device_cbt_drop(device, backup->record.id);
	else if (backup->since.only)
		device_cbt_drop(device, backup->since.id);
	return r;
}

int backup_offline(struct backup *backup, struct ploop_error *err)
{
	struct offline offline = { .backup = backup };
	struct ploop_error closing;
	bool raw = false;
	int r, closed;

	offline.runs = calloc(COPY_RUNS, sizeof(*offline.runs));
	if (!offline.runs)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "backup");
	r = bitmaps_open_disk(backup->config->disk, true, &offline.disk, err);
	if (r == 0) {
		const struct stack *stack = offline.disk->stack;

		raw = !stack->levels[stack->nlevels - 1].format->has_index;
		if (raw)
			backup_warn_raw(stack->levels[stack->nlevels - 1].file->path);
		r = run(&offline, raw, err);
		if (offline.reader)
			backup->report.bytes = copy_reader_bytes(offline.reader);
		copy_reader_free(offline.reader);
		closed = bitmaps_close_disk(offline.disk, &closing);
		if (r == 0 && closed < 0)
			r = error_set(err, closed, closing.status, "%s", closing.text);
	}
	backup->report.tracked = !raw;
	backup->report.passes = 1;
	free(offline.runs);
	return r;
}
