/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* world-size.c - the device becomes larger while requests go on, smaller when there are none, and its file shorter. */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "base/le.h"
#include "world.h"

static struct disk_level *top_of(struct world *world)
{
	return &world->disk.levels[world->disk.nlevels - 1];
}

static bool may_fail(const struct world *world, int r)
{
	return r == -ENOSPC || world->may_fail || sim_is_cut(world->sim) || device_aborted(world->device);
}

/* The level with another size: the data area keeps its alignment, and begins as early behind the index as that allows. */
static struct disk_level resized(const struct world *world, const struct disk_level *level, uint64_t size)
{
	struct disk_level after = *level;
	uint64_t cluster = world->disk.cluster, index;

	after.size = size;
	after.clusters = (uint32_t)div_round_up(size, cluster);
	if (level->raw)
		return after;
	index = round_up(64 + 4 * (uint64_t)after.clusters, FORMAT_PAGE);
	after.start = index + (level->start % cluster + cluster - index % cluster) % cluster;
	after.first_sector = (uint32_t)(after.start / SECTOR);
	after.extension = false;
	return after;
}

/* The level has this size now, and with the top the disk. */
static void adopt(struct world *world, struct disk_level *level, const struct disk_level *after)
{
	const struct disk_level was = *level;

	*level = *after;
	level->settled = was.settled;
	level->changes = was.changes;
	level->hash = was.hash;
	if (level != top_of(world))
		return;
	world->disk.size = after->size;
	oracle_resize(&world->oracle, after->size / SECTOR);
}

void world_adopt_size(struct world *world, struct disk_level *level, uint64_t size)
{
	struct disk_level after = resized(world, level, size);

	if (size == level->size)
		return;
	after.settled = false;
	*level = after;
}

void world_may_fit(struct world *world, struct disk_level *level, uint64_t size)
{
	world->before = *level;
	world->after = resized(world, level, size);
}

static void on_resized(void *data, int result)
{
	struct world *world = data;

	if (world->verbose)
		printf("  resized: %d\n", result);
	if (sim_is_cut(world->sim))
		return; /* world_settle_size() finds out */
	world->resizing = false;
	if (result && result != -ECANCELED && !may_fail(world, result))
		world_fail(world, "device_resize: %s", strerror(-result));
	if (world->erased)
		oracle_write_done(&world->oracle, world->erased, world->after.size / SECTOR,
				  (world->before.size - world->after.size) / SECTOR, result);
	world->erased = NULL;
	if (result)
		return;
	world->after.spent = top_of(world)->spent;
	world->after.littered = top_of(world)->littered;
	adopt(world, top_of(world), &world->after);
	world->resizes++;
}

/* Mostly a little, sometimes so much that the index needs more clusters. */
static uint64_t draw_larger(struct world *world)
{
	struct prng *prng = &world->prng;
	uint64_t cluster = world->disk.cluster, more = 1 + prng_below(prng, 8);

	if (cluster <= 32768 && prng_one_in(prng, 4))
		more = 500 + prng_below(prng, 600);
	if (cluster <= 32768 && prng_one_in(prng, 16))
		more = 8192 + prng_below(prng, 200);
	return round_up(world->disk.size, cluster) + more * cluster;
}

static void resize_to(struct world *world, uint64_t size)
{
	const struct disk_level before = world->before, after = world->after;
	struct ploop_error err = { 0 };
	int r;

	world->before = *top_of(world);
	world->after = resized(world, top_of(world), size);
	world->resizing = true;
	if (size < world->disk.size)
		world->erased = oracle_write_submitted(&world->oracle, size / SECTOR,
						       (world->disk.size - size) / SECTOR, true, false);
	r = device_resize(world->device, size, on_resized, world, &err);
	if (world->verbose)
		printf("  resize %" PRIu64 " to %" PRIu64 ": %d %s\n", world->disk.size, size, r, err.text);
	if (!r)
		return;
	world->resizing = false;
	if (world->erased)
		oracle_write_done(&world->oracle, world->erased, size / SECTOR, (world->disk.size - size) / SECTOR, r);
	world->erased = NULL;
	/* One that failed before may still come to light. */
	world->before = before;
	world->after = after;
	/* A merge that was stopped half-way is no finding, nor a raw base that one has made longer. */
	if (r == -EINVAL && world->disk.nlevels > 1 && world->disk.levels[0].raw)
		return;
	if (r != -EBUSY && r != -EROFS && !may_fail(world, r))
		world_fail(world, "the size cannot be changed: %s", err.text);
}

void world_grow(struct world *world)
{
	uint64_t size = draw_larger(world);

	if (world_works(world) || world->read_only || size > WORLD_LARGEST)
		return;
	if (top_of(world)->raw && prng_one_in(&world->prng, 2))
		size -= prng_below(&world->prng, world->disk.cluster / SECTOR) * SECTOR;
	resize_to(world, size);
}

void world_shrink(struct world *world)
{
	uint64_t least = world->disk.cluster, size;

	if (world_works(world) || world->read_only || world->busy)
		return;
	for (unsigned i = 0; i + 1 < world->disk.nlevels; i++)
		least = max_u64(least, round_up(world->disk.levels[i].size, world->disk.cluster));
	if (least >= world->disk.size)
		return;
	size = least + round_down(prng_below(&world->prng, world->disk.size - least), world->disk.cluster);
	resize_to(world, size);
	world_wait_for_work(world);
}

/* The level whose size nobody knows; NULL: none. */
static struct disk_level *unsure_level(struct world *world)
{
	for (unsigned i = 0; i < world->disk.nlevels; i++)
		if (world->before.path[0] && !strcmp(world->before.path, world->disk.levels[i].path))
			return &world->disk.levels[i];
	return NULL;
}

/* Which of the two it is. */
static void settle_size(struct world *world, struct disk_level *level)
{
	struct io_file *file;
	uint8_t head[64];
	uint64_t size;

	if (io_open(sim_loop(world->sim), &io_sim, level->path, IO_RDONLY, &file, NULL))
		world_fail(world, "%s does not open", level->path);
	if (io_size(file, &size) || io_pread(file, head, min_u64(size, sizeof(head)), 0))
		world_fail(world, "%s cannot be read", level->path);
	io_close(file);
	if (!level->raw)
		size = (level->version == 1 ? le32_get(head + 36) : le64_get(head + 36)) * SECTOR;
	size = round_down(size, SECTOR);
	if (level->raw && size > min_u64(world->before.size, world->after.size) &&
	    size < max_u64(world->before.size, world->after.size))
		world->after = resized(world, level, size);
	if (size != level->size && size == world->before.size)
		adopt(world, level, &world->before);
	else if (size != level->size && size == world->after.size)
		adopt(world, level, &world->after);
	level->littered = level->spent = true;
	if (world->verbose)
		printf("  the size of %s is %" PRIu64 "\n", level->path, level->size);
}

void world_settle_size(struct world *world)
{
	struct disk_level *level = unsure_level(world);

	world->resizing = world->compacting = false;
	world->erased = NULL; /* the oracle knows that it was cut off */
	if (level)
		settle_size(world, level);
}

/* The device uses the file that was opened for writing. */
static void keep_file(struct world *world)
{
	struct disk_level *level = &world->disk.levels[world->compact_level];

	if (!world->compact_file)
		return;
	io_close(world->levels[world->compact_level].file);
	world->levels[world->compact_level].file = world->compact_file;
	world->compact_file = NULL;
	if (!sim_is_cut(world->sim) && sim_unsynced(world->sim, level->path) == 0)
		disk_settle(level, world->sim);
}

static void on_compacted(void *data, int result)
{
	struct world *world = data;

	if (world->verbose)
		printf("  compacted: %d\n", result);
	keep_file(world);
	if (sim_is_cut(world->sim))
		return;
	world->compacting = false;
	if (result && result != -ECANCELED && !may_fail(world, result))
		world_fail(world, "device_compact: %s", strerror(-result));
	world->compactions += !result;
}

void world_compact(struct world *world)
{
	struct prng *prng = &world->prng;
	struct device_compact_config config = {
		.level = (unsigned)prng_below(prng, world->disk.nlevels),
		.done = on_compacted,
		.data = world,
	};
	struct ploop_error err = { 0 };
	int r = 0;

	if (world->compacting && prng_one_in(prng, 2)) {
		device_compact_stop(world->device);
		return;
	}
	if (world_works(world) || world->read_only)
		return;
	if (prng_one_in(prng, 3))
		config.target = prng_below(prng, 2 * world->disk.size);
	if (prng_one_in(prng, 3))
		config.bytes_a_second = 1 + prng_below(prng, UINT64_C(1) << 30);
	if (prng_one_in(prng, 2))
		config.level = world->disk.nlevels - 1;
	world->compact_level = config.level;
	if (config.level + 1 < world->disk.nlevels) {
		world->disk.levels[config.level].settled = false;
		r = io_open(sim_loop(world->sim), &io_sim, world->disk.levels[config.level].path, IO_RDWR, &config.file,
			    NULL);
	}
	world->compact_file = config.file;
	world->compacting = true;
	if (!r)
		r = device_compact(world->device, &config, &err);
	if (world->verbose)
		printf("  compact level %u: %d %s\n", config.level, r, err.text);
	if (!r)
		return;
	world->compacting = false;
	io_close(world->compact_file);
	world->compact_file = NULL;
	if (r != -EBUSY && r != -EROFS && r != -EOPNOTSUPP && !may_fail(world, r))
		world_fail(world, "a compaction cannot begin: %s", err.text);
}
