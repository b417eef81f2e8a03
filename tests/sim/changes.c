/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * changes.c - long work on a running device (a snapshot, merges, sizes) while requests go on: its 1st, 2nd, 3rd ... operation
 * fails, until all go well; and the power is cut at its 1st, 2nd, 3rd ... step. With and without ranges that are cloned.
 *
 *	changes [--seed N] [--worlds N] [--every N] [--only WORD] [-v]
 *
 * With --every N about one in N of the operations and steps is tried, which ones is a matter of the seed. One more kind of work is
 * one more line of `works`.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "world.h"

#define REQUESTS 8

static void requests(struct world *world, unsigned count)
{
	while (count-- && !sim_is_cut(world->sim) && world->busy < WORLD_SLOTS)
		world_submit_random(world);
}

static void merge_top(struct world *world)
{
	world_merge_levels(world, world->disk.nlevels - 2, world->disk.nlevels - 1);
}

static void merge_lower(struct world *world)
{
	world_merge_levels(world, world->disk.nlevels - 3, world->disk.nlevels - 2);
}

static void merge_range(struct world *world)
{
	world_merge_levels(world, 0, world->disk.nlevels - 2);
}

/* What is below is smaller than the top from now on. */
static void grow_first(struct world *world)
{
	world_grow(world);
	world_wait_for_work(world);
}

/* The same of the two below the top. */
static void grow_and_push(struct world *world)
{
	grow_first(world);
	requests(world, REQUESTS);
	world_wait(world);
	world_push(world);
	world_wait_for_work(world);
}

static const struct work {
	const char *name;
	unsigned levels; /* the stack has so many at least */
	void (*begin)(struct world *world);
	void (*before)(struct world *world); /* and this was done to it; or NULL */
} works[] = {
	{ "snapshot", 1, world_push, NULL },
	{ "merge of the top", 2, merge_top, NULL },
	{ "merge of a lower level", 3, merge_lower, NULL },
	{ "merge of all below the top", 4, merge_range, NULL },
	{ "merge of the top into a smaller level", 2, merge_top, grow_first },
	{ "merge of a lower level into a smaller one", 2, merge_lower, grow_and_push },
	{ "growing", 1, world_grow, NULL },
	{ "shrinking", 1, world_shrink, NULL },
	{ "compacting", 1, world_compact, NULL },
	{ "replacing", 2, world_replace, NULL },
};

#define NWORKS (sizeof(works) / sizeof(works[0]))
#define ALWAYS UINT64_MAX

static const struct fault {
	const char *name;
	int error;
	uint64_t count; /* operations in a row that fail */
	enum device_on_full on_full;
} faults[] = {
	{ "one I/O error", -EIO, 1, DEVICE_FULL_STOP },
	{ "nothing but I/O errors", -EIO, ALWAYS, DEVICE_FULL_STOP },
	{ "some time without space, waiting", -ENOSPC, 3, DEVICE_FULL_STOP },
	{ "a moment without space, failing", -ENOSPC, 1, DEVICE_FULL_ERROR },
};

#define NFAULTS (sizeof(faults) / sizeof(faults[0]))

struct options {
	uint64_t seed, worlds, every;
	const char *only;
	bool verbose;
};

/* One kind of work in one world. */
struct attempt {
	struct world *world;
	const struct work *work;
	uint64_t seed;
	bool clone, verbose;
};

/* Opens, and makes the stack as deep as the work needs it, with data in every level. False: not with this disk. */
static bool prepare(const struct attempt *a, enum device_on_full on_full)
{
	struct world *world = a->world;

	if (world->disk.odd)
		return false;
	sim_set_clone(world->sim, a->clone);
	if (world_open(world, false, on_full))
		world_fail(world, "does not open");
	for (;;) {
		requests(world, REQUESTS);
		world_wait(world);
		if (world->disk.nlevels >= a->work->levels)
			break;
		world_push(world);
		world_wait_for_work(world);
	}
	if (a->work->before)
		a->work->before(world);
	requests(world, a->work->before ? REQUESTS : 0);
	world_wait(world);
	world_submit(world, DEVICE_FLUSH, 0, 0, 0);
	world_wait(world);
	return true;
}

/* The work with requests beside it. Whether it began. */
static bool do_work(const struct attempt *a)
{
	struct world *world = a->world;
	bool began;

	requests(world, a->work->begin == world_shrink ? 0 : REQUESTS / 2);
	a->work->begin(world);
	began = world_works(world) || a->work->begin == world_shrink;
	for (unsigned i = 0; world_works(world) && !sim_is_cut(world->sim); i++) {
		if (i % 8 == 0 && i < 8 * REQUESTS && world->busy < WORLD_SLOTS)
			world_submit_random(world);
		if (loop_turn(sim_loop(world->sim), UINT64_MAX) && world_works(world) && !sim_is_cut(world->sim))
			world_fail(world, "%s does not end", a->work->name);
	}
	world_wait(world);
	return began;
}

static void check_all(struct world *world)
{
	if (world_open(world, true, DEVICE_FULL_STOP))
		world_fail(world, "does not open again");
	world_read_all(world, false);
	world_close(world);
}

/* One life in which the nth operation of the work fails. False when there were fewer than n, or it cannot be done at all. */
static bool live(const struct attempt *a, const struct fault *fault, uint64_t nth)
{
	struct world *world = a->world;
	bool failed;

	if (!prepare(a, fault->on_full))
		return false;
	sim_fail(world->sim, nth, fault->count, fault->error);
	world->may_fail = true;
	world->disk.levels[world->disk.nlevels - 1].littered = true;
	do_work(a);
	failed = sim_failed(world->sim);
	sim_fail(world->sim, 0, 0, 0);
	/* What is there now? And it can be done after all, or go on where it stopped. */
	if (nth % 2)
		world_read_all(world, false);
	if (nth % 3)
		do_work(a);
	if (nth % 4 == 0) {
		sim_cut(world->sim);
		world_wait(world);
	} else {
		world_close(world);
	}
	failed |= sim_failed(world->sim);
	world->may_fail = false;
	world_settle(world);
	check_all(world);
	return failed;
}

/* One life in which the power is cut at the nth step of the work. False when it ended before. */
static bool live_to_cut(const struct attempt *a, uint64_t nth)
{
	struct world *world = a->world;
	bool cut;

	if (!prepare(a, DEVICE_FULL_STOP))
		return false;
	sim_reseed(world->sim, a->seed ^ nth << 32);
	sim_cut_after(world->sim, nth);
	do_work(a);
	cut = sim_is_cut(world->sim);
	if (!cut)
		world_close(world);
	cut |= sim_is_cut(world->sim);
	world_settle(world);
	check_all(world);
	return cut;
}

/* Some or all of 1, 2, 3, .. */
static uint64_t next(uint64_t nth, uint64_t every, struct prng *prng)
{
	return nth + (every > 1 ? 1 + prng_below(prng, 2 * every - 1) : 1);
}

/* A world of the seed for each n; `fault` NULL: the power is cut. False: a finding. */
static bool try_all(const struct attempt *a, const struct fault *fault, uint64_t every, uint64_t *lives)
{
	jmp_buf caught;
	static struct prng prng;
	volatile uint64_t nth;
	volatile bool again = true;

	prng_seed(&prng, a->seed);
	for (nth = next(0, every, &prng); again; nth = next(nth, every, &prng)) {
		world_init(a->world, a->seed, a->verbose);
		a->world->caught = &caught;
		if (setjmp(caught)) {
			printf("FINDING (%s, %s%s, number %" PRIu64 "): %s\n", a->work->name,
			       fault ? fault->name : "a cut", a->clone ? ", clones" : "", nth, a->world->finding);
			return false;
		}
		again = fault ? live(a, fault, nth) : live_to_cut(a, nth);
		(*lives)++;
		world_fini(a->world);
	}
	return true;
}

static bool try_world(struct world *world, uint64_t seed, const struct options *options, uint64_t *lives, uint64_t *cuts)
{
	for (unsigned i = 0; i < 2 * NWORKS; i++) {
		const struct attempt a = {
			.world = world, .work = &works[i / 2], .seed = seed, .clone = i % 2, .verbose = options->verbose
		};

		if (options->only && !strstr(a.work->name, options->only))
			continue;
		for (unsigned f = 0; f < NFAULTS; f++)
			if (!try_all(&a, &faults[f], options->every, lives))
				return false;
		if (!try_all(&a, NULL, options->every, cuts))
			return false;
	}
	return true;
}

static int parse(struct options *ret, int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "worlds", required_argument, NULL, 'w' },
						 { "every", required_argument, NULL, 'e' },
						 { "only", required_argument, NULL, 'o' },
						 { NULL, 0, NULL, 0 } };
	int option;

	while ((option = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		if (option == 's')
			ret->seed = strtoull(optarg, NULL, 0);
		else if (option == 'w')
			ret->worlds = strtoull(optarg, NULL, 0);
		else if (option == 'e')
			ret->every = strtoull(optarg, NULL, 0);
		else if (option == 'o')
			ret->only = optarg;
		else if (option == 'v')
			ret->verbose = true;
		else
			return 2;
	}
	return 0;
}

int main(int argc, char **argv)
{
	static struct world world;
	struct options options = { .seed = 1, .worlds = 4, .every = 8 };
	uint64_t lives = 0, cuts = 0;

	if (parse(&options, argc, argv))
		return 2;
	for (uint64_t i = 0; i < options.worlds; i++) {
		if (!try_world(&world, options.seed + i, &options, &lives, &cuts)) {
			printf("repeat with: --seed %" PRIu64 " --worlds 1 --every %" PRIu64 "\n", options.seed + i,
			       options.every);
			return 1;
		}
	}
	printf("%" PRIu64 " lives with a failure, %" PRIu64 " with a cut\n", lives, cuts);
	return 0;
}
