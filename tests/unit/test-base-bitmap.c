/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmap.h: searches across word borders, and growth. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/bitmap.h"

static void test_search(void **state)
{
	struct bitmap map;

	(void)state;
	assert_int_equal(bitmap_init(&map, 1000), 0);
	assert_int_equal(bitmap_next_set(&map, 0), 1000);
	assert_int_equal(bitmap_last_set(&map, 1000), UINT64_MAX);
	assert_false(bitmap_set(&map, 64));
	assert_true(bitmap_set(&map, 64));
	assert_false(bitmap_set(&map, 999));
	assert_int_equal(map.set, 2);
	assert_int_equal(bitmap_next_set(&map, 0), 64);
	assert_int_equal(bitmap_next_set(&map, 65), 999);
	assert_int_equal(bitmap_last_set(&map, 1000), 999);
	assert_int_equal(bitmap_last_set(&map, 999), 64);
	assert_int_equal(bitmap_last_set(&map, 64), UINT64_MAX);
	assert_int_equal(bitmap_next_clear(&map, 64), 65);
	for (unsigned i = 0; i < 1000; i++)
		bitmap_set(&map, i);
	assert_int_equal(bitmap_next_clear(&map, 0), 1000);
	assert_true(bitmap_clear(&map, 128));
	assert_int_equal(bitmap_next_clear(&map, 3), 128);
	assert_int_equal(map.set, 999);
	bitmap_fini(&map);
}

static void test_grow(void **state)
{
	struct bitmap map;

	(void)state;
	assert_int_equal(bitmap_init(&map, 10), 0);
	bitmap_set(&map, 9);
	assert_int_equal(bitmap_grow(&map, 1 << 20), 0);
	assert_true(bitmap_test(&map, 9));
	assert_int_equal(bitmap_next_set(&map, 10), 1 << 20);
	bitmap_set(&map, (1 << 20) - 1);
	assert_int_equal(bitmap_next_set(&map, 10), (1 << 20) - 1);
	bitmap_fini(&map);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_search),
		cmocka_unit_test(test_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
