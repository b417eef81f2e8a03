/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * verbs.c - what libploop does to the files of a disk that nobody uses, on the simulated disk (folder.h): the power is cut at the
 * 1st, 2nd, 3rd ... step of it, and its 1st, 2nd, 3rd ... operation fails.
 *
 *	verbs [--seed N] [--every N] [--only WORD] [--expect-finding] [-v]
 *
 * Whatever happens, then:
 *  1. The descriptor names the snapshots that there were before or those that there are afterwards, never others.
 *  2. Each of them opens and holds what it held, but for those that a merge has marked as temporary; the disk itself in any case.
 *  3. Every other file in the folder is named by ploop_gc().
 *  4. If it was not done, the same verb once more ends where one that nobody disturbed does. Nothing is left behind.
 */
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/prng.h"
#include "device/device.h"
#include "folder.h"
#include "image/create.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/journal.h"
#include "io/loop.h"
#include "io/sim-table.h"
#include "lib/disk.h"

#define DISK FOLDER "/DiskDescriptor.xml"
#define CLUSTER 32768u
#define CLUSTERS 12u
#define SNAPSHOTS 16

#define A "{aaaaaaaa-0000-4000-8000-000000000000}"
#define B "{bbbbbbbb-0000-4000-8000-000000000000}"
#define C "{cccccccc-0000-4000-8000-000000000000}"
#define D "{dddddddd-0000-4000-8000-000000000000}"

static struct {
	struct prng prng;
	bool verbose;
	char finding[1024];
} test;

static bool fail(const char *what, const char *why)
{
	if (!test.finding[0])
		snprintf(test.finding, sizeof(test.finding), "%.90s: %.900s", what, why);
	return false;
}

/* ---- A disk ---- */

static void answered(struct device_request *request, int result)
{
	request->offset = (uint64_t)(int64_t)result;
	loop_stop(sim_loop(folder_sim()));
}

static int write_cluster(struct ploop_disk *disk, uint64_t offset, const void *data, uint64_t length)
{
	struct device_request request = {
		.kind = DEVICE_WRITE, .offset = offset, .length = length, .buffer = (void *)data, .done = answered
	};

	device_submit(disk->device, &request);
	loop_run(sim_loop(folder_sim()));
	return (int)(int64_t)request.offset;
}

/* New data in some places of the disk as it is. */
static int scribble(void)
{
	const char *path = DISK;
	const struct ploop_files files = { .paths = &path, .npaths = 1 };
	const struct disk_config config = { .files = &files, .write = true, .depth = 8 };
	static uint64_t data[CLUSTER / 8];
	struct ploop_disk *disk;
	int r = disk_open(&config, &disk, NULL);

	if (r < 0)
		return r;
	for (unsigned i = 0; i < 5 && r == 0; i++) {
		uint64_t v = prng_below(&test.prng, CLUSTERS), length = prng_one_in(&test.prng, 2) ? CLUSTER : 4096;

		for (unsigned w = 0; w < CLUSTER / 8; w++)
			data[w] = prng_next(&test.prng);
		r = write_cluster(disk, v * CLUSTER + prng_below(&test.prng, (CLUSTER - length) / 4096 + 1) * 4096, data, length);
	}
	return disk_close(disk, NULL) < 0 ? -EIO : r;
}

static int new_disk(void)
{
	const struct image_params params = { .version = 2, .size = (uint64_t)CLUSTERS * CLUSTER, .cluster = CLUSTER };
	struct dir *dir;
	int r = dir_open(NULL, FOLDER, &dir, NULL);

	if (r == 0)
		r = image_create(NULL, dir, "root.hds", &params, NULL);
	if (r == 0)
		r = disk_create(dir, "DiskDescriptor.xml", "root.hds", &params, NULL);
	dir_close(dir);
	return r < 0 ? r : scribble();
}

static int snapshot(const char *uuid)
{
	struct ploop_error err;
	int r = ploop_snapshot(DISK, uuid, 0, NULL, &err);

	if (r < 0)
		fail("building", err.text);
	return r < 0 ? r : scribble();
}

/* A - B - C - the top. */
static int chain(void)
{
	return new_disk() || snapshot(A) || snapshot(B) || snapshot(C);
}

/* A - B, and on that C, and the top. */
static int branches(void)
{
	return chain() || ploop_snapshot_switch(DISK, B, 0, NULL, NULL) || scribble() || snapshot(D) ||
	       ploop_snapshot_switch(DISK, B, 0, NULL, NULL) || scribble();
}

/* ---- What there is ---- */

struct held {
	char uuid[PLOOP_UUID];
	bool temporary, top;
	uint64_t sum;
};

struct state {
	struct held held[SNAPSHOTS];
	size_t n;
	unsigned files;
};

static bool sum_of(const char *uuid, uint64_t *ret, struct ploop_error *err)
{
	const char *path = DISK;
	const struct ploop_files files = { .paths = &path, .npaths = 1, .snapshot = uuid };
	static uint64_t data[CLUSTER / 8];
	struct ploop_disk *disk;
	int r = ploop_disk_open(&files, &disk, err);

	if (r < 0)
		return false;
	*ret = 1;
	for (uint64_t v = 0; v < CLUSTERS && r == 0; v++) {
		r = ploop_disk_read(disk, data, CLUSTER, v * CLUSTER, err);
		for (unsigned w = 0; w < CLUSTER / 8; w++)
			*ret = (*ret ^ data[w]) * UINT64_C(0x100000001b3) + 1;
	}
	ploop_disk_close(disk);
	return r == 0;
}

static int count_file(void *data, const char *name)
{
	(void)name;
	++*(unsigned *)data;
	return 0;
}

static bool look(struct state *ret)
{
	struct ploop_snapshot_info *list;
	struct ploop_error err;
	struct dir *dir;
	bool good = true;

	memset(ret, 0, sizeof(*ret));
	if (ploop_snapshots(DISK, &list, &ret->n, &err) < 0)
		return fail("the descriptor cannot be read", err.text);
	for (size_t i = 0; i < ret->n && good; i++) {
		struct held *held = &ret->held[i];

		memcpy(held->uuid, list[i].uuid, PLOOP_UUID);
		held->temporary = list[i].temporary;
		held->top = list[i].top;
		if (!sum_of(held->uuid, &held->sum, &err))
			good = fail(held->uuid, err.text);
	}
	ploop_snapshots_free(list, ret->n);
	if (dir_open(NULL, FOLDER, &dir, NULL) == 0) {
		dir_list(dir, count_file, &ret->files);
		dir_close(dir);
	}
	return good;
}

static const struct held *held_in(const struct state *state, const char *uuid)
{
	for (size_t i = 0; i < state->n; i++)
		if (!strcmp(state->held[i].uuid, uuid))
			return &state->held[i];
	return NULL;
}

/* Are these the snapshots of `wanted`, with what they hold there? */
static bool is_state(const struct state *now, const struct state *wanted)
{
	for (size_t i = 0; i < now->n; i++) {
		const struct held *held = &now->held[i], *other = held_in(wanted, held->uuid);

		if (!other || held->top != other->top || (held->sum != other->sum && (held->top || !held->temporary)))
			return false;
	}
	return now->n == wanted->n;
}

/* ---- Verbs ---- */

static int do_snapshot(struct ploop_error *err)
{
	return ploop_snapshot(DISK, D, 0, NULL, err);
}

static int do_temporary(struct ploop_error *err)
{
	return ploop_snapshot(DISK, D, PLOOP_SNAPSHOT_TEMPORARY, NULL, err);
}

static int do_switch(struct ploop_error *err)
{
	return ploop_snapshot_switch(DISK, A, 0, NULL, err);
}

static int do_delete_inner(struct ploop_error *err)
{
	return ploop_snapshot_delete(DISK, B, err);
}

static int do_delete_leaf(struct ploop_error *err)
{
	return ploop_snapshot_delete(DISK, C, err);
}

static int do_delete_top(struct ploop_error *err)
{
	return ploop_snapshot_delete(DISK, GUID_TOP, err);
}

static int do_merge_top(struct ploop_error *err)
{
	return ploop_snapshot_merge(&(struct ploop_snapshot_merge){ .disk = DISK }, err);
}

static int do_merge_all(struct ploop_error *err)
{
	return ploop_snapshot_merge(&(struct ploop_snapshot_merge){ .disk = DISK, .all = true }, err);
}

static int do_merge_range(struct ploop_error *err)
{
	return ploop_snapshot_merge(&(struct ploop_snapshot_merge){ .disk = DISK, .uuid = C, .ancestor = A }, err);
}

static int do_merge_new(struct ploop_error *err)
{
	return ploop_snapshot_merge(
		&(struct ploop_snapshot_merge){ .disk = DISK, .all = true, .new_image = FOLDER "/new" }, err);
}

/* Old software gave the top a name of its own. */
static int old_format(void)
{
	struct ploop_error err;
	struct descriptor *d = NULL;
	struct guid top, old;
	struct dir *dir;
	int r = chain() || dir_open(NULL, FOLDER, &dir, &err);

	guid_parse(GUID_TOP, &top);
	guid_parse(D, &old);
	if (r)
		return -1;
	r = descriptor_read(dir, "DiskDescriptor.xml", &d, &err);
	if (r == 0)
		r = descriptor_rename(d, &top, &old) || descriptor_set_top(d, &old) ||
		    descriptor_store(d, dir, "DiskDescriptor.xml", &err);
	descriptor_free(d);
	dir_close(dir);
	return r;
}

static int do_repair(struct ploop_error *err)
{
	struct ploop_repair *items;
	size_t n;
	int r = ploop_repair_descriptor(DISK, false, &items, &n, err);

	if (r == 0)
		ploop_repair_free(items, n);
	return r;
}

static const struct verb {
	const char *name;
	int (*build)(void);
	int (*run)(struct ploop_error *err);
} verbs[] = {
	{ "snapshot", chain, do_snapshot },
	{ "tsnapshot", chain, do_temporary },
	{ "snapshot-switch", chain, do_switch },
	{ "snapshot-delete, one child", chain, do_delete_inner },
	{ "snapshot-delete, a leaf", branches, do_delete_leaf },
	{ "snapshot-delete, the top", chain, do_delete_top },
	{ "snapshot-delete, children", branches, do_delete_inner },
	{ "snapshot-merge", chain, do_merge_top },
	{ "snapshot-merge -A", chain, do_merge_all },
	{ "snapshot-merge -U", chain, do_merge_range },
	{ "snapshot-merge -A -n", chain, do_merge_new },
	{ "repair-descriptor", old_format, do_repair },
};

#define NVERBS (sizeof(verbs) / sizeof(verbs[0]))

/* ---- Lives ---- */

/* The same disk for the same seed. */
static bool build(const struct verb *verb, uint64_t seed, struct state *ret)
{
	folder_new(seed);
	prng_seed(&test.prng, seed);
	sim_set_clone(folder_sim(), seed % 2);
	return verb->build() ? fail("building", "it failed") : look(ret);
}

/* All files but those of the disk are known as leftovers. */
static bool check_leftovers(const struct state *now)
{
	struct ploop_leftover *list;
	struct ploop_error err;
	char text[64];
	size_t n;

	if (ploop_gc(DISK, false, &list, &n, &err) < 0)
		return fail("gc", err.text);
	ploop_leftovers_free(list, n);
	if (now->files == now->n + 1 + n)
		return true;
	snprintf(text, sizeof(text), "%u files, %zu snapshots, %zu leftovers", now->files, now->n, n);
	return fail("a file that gc does not name", text);
}

/* Whoever comes next settles what was left. *ret_made: it is the new disk. */
static bool check_left(const struct state *before, const struct state *after, bool *ret_made)
{
	struct ploop_error err;
	struct state now;
	int lock;

	if (journal_lock_disk(DISK, 0, &lock, &err) < 0)
		return fail("locking", err.text);
	if (!look(&now))
		return false;
	*ret_made = is_state(&now, after);
	if (!*ret_made && !is_state(&now, before))
		return fail("what is left", "neither the old disk nor the new one");
	return check_leftovers(&now);
}

static bool check_again(const struct verb *verb, bool made, const struct state *after)
{
	struct ploop_error err = { .text = "" };
	struct ploop_leftover *list;
	struct state now;
	size_t n;
	int r = made ? 0 : verb->run(&err);

	if (!look(&now))
		return false;
	if (!is_state(&now, after))
		return fail("once more", r < 0 ? err.text : "another disk than it should be");
	/* Files under a temporary name stay until somebody asks for them to be removed. */
	if (ploop_gc(DISK, true, &list, &n, &err) < 0)
		return fail("gc --remove", err.text);
	ploop_leftovers_free(list, n);
	return look(&now) && now.files == now.n + 1 ? true : fail("once more", "files are left");
}

/* The power is cut at the nth step, or (`fails`) the nth operation fails. *ret_again: there may be more. */
static bool live(const struct verb *verb, uint64_t seed, uint64_t nth, bool fails, const struct state *after, bool *ret_again)
{
	struct ploop_error err = { 0 };
	struct state before;
	bool made;
	int r;

	if (!build(verb, seed, &before))
		return false;
	sim_reseed(folder_sim(), seed ^ nth << 32);
	if (fails)
		sim_fail(folder_sim(), nth, 1, -EIO);
	else
		sim_cut_after(folder_sim(), nth);
	r = verb->run(&err);
	*ret_again = fails ? sim_failed(folder_sim()) : sim_is_cut(folder_sim());
	sim_fail(folder_sim(), 0, 0, 0);
	if (!*ret_again && r < 0)
		return fail("undisturbed", err.text);
	if (!*ret_again || nth % 3 == 0)
		sim_cut(folder_sim());
	if (sim_is_cut(folder_sim()))
		folder_boot();
	sim_cut_after(folder_sim(), 0);
	return check_left(&before, after, &made) && check_again(verb, made, after);
}

static uint64_t next(uint64_t nth, uint64_t every, struct prng *prng)
{
	return nth + (every > 1 ? 1 + prng_below(prng, 2 * every - 1) : 1);
}

static bool try_verb(const struct verb *verb, uint64_t seed, uint64_t every, uint64_t *lives)
{
	struct ploop_error err = { 0 };
	struct state before, after;
	struct prng prng;
	bool good = build(verb, seed, &before);

	if (good && verb->run(&err) < 0)
		good = fail("undisturbed", err.text);
	good = good && look(&after);
	folder_free();
	prng_seed(&prng, seed);
	for (unsigned fails = 0; fails < 2 && good; fails++) {
		bool again = true;

		for (uint64_t nth = next(0, every, &prng); again && good; nth = next(nth, every, &prng)) {
			good = live(verb, seed, nth, fails, &after, &again);
			if (!good)
				printf("FINDING (%s, %s %" PRIu64 ", seed %" PRIu64 "): %s\n", verb->name,
				       fails ? "failure" : "cut", nth, seed, test.finding);
			folder_free();
			++*lives;
		}
	}
	if (test.finding[0] && good)
		printf("FINDING (%s, seed %" PRIu64 "): %s\n", verb->name, seed, test.finding);
	return good && !test.finding[0];
}

static void print(void *data, int level, const char *text)
{
	(void)data;
	printf("  [%d] %s\n", level, text);
}

int main(int argc, char **argv)
{
	static const struct option options[] = { { "seed", required_argument, NULL, 's' },
						 { "every", required_argument, NULL, 'e' },
						 { "only", required_argument, NULL, 'o' },
						 { "expect-finding", no_argument, NULL, 'x' },
						 { NULL, 0, NULL, 0 } };
	uint64_t seed = 1, every = 1, lives = 0;
	const char *only = NULL;
	bool expect = false, good = true;
	int option;

	while ((option = getopt_long(argc, argv, "v", options, NULL)) != -1) {
		if (option == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (option == 'e')
			every = strtoull(optarg, NULL, 0);
		else if (option == 'o')
			only = optarg;
		else if (option == 'x')
			expect = true;
		else if (option == 'v')
			ploop_set_log(print, NULL);
		else
			return 2;
	}
	for (unsigned i = 0; i < NVERBS && good; i++)
		if (!only || strstr(verbs[i].name, only))
			good = try_verb(&verbs[i], seed, every, &lives);
	printf("%" PRIu64 " lives\n", lives);
	return good == !expect ? 0 : 1;
}
