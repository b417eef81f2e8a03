/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world-cbt.c - dirty bitmaps are begun and dropped while requests go on, and must call dirty all that is others than it was when they
 * were begun: after clean closings, crashes, snapshots, merges, other sizes. What a sector held and holds is asked of the oracle.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "device/cbt.h"
#include "io/sim-table.h"
#include "world.h"

#define UNKNOWN UINT64_MAX

struct world_bitmap {
	uint8_t id[CBT_ID];
	uint64_t *then; /* what each sector held; NULL: there is no such bitmap */
	uint64_t sectors;
};

struct world_bitmaps {
	struct world *world;
	struct world_bitmap bitmaps[CBT_MOST];
	struct cbt_plant plant;
	bool planting;
};

static void remember(struct world *world, const uint8_t id[CBT_ID])
{
	struct world_bitmap *bitmap = NULL;

	for (unsigned i = 0; i < CBT_MOST && !bitmap; i++)
		if (!world->bitmaps->bitmaps[i].then)
			bitmap = &world->bitmaps->bitmaps[i];
	/* One that is gone may come back, and is right even then; but not all can be remembered. */
	if (!bitmap)
		bitmap = &world->bitmaps->bitmaps[prng_below(&world->aside, CBT_MOST)];
	free(bitmap->then);
	memcpy(bitmap->id, id, CBT_ID);
	bitmap->sectors = world->oracle.sectors;
	bitmap->then = sim_alloc(bitmap->sectors * sizeof(uint64_t));
	for (uint64_t s = 0; s < bitmap->sectors; s++)
		bitmap->then[s] = oracle_present(&world->oracle, s);
}

static void check_bitmap(struct world *world, const struct cbt_map *map, const struct world_bitmap *bitmap)
{
	const struct tracker *tracker = &map->tracker;
	uint64_t in_unit = tracker->unit / SECTOR;

	for (uint64_t bit = bitmap_next_clear(&tracker->dirty, 0); bit < tracker->dirty.bits;
	     bit = bitmap_next_clear(&tracker->dirty, bit + 1)) {
		for (uint64_t s = bit * in_unit; s < min_u64((bit + 1) * in_unit, world->oracle.sectors); s++) {
			uint64_t now = oracle_present(&world->oracle, s);
			uint64_t then = s < bitmap->sectors ? bitmap->then[s] : UNKNOWN - 1;

			if (now != then && now != UNKNOWN && then != UNKNOWN)
				world_fail(world, "a dirty bitmap calls sector %" PRIu64 " clean, which held %" PRId64
						  " and holds %" PRId64, s, (int64_t)then, (int64_t)now);
		}
	}
	world->bitmap_checks++;
	world->bitmap_clean += tracker->dirty.set < tracker->dirty.bits;
}

void world_bitmaps_check(struct world *world)
{
	if (world->busy || !world->device)
		return;
	for (unsigned i = 0; i < CBT_MOST && world->bitmaps; i++) {
		const struct world_bitmap *bitmap = &world->bitmaps->bitmaps[i];
		const struct cbt_map *map = bitmap->then ? device_cbt_find(world->device, bitmap->id) : NULL;

		if (map)
			check_bitmap(world, map, bitmap);
	}
}

static void planted(struct cbt_plant *plant, int result)
{
	struct world_bitmaps *bitmaps = container_of(plant, struct world_bitmaps, plant);

	bitmaps->planting = false;
	if (bitmaps->world->verbose)
		printf("  bitmaps planted: %d\n", result);
}

static void begin(struct world *world)
{
	uint8_t id[CBT_ID];

	for (unsigned i = 0; i < CBT_ID; i++)
		id[i] = (uint8_t)prng_below(&world->aside, 256);
	if (device_cbt_start(world->device, id, NULL))
		return;
	remember(world, id);
	world->disk.bitmaps = true;
	if (world->verbose)
		printf("  bitmap %02x%02x begins\n", id[0], id[1]);
}

static void drop(struct world *world)
{
	unsigned n = device_cbt_count(world->device);
	uint8_t id[CBT_ID];

	if (!n)
		return;
	memcpy(id, device_cbt_get(world->device, (unsigned)prng_below(&world->aside, n))->id, CBT_ID);
	if (!device_cbt_drop(world->device, id) || device_cbt_find(world->device, id))
		world_fail(world, "a dirty bitmap cannot be dropped");
	if (world->verbose)
		printf("  bitmap %02x%02x dropped\n", id[0], id[1]);
}

/* What other software left says what changed before we came; since then nothing has. */
void world_bitmaps_first(struct world *world)
{
	world->bitmaps = calloc(1, sizeof(*world->bitmaps));
	world->bitmaps->world = world;
	for (unsigned i = 0; i < device_cbt_count(world->device); i++)
		remember(world, device_cbt_get(world->device, i)->id);
}

void world_bitmaps(struct world *world)
{
	struct prng *prng = &world->aside;

	if (world->read_only || !world->bitmaps || world->busy || sim_is_cut(world->sim))
		return;
	world_bitmaps_check(world);
	if (prng_one_in(prng, 3))
		drop(world);
	if (prng_one_in(prng, 2))
		begin(world);
	if (prng_one_in(prng, 2) && !world->bitmaps->planting) {
		world->bitmaps->planting = true;
		world->bitmaps->plant.done = planted;
		device_cbt_plant(world->device, &world->bitmaps->plant);
	}
}

/* The device is gone: nobody answers any more. */
void world_bitmaps_drop(struct world *world)
{
	if (world->bitmaps)
		world->bitmaps->planting = false;
}

void world_bitmaps_free(struct world *world)
{
	for (unsigned i = 0; i < CBT_MOST && world->bitmaps; i++)
		free(world->bitmaps->bitmaps[i].then);
	free(world->bitmaps);
	world->bitmaps = NULL;
}
