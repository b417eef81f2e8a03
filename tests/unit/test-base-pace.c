/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Background work in turns, beside others whose speed is known. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/pace.h"

#define MS UINT64_C(1000000)
#define SPEED 20 /* what others do in a ms when they are alone */

struct world {
	uint64_t now, count, rested, worked;
};

/* Turns of 50 ms beside others who keep `part` of their speed in them. */
static void play(struct world *world, struct pace *pace, unsigned turns, double part, uint64_t speed)
{
	for (unsigned i = 0; i < turns; i++) {
		uint64_t rest;

		pace_begin(pace, world->now, world->count);
		world->now += 50 * MS;
		world->worked += 50 * MS;
		world->count += (uint64_t)(50 * (double)speed * part);
		rest = pace_end(pace, world->now, world->count, speed > 0);
		world->now += rest;
		world->rested += rest;
		world->count += rest * speed / MS;
	}
}

static void test_others_keep_most(void **state)
{
	static const double parts[] = { 0, 0.05, 0.3, 0.5, 0.8, 1 };

	(void)state;
	for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
		struct world world = { 0 };
		struct pace pace = { 0 };
		double kept;

		play(&world, &pace, 100, parts[i], SPEED);
		kept = (double)world.count / ((double)(world.now / MS) * SPEED);
		assert_true(kept > 0.68);
		assert_true(world.rested >= world.worked - 50 * MS);
		assert_true(world.rested <= 3 * world.worked); /* no more than is needed */
	}
}

static void test_alone(void **state)
{
	struct world world = { 0 };
	struct pace pace = { 0 };

	(void)state;
	play(&world, &pace, 10, 1, 0);
	assert_true(world.rested == 0);
	/* Somebody comes, and goes. */
	play(&world, &pace, 10, 0.1, SPEED);
	assert_true(world.rested >= world.worked / 2);
	world.rested = 0;
	play(&world, &pace, 10, 1, 0);
	assert_true(world.rested == 0);
}

/* What is counted comes of the work itself: hardly a rest. */
static void test_own_requests(void **state)
{
	struct pace pace = { 0 };
	uint64_t now = 0, rested = 0;

	(void)state;
	for (unsigned i = 1; i <= 100; i++) {
		uint64_t rest;

		pace_begin(&pace, now, i - 1);
		now += 50 * MS;
		rest = pace_end(&pace, now, i, false);
		now += rest;
		rested += rest;
	}
	assert_true(rested < now / 8);
}

/* Those who stand still because of us, and have done nothing at all, are seen. */
static void test_stalled(void **state)
{
	struct pace pace = { 0 };

	(void)state;
	pace_begin(&pace, 0, 5);
	assert_true(pace_end(&pace, 50 * MS, 5, true) >= 50 * MS);
	pace_begin(&pace, 100 * MS, 5 + 50 * SPEED);
	assert_true(pace_end(&pace, 150 * MS, 5 + 50 * SPEED, true) >= 100 * MS);
	pace_begin(&pace, 300 * MS, 5 + 200 * SPEED);
	assert_true(pace_end(&pace, 350 * MS, 5 + 200 * SPEED, false) == 0);
}

static void test_size(void **state)
{
	(void)state;
	assert_int_equal(pace_size(8, 1, 2, 64), 16);
	assert_int_equal(pace_size(64, 1, 2, 64), 64);
	assert_int_equal(pace_size(8, PACE_TURN, 2, 64), 8);
	assert_int_equal(pace_size(8, PACE_TURN + 1, 2, 64), 4);
	assert_int_equal(pace_size(2, 1000 * MS, 2, 64), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_others_keep_most), cmocka_unit_test(test_alone),
		cmocka_unit_test(test_own_requests),     cmocka_unit_test(test_stalled),
		cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
