/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * faults.c - the 1st, 2nd, 3rd ... operation of a device's life fails, until all go well; the power is cut at the 1st, 2nd,
 * 3rd ... step; and a host whose disk is full.
 *
 *	faults [--seed N] [--worlds N] [-v]
 *
 * An error must be reported, or the operation tried again; and whatever was reported, the disk then holds what the requests
 * that went well wrote, and of the others old or new.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

#define REQUESTS 14
#define ALWAYS UINT64_MAX

struct fault {
	const char *name;
	int error;
	uint64_t count; /* operations in a row that fail */
	enum device_on_full on_full;
};

static const struct fault faults[] = {
	{ "one I/O error", -EIO, 1, DEVICE_FULL_STOP },
	{ "nothing but I/O errors", -EIO, ALWAYS, DEVICE_FULL_STOP },
	{ "a moment without space, waiting", -ENOSPC, 1, DEVICE_FULL_STOP },
	{ "some time without space, waiting", -ENOSPC, 5, DEVICE_FULL_STOP },
	{ "a moment without space, failing", -ENOSPC, 1, DEVICE_FULL_ERROR },
	{ "a quota", -EDQUOT, 2, DEVICE_FULL_STOP },
};

/* Everything once: requests of all kinds, some in flight together, then a flush. */
static void work(struct world *world)
{
	for (unsigned i = 0; i < REQUESTS; i++) {
		world_submit_random(world);
		if (prng_one_in(&world->prng, 2))
			world_wait(world);
	}
	world_wait(world);
	world_submit(world, DEVICE_FLUSH, 0, 0, 0);
	world_wait(world);
}

/* What waits for space must not fail, unless the device had to give up. */
static void check_waited(struct world *world, const struct fault *fault)
{
	bool waits = fault->on_full == DEVICE_FULL_STOP && (fault->error == -ENOSPC || fault->error == -EDQUOT) &&
		     !world->read_only;

	for (unsigned i = 0; i < WORLD_SLOTS && waits && !device_aborted(world->device); i++)
		if (world->slots[i].result)
			world_fail(world, "a request failed for want of space though it should wait: %s",
				   strerror(-world->slots[i].result));
}

/* One life in which the nth operation fails. False when there were fewer than n. */
static bool live(struct world *world, const struct fault *fault, uint64_t nth)
{
	bool failed = false;

	sim_fail(world->sim, nth, fault->count, fault->error);
	world->may_fail = true;
	if (!world_open(world, world->disk.odd, fault->on_full)) {
		work(world);
		check_waited(world, fault);
		failed = sim_failed(world->sim);
		if (nth % 2) {
			sim_fail(world->sim, 0, 0, 0); /* it went away: what is there now? */
			world_read_all(world, false);
		}
		world_close(world);
	}
	failed |= sim_failed(world->sim);
	sim_fail(world->sim, 0, 0, 0);
	world->may_fail = false;
	world_settle(world);
	if (world_open(world, true, DEVICE_FULL_STOP))
		world_fail(world, "does not open again");
	world_read_all(world, false);
	world_close(world);
	return failed;
}

/* A world of the seed for each n. False: a finding. */
static bool try_fault(struct world *world, uint64_t seed, const struct fault *fault, bool verbose, uint64_t *lives)
{
	jmp_buf caught;
	volatile uint64_t nth = 0;
	volatile bool again = true;

	while (again) {
		world_init(world, seed, verbose);
		world->caught = &caught;
		if (setjmp(caught))
			return false;
		again = live(world, fault, ++nth);
		(*lives)++;
		world_fini(world);
	}
	return true;
}

/* One life in which the power is cut at the nth step. False when it ended before. */
static bool live_to_cut(struct world *world, uint64_t nth, uint64_t salt)
{
	bool cut;

	sim_reseed(world->sim, world->seed ^ salt << 32);
	sim_cut_after(world->sim, nth);
	if (!world_open(world, world->disk.odd, DEVICE_FULL_STOP)) {
		for (unsigned i = 0; i < REQUESTS && !sim_is_cut(world->sim); i++)
			world_submit_random(world);
		if (!sim_is_cut(world->sim))
			world_push(world);
		world_wait(world);
		if (!sim_is_cut(world->sim))
			world_merge(world);
		if (!sim_is_cut(world->sim))
			world_submit_random(world);
		world_wait(world);
		if (!sim_is_cut(world->sim))
			world_close(world);
	}
	cut = sim_is_cut(world->sim);
	world_settle(world);
	return cut;
}

/* Every step of a life, cut in a few ways; the steps of opening in more, as they are few. False: a finding. */
static bool try_cuts(struct world *world, uint64_t seed, bool verbose, uint64_t *lives)
{
	jmp_buf caught;
	volatile uint64_t nth = 1, way = 0;
	volatile bool again = true;

	while (again) {
		world_init(world, seed, verbose);
		world->caught = &caught;
		if (setjmp(caught))
			return false;
		again = live_to_cut(world, nth, way++);
		if (way == (nth <= 20 ? 12 : 3)) {
			nth++;
			way = 0;
		}
		(*lives)++;
		world_fini(world);
	}
	return true;
}

/* --- a full disk --- */

static uint64_t done_well(const struct world *world)
{
	uint64_t count = 0;

	for (unsigned i = 0; i < WORLD_SLOTS; i++)
		count += !world->slots[i].busy && world->slots[i].write && !world->slots[i].result;
	return count;
}

/* Writes of all the disk, which do not find enough space. */
static void fill_up(struct world *world, enum device_on_full on_full)
{
	uint64_t step = (world->oracle.sectors + 7) / 8;

	if (step > WORLD_BUFFER / SECTOR)
		step = WORLD_BUFFER / SECTOR;
	world->may_fail = on_full == DEVICE_FULL_ERROR;
	if (world_open(world, false, on_full))
		world_fail(world, "does not open");
	sim_set_space(world->sim, sim_space_used(world->sim) + 3 * SIM_PAGE);
	for (unsigned i = 0; i < 8 && i * step < world->oracle.sectors; i++) {
		uint64_t left = world->oracle.sectors - i * step;

		world_submit(world, DEVICE_WRITE, 0, i * step, left < step ? left : step);
	}
}

static void give_room(struct world *world)
{
	uint64_t before = world->events[DEVICE_EVENT_RESUMED];

	sim_set_space(world->sim, UINT64_MAX);
	if (prng_one_in(&world->prng, 2))
		device_resume(world->device);
	world_wait(world);
	if (device_full(world->device) || world->events[DEVICE_EVENT_RESUMED] == before)
		world_fail(world, "still full though there is space");
}

/* Policy stop: those who find no space wait, reads go on, and all is well when there is room. */
static void full_and_wait(struct world *world, bool close_meanwhile)
{
	uint64_t start;

	fill_up(world, DEVICE_FULL_STOP);
	start = loop_now(sim_loop(world->sim));
	while (world->busy && loop_now(sim_loop(world->sim)) < start + UINT64_C(10000000000))
		world_turn(world);
	if (!world->busy) {
		world_close(world); /* all was mapped: nothing new was needed */
		return;
	}
	if (!device_full(world->device) || !world->events[DEVICE_EVENT_FULL])
		world_fail(world, "requests hang, and nobody says that the disk is full");
	world_submit(world, DEVICE_READ, 0, 0, 1);
	start = loop_now(sim_loop(world->sim));
	while (loop_now(sim_loop(world->sim)) < start + UINT64_C(3000000000))
		world_turn(world);
	if (close_meanwhile)
		sim_set_space(world->sim, UINT64_MAX); /* the timer finds it while the device closes */
	else
		give_room(world);
	world_close(world);
}

/* Policy error: those who find no space are told, and the device goes on. */
static void full_and_fail(struct world *world)
{
	uint64_t good;

	fill_up(world, DEVICE_FULL_ERROR);
	world_wait(world);
	for (unsigned i = 0; i < WORLD_SLOTS; i++)
		if (world->slots[i].result && world->slots[i].result != -ENOSPC)
			world_fail(world, "the error is %d", world->slots[i].result);
	good = done_well(world);
	world_read_all(world, false);
	sim_set_space(world->sim, UINT64_MAX);
	world->may_fail = false;
	world_submit(world, DEVICE_FLUSH, 0, 0, 0);
	world_wait(world);
	world_submit(world, DEVICE_WRITE, DEVICE_FUA, 0, 1);
	world_wait(world);
	world_read_all(world, false);
	if (world->verbose)
		printf("  %" PRIu64 " writes went well on a full disk\n", good);
	world_close(world);
}

static void full_and_cut(struct world *world)
{
	fill_up(world, DEVICE_FULL_STOP);
	for (unsigned i = 0; i < 2000 && world->busy; i++)
		world_turn(world);
	sim_cut(world->sim);
	world_settle(world);
}

/* False: a finding. */
static bool try_full(struct world *world, uint64_t seed, unsigned kind, bool verbose)
{
	jmp_buf caught;

	world_init(world, seed, verbose);
	world->caught = &caught;
	if (setjmp(caught))
		return false;
	if (!world->disk.odd && kind < 2)
		full_and_wait(world, kind);
	else if (!world->disk.odd && kind == 2)
		full_and_fail(world);
	else if (!world->disk.odd)
		full_and_cut(world);
	sim_set_space(world->sim, UINT64_MAX);
	if (world_open(world, true, DEVICE_FULL_STOP))
		world_fail(world, "does not open again");
	world_read_all(world, false);
	world_close(world);
	world_fini(world);
	return true;
}

static int finding(const struct world *world, const char *what)
{
	printf("FINDING (%s): %s\nrepeat with: --seed %" PRIu64 " --worlds 1 -v\n", what, world->finding, world->seed);
	return 1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "worlds", required_argument, NULL, 'w' },
						 { NULL, 0, NULL, 0 } };
	static struct world world;
	uint64_t seed = 1, worlds = 2, lives = 0, cuts = 0;
	bool verbose = false;
	int option;

	while ((option = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 'w')
			worlds = strtoull(optarg, NULL, 0);
		else if (option == 'v')
			verbose = true;
		else
			return 2;
	}
	for (uint64_t i = 0; i < worlds; i++) {
		for (unsigned f = 0; f < sizeof(faults) / sizeof(faults[0]); f++)
			if (!try_fault(&world, seed + i, &faults[f], verbose, &lives))
				return finding(&world, faults[f].name);
		if (!try_cuts(&world, seed + i, verbose, &cuts))
			return finding(&world, "a cut at every step");
		for (unsigned kind = 0; kind < 4; kind++)
			if (!try_full(&world, seed + i, kind, verbose))
				return finding(&world, "full disk");
	}
	printf("%" PRIu64 " lives with a failure, %" PRIu64 " with a cut, %" PRIu64 " full disks\n", lives, cuts,
	       worlds * 4);
	return 0;
}
