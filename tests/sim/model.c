/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * model.c - random requests on random stacks on the simulated disk, against an oracle. The power is cut at random moments,
 * also while the device opens or closes; operations fail; the disk is full for a while.
 *
 *	model [--seed N] [--worlds N] [--ops N] [--cuts N] [--seconds N] [--expect-finding] [-v]
 *
 * World i runs with seed N + i, so that a finding is repeated by its own seed and --worlds 1. It ends when it has done at
 * least so many operations and cuts, or after so many worlds or seconds.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "world.h"

struct campaign {
	uint64_t seed, worlds, ops, cuts, seconds;
	bool expect_finding, verbose;
	uint64_t done_worlds, done_ops, done_cuts, done_pushes, done_merges, done_resizes, done_compactions, done_copies, done_replaced,
		done_partials, done_completions, done_replays, done_checks, done_clean;
	struct timespec start;
};

/* What is done to a device between opening and closing it. */
struct session {
	bool read_only;
	bool cut_at_start;  /* the steps of opening count */
	uint64_t cut_after; /* steps; 0: none */
	bool cut_at_end;
	bool push; /* snapshots are made */
	bool merge;
	bool grow, compact, copy, replace, bitmaps; /* while there are requests */
	bool shrink;        /* before it is closed */
	bool chain;
	bool parts;
	unsigned left; /* requests in flight when the device is closed */
	bool fail;
	bool full;
	enum device_on_full on_full;
	unsigned requests;
};

static struct session draw_session(struct world *world)
{
	struct prng *prng = &world->prng;
	const struct disk_level *top = &world->disk.levels[world->disk.nlevels - 1];
	struct session session = { .requests = 1 + (unsigned)prng_below(prng, 80) };

	session.read_only = world->disk.odd || prng_one_in(prng, 12);
	/* The first opening is the moment of truth for a dirty bitmap. */
	session.cut_at_start = prng_one_in(prng, top->extension && !top->spent ? 1 : 6);
	if (session.cut_at_start || !prng_one_in(prng, 4))
		session.cut_after =
			1 + prng_below(prng, session.cut_at_start ? 20 : UINT64_C(1) << (2 + prng_below(prng, 9)));
	session.cut_at_end = prng_one_in(prng, 6);
	session.push = prng_one_in(prng, 3);
	session.merge = prng_one_in(prng, 3);
	session.grow = prng_one_in(prng, 4);
	session.compact = prng_one_in(prng, 4);
	session.copy = prng_one_in(prng, 4);
	session.replace = prng_one_in(&world->aside, 4);
	session.bitmaps = prng_one_in(&world->aside, 3);
	session.shrink = prng_one_in(prng, 6);
	session.chain = prng_one_in(prng, 3);
	session.parts = prng_one_in(prng, 2);
	session.requests *= session.parts ? 3 : 1;
	session.left = prng_one_in(prng, 3) ? (unsigned)prng_below(prng, 8) : 0;
	session.fail = prng_one_in(prng, 5);
	session.full = prng_one_in(prng, 10);
	session.on_full = prng_one_in(prng, 3) ? DEVICE_FULL_ERROR : DEVICE_FULL_STOP;
	return session;
}

static void arm_failures(struct world *world)
{
	struct prng *prng = &world->prng;
	static const int errors[] = { -EIO, -EIO, -ENOSPC, -ENOMEM };

	sim_fail(world->sim, 1 + prng_below(prng, 100), 1 + prng_below(prng, 3), errors[prng_below(prng, 4)]);
	world->may_fail = true;
}

/* Room comes and goes; there is always some in the end, so that those who wait get on. */
static void breathe(struct world *world)
{
	uint64_t used = sim_space_used(world->sim);

	sim_set_space(world->sim,
		      prng_one_in(&world->prng, 3) ? UINT64_MAX : used + prng_below(&world->prng, 64) * SIM_PAGE);
}

/* Things that happen between requests. */
static void happen(struct world *world, const struct session *session)
{
	struct prng *prng = &world->prng;

	if (session->full && prng_one_in(prng, 16))
		breathe(world);
	if (session->full && prng_one_in(prng, 32))
		device_resume(world->device);
	if (session->push && prng_one_in(prng, 60))
		world_push(world);
	if (session->merge && prng_one_in(&world->prng, 30))
		world_merge(world);
	if (session->grow && prng_one_in(&world->prng, 100))
		world_grow(world);
	if (session->compact && prng_one_in(&world->prng, 80))
		world_compact(world);
	if (session->copy && prng_one_in(&world->prng, 2))
		world_copy(world);
	if (session->replace && prng_one_in(&world->aside, 40))
		world_replace(world);
	if (session->bitmaps && prng_one_in(&world->aside, 12))
		world_bitmaps(world);
	/* Idle for some seconds: what was dirty is written without being asked. */
	if (!world->busy && prng_one_in(prng, 8))
		loop_turn(sim_loop(world->sim), UINT64_C(6000000000));
}

static void run_requests(struct world *world, const struct session *session)
{
	unsigned submitted = 0;
	uint64_t turns = 0;

	world->chain = session->chain;
	world->parts = session->parts;
	if (session->parts && prng_one_in(&world->prng, 2))
		world_push(world);
	if (session->bitmaps)
		world_bitmaps(world);
	while ((submitted < session->requests || world->busy > session->left) && !sim_is_cut(world->sim)) {
		happen(world, session);
		if (submitted < session->requests && world->busy < world->depth && prng_one_in(&world->prng, 2)) {
			world_submit_random(world);
			submitted++;
		} else if (world->busy) {
			world_turn(world);
		}
		world->chain &= submitted < session->requests;
		if (session->cut_at_end && submitted == session->requests && prng_one_in(&world->prng, 8))
			sim_cut(world->sim);
		if (++turns > 4000000)
			world_fail(world, "%u requests do not end", world->busy);
	}
	world->chain = world->parts = false;
	sim_set_space(world->sim, UINT64_MAX);
}

/* From an open device on, to a close or a cut. */
static void run_open(struct world *world, const struct session *session)
{
	if (!session->cut_at_start)
		sim_cut_after(world->sim, session->cut_after);
	world->may_fail |= session->full && session->on_full == DEVICE_FULL_ERROR;
	run_requests(world, session);
	if (!sim_is_cut(world->sim) && session->shrink)
		world_shrink(world);
	if (!sim_is_cut(world->sim) && prng_one_in(&world->prng, 4))
		world_read_all(world, false);
	if (!sim_is_cut(world->sim))
		world_bitmaps_check(world);
	if (!sim_is_cut(world->sim))
		world_close(world);
}

static void begin_session(struct world *world, const struct session *session)
{
	struct prng *prng = &world->prng;

	if (world->verbose)
		printf(" session:%s%s cut after %" PRIu64 "%s%s%s, %u requests\n",
		       session->read_only ? " read-only" : "", session->cut_at_start ? " early" : "",
		       session->cut_after, session->cut_at_end ? " or at the end" : "",
		       session->fail ? ", failures" : "", session->full ? ", full" : "", session->requests);
	world->may_fail = false;
	sim_set_order(world->sim, prng_one_in(prng, 4) ? (enum sim_order)prng_below(prng, 3) : SIM_ORDER_RANDOM);
	if (session->fail)
		arm_failures(world);
	if (session->cut_at_start)
		sim_cut_after(world->sim, session->cut_after);
}

static void end_session(struct world *world)
{
	sim_fail(world->sim, 0, 0, 0);
	sim_set_space(world->sim, UINT64_MAX);
	sim_cut_after(world->sim, 0);
	world->may_fail = false;
}

/* Opens, works, and closes or cuts. */
static void run_session(struct world *world, const struct session *session)
{
	const char *top = world->disk.levels[world->disk.nlevels - 1].path;
	uint64_t changes = sim_changes(world->sim, top);

	begin_session(world, session);
	if (!world_open(world, session->read_only, session->on_full))
		run_open(world, session);
	end_session(world);
	if (session->read_only && sim_changes(world->sim, top) != changes)
		world_fail(world, "a read-only device wrote");
}

/* All that is left was read and found good: work goes on. */
static void run_on(struct world *world)
{
	struct session session = draw_session(world);

	session.cut_at_start = session.full = false;
	begin_session(world, &session);
	run_open(world, &session);
	end_session(world);
}

/* After a cut or a close that failed: opens, perhaps with another cut, until all was read and found good. */
static void run_recovery(struct world *world)
{
	while (sim_is_cut(world->sim) || world->lost) {
		bool settled;

		world_recover(world);
		if (prng_one_in(&world->prng, 5))
			sim_cut_after(world->sim, 1 + prng_below(&world->prng, 30));
		if (world_open(world, world->disk.odd || prng_one_in(&world->prng, 8), DEVICE_FULL_STOP))
			continue;
		settled = world_read_all(world, true);
		sim_cut_after(world->sim, 0);
		if (settled)
			world_bitmaps_check(world);
		if (settled && !world->read_only && prng_one_in(&world->prng, 2))
			run_on(world);
		else if (settled)
			world_close(world);
	}
}

/* All of the disk is discarded: it reads as zeros, and the host has its space back. */
static void run_discard_all(struct world *world)
{
	const struct disk_level *top = &world->disk.levels[world->disk.nlevels - 1];
	uint64_t held = top->start + (world->disk.bitmaps ? 16 * (uint64_t)world->disk.cluster : 0), blocks;
	struct io_file *file;

	if (world->disk.odd || world_open(world, false, DEVICE_FULL_STOP))
		return;
	world_submit(world, DEVICE_DISCARD, 0, 0, world->oracle.sectors);
	world_wait(world);
	world_read_all(world, false);
	world_close(world);
	if (io_open(sim_loop(world->sim), &io_sim, top->path, IO_RDONLY, &file, NULL) || io_allocated(file, &blocks))
		world_fail(world, "%s does not open", top->path);
	io_close(file);
	/* What the last cluster holds beyond the end of the disk is out of reach, and between clusters that are not aligned to
	 * blocks a block of zeros may stay. */
	if (world->disk.size % world->disk.cluster)
		held += world->disk.cluster;
	if (!top->littered && top->start % SIM_PAGE == 0 && blocks > held)
		world_fail(world, "%s holds %" PRIu64 " bytes though all was discarded", top->path, blocks);
}

static void run_world(struct world *world)
{
	unsigned sessions = 10 + (unsigned)prng_below(&world->prng, 20);

	if (prng_one_in(&world->prng, 4))
		run_discard_all(world);
	while (sessions--) {
		struct session session = draw_session(world);

		run_session(world, &session);
		run_recovery(world);
	}
	run_discard_all(world);
	if (!world_open(world, true, DEVICE_FULL_STOP)) {
		world_read_all(world, false);
		world_close(world);
	}
	if (!disk_check_hashes(&world->disk, world->sim))
		world_fail(world, "%s", world->disk.text);
}

static double seconds_since(const struct timespec *start)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)(now.tv_sec - start->tv_sec) + (double)(now.tv_nsec - start->tv_nsec) / 1e9;
}

static bool enough(const struct campaign *c)
{
	if (c->seconds && seconds_since(&c->start) >= (double)c->seconds)
		return true;
	if (c->worlds && c->done_worlds >= c->worlds)
		return true;
	return (c->ops || c->cuts) && c->done_ops >= c->ops && c->done_cuts >= c->cuts;
}

/* False: a finding, in world->finding. */
static bool try_world(struct world *world, uint64_t seed, bool verbose)
{
	jmp_buf caught;

	world_init(world, seed, verbose);
	world->caught = &caught;
	if (setjmp(caught))
		return false;
	run_world(world);
	world_fini(world);
	return true;
}

static int parse(struct campaign *c, int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' },    { "worlds", required_argument, NULL, 'w' },
		{ "ops", required_argument, NULL, 'o' },     { "cuts", required_argument, NULL, 'c' },
		{ "seconds", required_argument, NULL, 't' }, { "expect-finding", no_argument, NULL, 'x' },
		{ "verbose", no_argument, NULL, 'v' },       { NULL, 0, NULL, 0 },
	};
	int option;

	while ((option = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		uint64_t value = optarg ? strtoull(optarg, NULL, 0) : 0;

		switch (option) {
		case 's':
			c->seed = value;
			break;
		case 'w':
			c->worlds = value;
			break;
		case 'o':
			c->ops = value;
			break;
		case 'c':
			c->cuts = value;
			break;
		case 't':
			c->seconds = value;
			break;
		case 'x':
			c->expect_finding = true;
			break;
		case 'v':
			c->verbose = true;
			break;
		default:
			return 2;
		}
	}
	if (!c->ops && !c->cuts && !c->worlds && !c->seconds)
		c->ops = 20000;
	return 0;
}

static void report(const struct campaign *c)
{
	double seconds = seconds_since(&c->start);

	printf("%" PRIu64 " operations, %" PRIu64 " power cuts, %" PRIu64 " snapshots, %" PRIu64 " merges, %" PRIu64
	       " sizes, %" PRIu64 " compactions, %" PRIu64 " copies, %" PRIu64 " replacements, %" PRIu64 " writes of parts, %" PRIu64
	       " levels completed, %" PRIu64 " replays, %" PRIu64 " checks of bitmaps (%" PRIu64
	       " with something clean), %" PRIu64 " worlds in %.1f s: ",
	       c->done_ops, c->done_cuts, c->done_pushes, c->done_merges, c->done_resizes, c->done_compactions, c->done_copies,
	       c->done_replaced, c->done_partials, c->done_completions, c->done_replays, c->done_checks,
	       c->done_clean, c->done_worlds, seconds);
	printf("%.0f operations and %.0f cuts a minute\n", (double)c->done_ops / seconds * 60,
	       (double)c->done_cuts / seconds * 60);
}

int main(int argc, char **argv)
{
	static struct world world;
	struct campaign c = { .seed = 1 };
	int r = parse(&c, argc, argv);

	if (r)
		return r;
	setvbuf(stdout, NULL, _IOLBF, 0);
	clock_gettime(CLOCK_MONOTONIC, &c.start);
	while (!enough(&c)) {
		bool good = try_world(&world, c.seed + c.done_worlds, c.verbose);

		c.done_ops += world.ops;
		c.done_cuts += world.cuts;
		c.done_pushes += world.pushes;
		c.done_merges += world.merges;
		c.done_resizes += world.resizes;
		c.done_compactions += world.compactions;
		c.done_copies += world.copies;
		c.done_replaced += world.replaced;
		c.done_partials += world.partials;
		c.done_completions += world.completions;
		c.done_replays += world.replays;
		c.done_checks += world.bitmap_checks;
		c.done_clean += world.bitmap_clean;
		if (!good) {
			printf("FINDING: %s\nrepeat with: --seed %" PRIu64 " --worlds 1 -v\n", world.finding,
			       world.seed);
			report(&c);
			return c.expect_finding ? 0 : 1;
		}
		c.done_worlds++;
	}
	report(&c);
	return c.expect_finding ? 1 : 0;
}
