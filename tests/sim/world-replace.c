/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world-replace.c - the file of a level below the top gives way to another one of the same content while requests go on. The new
 * one is a copy, with its clusters in the order of the old one, or in the opposite one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "base/le.h"
#include "io/sim-table.h"
#include "world.h"

/* Where in its file cluster `place` (counted from where the data begins) lies in the copy. */
static uint64_t new_place(uint64_t place, uint64_t places, bool backwards)
{
	return backwards ? places - 1 - place : place;
}

static void turn_index(const struct disk *disk, const struct disk_level *level, uint8_t *head, uint64_t places)
{
	uint32_t unit = level->version == 1 ? SECTOR : disk->cluster;

	for (uint32_t v = 0; v < level->clusters; v++) {
		uint32_t entry = le32_get(head + 64 + 4 * (uint64_t)v);
		uint64_t at = (uint64_t)entry * unit;

		if (entry)
			le32_put(head + 64 + 4 * (uint64_t)v,
				 (uint32_t)((level->start +
					     new_place((at - level->start) / disk->cluster, places, true) *
						     disk->cluster) /
					    unit));
	}
}

static bool is_zero(const uint8_t *bytes, uint64_t length)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, length - 1);
}

/* `length` bytes from `start` of the one go to `at` of the other; holes stay holes. */
static int copy_range(struct io_file *from, struct io_file *to, uint64_t start, uint64_t length, uint64_t at)
{
	uint8_t *buffer = sim_alloc(length);
	uint64_t done = 0, end;
	int r = io_pread(from, buffer, length, start);

	while (done < length && !r) {
		uint64_t take = min_u64(SIM_PAGE, length - done);

		if (is_zero(buffer + done, take)) {
			done += take;
			continue;
		}
		for (end = done + take; end < length; end += take) {
			take = min_u64(SIM_PAGE, length - end);
			if (is_zero(buffer + end, take))
				break;
		}
		r = io_pwrite(to, buffer + done, end - done, at + done);
		done = end;
	}
	free(buffer);
	return r;
}

/* A copy of the level's file, durable. Cut off or failed, it is not there. */
static int copy_file(struct world *world, const struct disk_level *level, struct io_file *from, struct io_file *to)
{
	uint64_t size, places = 0, cluster = world->disk.cluster;
	bool backwards = !level->raw && !level->extension && prng_one_in(&world->aside, 2);
	uint8_t *head = sim_alloc(level->start + 1);
	int r = io_size(from, &size);

	if (!r && size > level->start)
		places = (size - level->start) / cluster;
	backwards &= level->start + places * cluster == size;
	if (!r)
		r = io_truncate(to, size);
	if (!r)
		r = io_pread(from, head, level->start, 0);
	/* An extension names places of its own. */
	backwards = backwards && (r || !le64_get(head + 56));
	if (backwards)
		turn_index(&world->disk, level, head, places);
	if (!r)
		r = io_pwrite(to, head, level->start, 0);
	for (uint64_t i = 0; i < places && !r; i++)
		r = copy_range(from, to, level->start + i * cluster, cluster,
			       level->start + new_place(i, places, backwards) * cluster);
	if (!r && size > level->start + places * cluster)
		r = copy_range(from, to, level->start + places * cluster, size - level->start - places * cluster,
			       level->start + places * cluster);
	free(head);
	return r ? r : io_sync(to);
}

static void drop_new(struct world *world)
{
	io_close(world->replace_delta.file);
	world->replace_delta.file = NULL;
	if (!sim_is_cut(world->sim))
		sim_remove(world->sim, world->replace_path);
}

/* What names the files changes in one moment, durably. */
static int turn(void *data)
{
	struct world *world = data;
	struct disk_level *level = &world->disk.levels[world->replace_level];
	char old[sizeof(level->path)];

	if (sim_is_cut(world->sim))
		return -EIO;
	if (world->busy && !world->device)
		world_fail(world, "replaced without a device");
	memcpy(old, level->path, sizeof(old));
	memcpy(level->path, world->replace_path, sizeof(level->path));
	memcpy(world->replace_path, old, sizeof(old));
	disk_settle(level, world->sim);
	return 0;
}

static void on_replaced(void *data, int result)
{
	struct world *world = data;
	struct delta *delta = &world->levels[world->replace_level];

	if (world->verbose)
		printf("  replaced: %d\n", result);
	world->replacing = false;
	if (result && !sim_is_cut(world->sim) && !world->may_fail && !world->closing)
		world_fail(world, "device_replace: %s", strerror(-result));
	if (!result) {
		struct io_file *old = delta->file;

		delta->file = world->replace_delta.file;
		delta->geometry = world->replace_delta.geometry;
		world->replace_delta.file = old;
		world->replaced++;
	}
	drop_new(world); /* the old one, when it was */
}

static int make(struct world *world, const struct disk_level *level, struct io_file *from)
{
	struct delta *delta = &world->replace_delta;
	int r;

	snprintf(world->replace_path, sizeof(world->replace_path), "new%u", world->disk.serial++);
	*delta = (struct delta){ .format = level->raw ? &format_raw : &format_ploop1 };
	r = io_open(sim_loop(world->sim), &io_sim, world->replace_path, IO_RDWR | IO_CREATE, &delta->file, NULL);
	if (!r)
		r = copy_file(world, level, from, delta->file);
	if (!r)
		r = disk_parse(&world->disk, level, delta);
	return r;
}

void world_replace(struct world *world)
{
	struct device_replace_config config = {
		.delta = &world->replace_delta,
		.turn = turn,
		.done = on_replaced,
		.data = world,
	};
	const struct disk_level *level;
	struct ploop_error err = { 0 };
	int r;

	if (world_works(world) || world->disk.nlevels < 2)
		return;
	config.level = (unsigned)prng_below(&world->aside, world->disk.nlevels - 1);
	level = &world->disk.levels[config.level];
	if (!level->settled)
		return;
	world->replace_level = config.level;
	r = make(world, level, world->levels[config.level].file);
	world->replacing = true;
	if (!r)
		r = device_replace(world->device, &config, &err);
	if (world->verbose)
		printf("  replace level %u: %d %s\n", config.level, r, err.text);
	if (!r)
		return;
	world->replacing = false;
	drop_new(world);
	if (r != -EBUSY && r != -EROFS && r != -ENOSPC && !world->may_fail && !sim_is_cut(world->sim))
		world_fail(world, "a replacement cannot begin: %s %s", strerror(-r), err.text);
}
