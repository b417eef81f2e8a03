/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replace.c - the file of a level that nobody writes to gives way to another one of the same content.
 *
 *	        clusters that are partial (partial.h) are filled, while requests go on: they know where below the rest of them is
 *	DRAIN   new requests wait at the gate; those under way end
 *	TURN    the caller changes what names the files; then the map leads to the new file, and the gate opens
 *
 * Order of writes: nothing is written here. Old and new file hold the same, so that the disk is the same whichever of them is named
 * when a crash comes; and no request sees one while the other is named.
 *
 * That both hold the same the caller says. What is checked is that both map the same clusters: else what lies below would come to
 * light, or vanish. Only in the base a cluster that is not there may also be one of zeros.
 */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "device/internal.h"

struct device_replace {
	struct device *device;
	struct device_job job;
	struct device_replace_config config;
	struct delta delta; /* the new one */
	struct map map;     /* what it maps */
	bool draining, turning;
	struct loop_task task;
	int result;
};

static void replace_free(struct device_replace *replace)
{
	if (!replace)
		return;
	map_fini(&replace->map);
	free(replace);
}

/* Entries of the level in the merged map lead to the new file. */
static void replace_map(struct device *dev, unsigned level, const struct map *new)
{
	struct map *map = &dev->map;

	for (uint32_t v = 0; v < map->count; v++) {
		uint32_t cluster = v < new->count ? new->cluster[v] : 0;

		if (map_in(map, v, level) && !cluster)
			map_clear(map, v);
		else if (map_in(map, v, level))
			map->cluster[v] = cluster;
		else if (cluster && !map->cluster[v])
			map_cover(map, v, level, cluster);
		else if (cluster)
			bitmap_set(&map->below, v); /* levels above cover it */
	}
}

static void replace_end(struct loop_task *task)
{
	struct device_replace *replace = container_of(task, struct device_replace, task);
	const struct device_replace_config config = replace->config;
	struct device *dev = replace->device;
	int r = replace->result;

	if (!r && config.turn)
		r = config.turn(config.data);
	if (!r) {
		replace_map(dev, config.level, &replace->map);
		dev->levels[config.level] = replace->delta;
	}
	if (dev->gated)
		gate_open(dev);
	replace_free(replace);
	job_end(dev, config.done, config.data, r);
}

/* Outside whatever called. */
static void replace_later(struct device_replace *replace, int result)
{
	if (replace->turning)
		return;
	replace->turning = true;
	replace->result = result;
	replace->task.run = replace_end;
	loop_defer(replace->device->loop, &replace->task);
}

static void replace_poke(struct device_job *job)
{
	struct device_replace *replace = container_of(job, struct device_replace, job);

	if (replace->draining && list_empty(&replace->device->active))
		replace_later(replace, 0);
}

static void replace_begin(struct device_job *job, int result)
{
	struct device_replace *replace = container_of(job, struct device_replace, job);

	if (result) {
		replace_later(replace, result);
		return;
	}
	replace->draining = true;
	gate_close(replace->device);
	replace_poke(job);
}

static int replace_check_delta(const struct delta *old, const struct delta *new, struct ploop_error *err)
{
	const char *a = old->file->path, *b = new->file->path;

	if (new->geometry.size != old->geometry.size)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "Images %s and %s are of different size", a, b);
	if (new->format != old->format || new->geometry.cluster != old->geometry.cluster ||
	    new->geometry.clusters != old->geometry.clusters || new->geometry.version != old->geometry.version)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT,
				 "Images %s and %s are not identical: format or cluster size differ", a, b);
	if (new->geometry.partial)
		return error_set(err, -EUCLEAN, PLOOP_EXIT_FORMAT,
				 "%s: was not closed and holds clusters that are not whole; open it once for writing",
				 b);
	return 0;
}

static int replace_check(const struct device *dev, const struct device_replace_config *config, struct ploop_error *err)
{
	int r = 0;

	/* In a device that takes no writes all levels are alike. */
	if (!dev->read_only || dev->job || dev->closing)
		r = job_check(dev, "no image can be replaced", err);
	if (r)
		return r;
	if (config->level >= dev->nlevels)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Invalid level %u specified, allowed values are 0 to %u", config->level,
				 dev->nlevels - 1);
	if (!dev->read_only && config->level == device_top_level(dev))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s is the top of a device that writes to it: only what lies below can be replaced",
				 dev->top->file->path);
	if (dev->under || (dev->read_only && dev->partials->count[PARTIAL_LIVE]))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s; let it end first",
				 dev->under ? "a merge was stopped half-way"
					    : "the device was not closed and is not whole");
	return replace_check_delta(&dev->levels[config->level], config->delta, err);
}

/* What the delta maps, as if it were in the device. */
static int replace_load(struct device *dev, unsigned level, const struct delta *delta, struct map *map,
			struct ploop_error *err)
{
	const struct delta old = dev->levels[level];
	int r = map_init(map, dev->map.count);

	if (r)
		return error_set(err, r, PLOOP_EXIT_MALLOC, "no memory for the index of %s", delta->file->path);
	dev->levels[level] = *delta;
	r = load_delta(dev, level, map, NULL, err);
	dev->levels[level] = old;
	return r;
}

static int replace_compare(struct device *dev, unsigned level, const struct delta *delta, const struct map *new,
			   struct ploop_error *err)
{
	struct map old = { 0 };
	int r = replace_load(dev, level, &dev->levels[level], &old, err);

	for (uint32_t v = 0; v < dev->map.count && !r; v++)
		if (!old.cluster[v] != !new->cluster[v])
			r = error_set(err, -EINVAL, PLOOP_EXIT_FORMAT,
				      "Images %s and %s are not identical: only one of them holds cluster %u",
				      dev->levels[level].file->path, delta->file->path, v);
	map_fini(&old);
	return r;
}

int device_replace(struct device *dev, const struct device_replace_config *config, struct ploop_error *err)
{
	struct device_replace *replace;
	int r = replace_check(dev, config, err);

	if (r)
		return r;
	replace = calloc(1, sizeof(*replace));
	if (!replace)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory to replace an image");
	replace->device = dev;
	replace->config = *config;
	replace->delta = *config->delta;
	r = replace_load(dev, config->level, config->delta, &replace->map, err);
	if (!r && config->level)
		r = replace_compare(dev, config->level, config->delta, &replace->map, err);
	if (r) {
		replace_free(replace);
		return r;
	}
	replace->job = (struct device_job){ .name = "the replacement of an image",
					    .begin = replace_begin,
					    .poke = replace_poke };
	job_begin(dev, &replace->job);
	return 0;
}
