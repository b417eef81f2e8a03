/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * complete.c - a crash in the middle of a snapshot whose maker did not let the device settle first leaves partial clusters in a
 * level below the new top. Who opens a disk opens such a level once by itself, as the top of what lies below it, and closes
 * it again.
 */
#include <string.h>

#include <ploop/ploop.h>

#include "world.h"

struct completion {
	bool closed;
	int result;
};

static void on_closed(void *data, int result)
{
	*(struct completion *)data = (struct completion){ .closed = true, .result = result };
}

/* Opens the levels 0..i and closes them again. */
static int complete_level(struct world *world, unsigned i)
{
	struct disk *disk = &world->disk;
	const unsigned nlevels = disk->nlevels;
	struct completion completion = { 0 };
	struct device_config config = { .loop = sim_loop(world->sim), .levels = world->levels, .nlevels = i + 1 };
	struct ploop_error err = { 0 };
	struct device *device;
	int r;

	disk->nlevels = i + 1;
	r = disk_open(disk, world->sim, false, world->levels);
	if (!r) {
		r = device_open(&config, &device, &err);
		if (!r) {
			device_close(device, on_closed, &completion);
			while (!completion.closed)
				if (loop_turn(sim_loop(world->sim), UINT64_MAX) && !completion.closed)
					world_fail(world, "completing a level waits for nothing");
			r = completion.result;
		}
		disk_close(disk, world->levels);
	}
	disk->nlevels = nlevels;
	if (!r)
		disk_settle(&disk->levels[i], world->sim);
	else if (!world->may_fail && !sim_is_cut(world->sim))
		world_fail(world, "%s cannot be completed: %s", disk->levels[i].path, r ? err.text : "");
	world->completions++;
	return r;
}

/* Whether the level has a table. */
static bool has_table(struct world *world, unsigned i)
{
	struct disk_level *level = &world->disk.levels[i];
	struct delta delta = { .format = &format_ploop1 };
	bool table = false;

	if (level->raw || io_open(sim_loop(world->sim), &io_sim, level->path, IO_RDONLY, &delta.file, NULL))
		return false;
	if (!disk_parse(&world->disk, level, &delta) && !disk_settle_extension(&world->disk, &delta))
		table = delta.geometry.partial;
	io_close(delta.file);
	return table;
}

int world_complete(struct world *world)
{
	int r = 0;

	for (unsigned i = 0; i + 1 < world->disk.nlevels && !r; i++)
		if (!world->disk.levels[i].settled && has_table(world, i))
			r = complete_level(world, i);
	return r;
}
