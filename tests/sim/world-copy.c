/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * world-copy.c - the device is copied while requests go on, as ploop copy does it: notes are taken away, what they are about is read
 * from the files, past the engine. When the device stands still the rest is taken; then the copy must be the disk.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "device/tracker.h"
#include "world.h"

struct world_copy {
	struct world *world;
	struct tracker tracker;
	struct device_track *track;
	uint8_t *content; /* the copy */
	uint64_t from;    /* where this pass is */
	struct io_op op;
	bool reading, stopped, still;
	int result;
};

static void was_read(struct io_op *op, int result)
{
	struct world_copy *copy = container_of(op, struct world_copy, op);

	copy->reading = false;
	copy->result = copy->result ? copy->result : result;
}

/* Takes one note, and begins to read what it is about. False: there is none left in this pass. */
static bool take(struct world_copy *copy)
{
	struct device *device = copy->world->device;
	uint64_t cluster = device_cluster(device), size = device_size(device), start, end;
	struct device_place place;

	/* From there to the end of the cluster: what is read lies in one place. */
	copy->from = bitmap_next_set(&copy->tracker.dirty, copy->from / copy->tracker.unit) * copy->tracker.unit;
	if (!tracker_take(&copy->tracker, copy->from, cluster - copy->from % cluster, &start, &end))
		return false;
	end = min_u64(end, min_u64(size, round_down(start, cluster) + cluster));
	copy->from = end;
	place = device_lookup(device, (uint32_t)(start / cluster));
	if (!place.cluster) {
		memset(copy->content + start, 0, end - start);
		return true;
	}
	copy->op = (struct io_op){
		.kind = IO_READ,
		.file = copy->world->levels[place.level].file,
		.offset = geometry_offset(&copy->world->levels[place.level].geometry, place.cluster) + start % cluster,
		.length = end - start,
		.buffer = copy->content + start,
		.done = was_read,
	};
	copy->reading = true;
	io_submit(&copy->op);
	return true;
}

static void world_copy_free(struct world_copy *copy)
{
	struct world *world = copy->world;

	/* A read that is under way needs its memory. */
	while (copy->reading)
		if (loop_turn(sim_loop(world->sim), UINT64_MAX) && copy->reading)
			world_fail(world, "a read does not end");
	tracker_fini(&copy->tracker);
	free(copy->content);
	world->copy = NULL;
	free(copy);
}

/* The device is closed meanwhile. */
static void stopped(void *data)
{
	struct world_copy *copy = data;

	device_track_end(copy->track);
	copy->track = NULL;
	copy->stopped = true;
}

static void begin(struct world *world)
{
	struct world_copy *copy = calloc(1, sizeof(*copy));
	uint64_t cluster = device_cluster(world->device);
	struct ploop_error err;

	copy->world = world;
	copy->content = calloc(1, world->disk.size);
	if (tracker_init(&copy->tracker, world->disk.size))
		world_fail(world, "no memory");
	if (device_track(world->device, &copy->tracker, stopped, copy, &copy->track, &err)) {
		tracker_fini(&copy->tracker);
		free(copy->content);
		free(copy);
		return;
	}
	world->copy = copy;
	if (world->verbose)
		printf("  copy begins\n");
	for (uint64_t at = 0; at < world->disk.size; at += cluster)
		if (device_lookup(world->device, (uint32_t)(at / cluster)).cluster)
			tracker_mark(&copy->tracker, at, min_u64(at + cluster, world->disk.size));
}

static void stands_still(void *data)
{
	struct world_copy *copy = data;

	copy->still = true;
}

static bool is_over(const struct world_copy *copy)
{
	return copy->stopped || copy->result || sim_is_cut(copy->world->sim);
}

static void turn_until(struct world_copy *copy, const bool *what, bool value)
{
	for (uint64_t turns = 0; *what != value && !is_over(copy); turns++)
		if (turns > 4000000 || loop_turn(sim_loop(copy->world->sim), UINT64_C(1000000000)))
			world_fail(copy->world, "a copy does not end");
}

/* Nothing is under way: what was copied is what a read of the disk would give now. */
static void compare(struct world_copy *copy)
{
	struct world *world = copy->world;
	struct oracle_read read;

	oracle_read_submitted(&world->oracle, &read);
	if (!oracle_read_done(&world->oracle, &read, 0, world->disk.size / SECTOR, copy->content))
		world_fail(world, "the copy: %s", world->oracle.text);
	world->copies++;
}

static void end(struct world_copy *copy)
{
	struct world *world = copy->world;

	/* Nobody waits at the gate but who was let in before it closed. */
	world->chain = false;
	/* Who waits for room would wait for ever. */
	sim_set_space(world->sim, UINT64_MAX);
	device_track_hold(copy->track, stands_still);
	turn_until(copy, &copy->still, true);
	copy->from = 0;
	while (!is_over(copy) && take(copy))
		turn_until(copy, &copy->reading, false);
	if (!is_over(copy) && !world->busy)
		compare(copy);
	if (world->verbose)
		printf("  copy ends: %d%s\n", copy->result, world->busy ? ", with requests waiting" : "");
	if (copy->track)
		device_track_end(copy->track);
	copy->track = NULL;
	world_copy_free(copy);
}

void world_copy(struct world *world)
{
	struct world_copy *copy = world->copy;

	if (copy && (copy->stopped || copy->result)) {
		if (copy->track)
			device_track_end(copy->track);
		world_copy_free(copy);
	} else if (copy && prng_one_in(&world->prng, 40)) {
		turn_until(copy, &copy->reading, false);
		if (!is_over(copy)) /* the device may have ended it meanwhile */
			end(copy);
	} else if (copy && !copy->reading) {
		if (!take(copy))
			copy->from = 0;
	} else if (!copy && !world_works(world) && !world->read_only && prng_one_in(&world->prng, 20)) {
		begin(world);
	}
}

void world_copy_drop(struct world *world)
{
	if (!world->copy)
		return;
	if (world->copy->track)
		device_track_end(world->copy->track);
	world_copy_free(world->copy);
}
