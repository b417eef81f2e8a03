/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lib/shared.c and io/inline.c: many threads on one disk, each with sectors of its own in clusters that all of them share, on an
 * empty image over one with data, so that copy-on-write, discards, zeroes and flushes of several run into one another.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/prng.h"
#include "image/create.h"
#include "image/dir.h"
#include "lib/shared.h"

#define THREADS 8u
#define CLUSTER (32u * 1024)
#define SIZE (64u * CLUSTER)
#define SLOT 512u /* thread t has every sector whose number is t modulo THREADS */
#define SLOTS (SIZE / SLOT / THREADS)
#define STEPS 1500u

static char folder[64], *names[2];
static struct shared *shared;

struct worker {
	pthread_t thread;
	unsigned number;
	uint8_t bytes[SLOTS]; /* what each of its sectors is filled with */
	bool good;
};

static void open_shared(bool write)
{
	const struct ploop_files files = { .paths = (const char *const *)names, .npaths = 2 };
	struct ploop_error err;

	if (shared_open(&files, write, &shared, &err) < 0)
		fail_msg("%s", err.text);
}

static int setup(void **state)
{
	const struct image_params params = { .mode = IMAGE_EXPANDED, .version = 2, .size = SIZE, .cluster = CLUSTER };
	struct dir *dir;

	(void)state;
	strcpy(folder, "/var/tmp/ploop-shared-XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(dir_open(NULL, folder, &dir, NULL), 0);
	for (unsigned i = 0; i < 2; i++) {
		assert_true(asprintf(&names[i], "%s/%u", folder, i) > 0);
		assert_int_equal(image_create(NULL, dir, i ? "1" : "0", &params, NULL), 0);
	}
	dir_close(dir);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		unlink(names[i]);
		free(names[i]);
	}
	return rmdir(folder);
}

static uint64_t offset_of(const struct worker *worker, uint32_t slot)
{
	return ((uint64_t)slot * THREADS + worker->number) * SLOT;
}

static bool holds(const uint8_t *buffer, uint8_t byte)
{
	return *buffer == byte && !memcmp(buffer, buffer + 1, SLOT - 1);
}

static bool step(struct worker *worker, struct prng *prng)
{
	uint32_t slot = (uint32_t)prng_below(prng, SLOTS), what = (uint32_t)prng_below(prng, 100);
	uint64_t offset = offset_of(worker, slot);
	uint8_t buffer[SLOT];

	if (what < 45) {
		if (shared_request(shared, DEVICE_READ, 0, buffer, SLOT, offset) < 0)
			return false;
		return holds(buffer, worker->bytes[slot]);
	}
	if (what < 80) {
		worker->bytes[slot] = (uint8_t)(1 + prng_below(prng, 255));
		memset(buffer, worker->bytes[slot], SLOT);
		return !shared_request(shared, DEVICE_WRITE, what < 50 ? DEVICE_FUA : 0, buffer, SLOT, offset);
	}
	if (what < 97) {
		worker->bytes[slot] = 0;
		return !shared_request(shared, what % 2 ? DEVICE_DISCARD : DEVICE_WRITE_ZEROES, 0, NULL, SLOT, offset);
	}
	return !shared_request(shared, DEVICE_FLUSH, 0, NULL, 0, 0);
}

static void *work(void *data)
{
	struct worker *worker = data;
	struct prng prng;

	prng_seed(&prng, worker->number + 1);
	worker->good = true;
	for (unsigned i = 0; i < STEPS && worker->good; i++)
		worker->good = step(worker, &prng);
	return NULL;
}

static void all(struct worker *workers)
{
	for (unsigned i = 0; i < THREADS; i++) {
		workers[i].number = i;
		assert_int_equal(pthread_create(&workers[i].thread, NULL, work, &workers[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(workers[i].thread, NULL);
	for (unsigned i = 0; i < THREADS; i++)
		assert_true(workers[i].good);
}

static void check(const struct worker *workers)
{
	uint8_t *disk = malloc(SIZE);

	assert_int_equal(shared_request(shared, DEVICE_READ, 0, disk, SIZE, 0), 0);
	for (unsigned i = 0; i < THREADS; i++)
		for (uint32_t slot = 0; slot < SLOTS; slot++)
			assert_true(holds(disk + offset_of(&workers[i], slot), workers[i].bytes[slot]));
	free(disk);
}

/* What extents call a hole reads as zeros, and they cover the disk. */
static void check_extents(void)
{
	uint8_t *buffer = malloc(SIZE);
	uint64_t holes = 0;

	for (uint64_t at = 0; at < SIZE;) {
		uint64_t length;
		bool hole;

		assert_int_equal(shared_extent(shared, at, SIZE - at, &length, &hole), 0);
		assert_true(length && length % 512 == 0 && at + length <= SIZE);
		if (hole) {
			holes += length;
			assert_int_equal(shared_request(shared, DEVICE_READ, 0, buffer, length, at), 0);
			for (uint64_t i = 0; i < length; i++)
				assert_int_equal(buffer[i], 0);
		}
		at += length;
	}
	assert_true(holes > 0);
	free(buffer);
}

static void test_threads(void **state)
{
	struct worker *workers = calloc(THREADS, sizeof(*workers));
	const struct ploop_files base = { .paths = (const char *const *)names, .npaths = 1 };

	(void)state;
	assert_int_equal(shared_open(&base, true, &shared, NULL), 0); /* data below */
	all(workers);
	check(workers);
	assert_int_equal(shared_close(shared, NULL), 0);
	open_shared(true);
	check(workers);
	all(workers);
	check(workers);
	/* Space for holes. */
	assert_int_equal(shared_request(shared, DEVICE_DISCARD, 0, NULL, 8 * CLUSTER, 2 * CLUSTER), 0);
	check_extents();
	assert_int_equal(shared_close(shared, NULL), 0);
	for (unsigned i = 0; i < THREADS; i++)
		for (uint32_t slot = 0; slot < SLOTS; slot++)
			if (offset_of(&workers[i], slot) / CLUSTER >= 2 && offset_of(&workers[i], slot) / CLUSTER < 10)
				workers[i].bytes[slot] = 0;
	open_shared(false);
	check(workers);
	assert_int_equal(shared_request(shared, DEVICE_DISCARD, 0, NULL, 512, 0), -EROFS);
	assert_int_equal(shared_close(shared, NULL), 0);
	free(workers);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_threads, setup, teardown) };

	return cmocka_run_group_tests(tests, NULL, NULL);
}
