/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Lists of stretches. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include "base/range.h"

static void expect(const struct ranges *ranges, const struct range *wanted, size_t n)
{
	assert_int_equal(ranges->n, n);
	for (size_t i = 0; i < n; i++) {
		assert_true(ranges->list[i].offset == wanted[i].offset);
		assert_true(ranges->list[i].length == wanted[i].length);
	}
}

static void fill(struct ranges *ranges, const struct range *from, size_t n)
{
	for (size_t i = 0; i < n; i++)
		assert_int_equal(ranges_add(ranges, from[i].offset, from[i].length), 0);
}

static void test_add(void **state)
{
	static const struct range from[] = { { 8, 4 }, { 12, 4 }, { 20, 0 }, { 0, 2 } };
	static const struct range to[] = { { 8, 8 }, { 0, 2 } };
	struct ranges ranges = { 0 };

	(void)state;
	fill(&ranges, from, 4);
	expect(&ranges, to, 2);
	assert_true(ranges_sum(&ranges) == 10);
	ranges_clear(&ranges);
	assert_int_equal(ranges.n, 0);
}

static void test_many(void **state)
{
	struct ranges ranges = { 0 };

	(void)state;
	for (uint64_t i = 1000; i-- > 0;)
		assert_int_equal(ranges_add(&ranges, 3 * i, 2), 0);
	assert_int_equal(ranges.n, 1000);
	ranges_sort(&ranges);
	for (uint64_t i = 0; i < 1000; i++)
		assert_true(ranges.list[i].offset == 3 * i && ranges.list[i].length == 2);
	ranges_clear(&ranges);
}

static void test_sort(void **state)
{
	static const struct range from[] = { { 100, 10 }, { 0, 10 }, { 10, 5 }, { 105, 2 }, { 107, 20 }, { 50, 1 } };
	static const struct range to[] = { { 0, 15 }, { 50, 1 }, { 100, 27 } };
	struct ranges ranges = { 0 };

	(void)state;
	ranges_sort(&ranges);
	assert_int_equal(ranges.n, 0);
	fill(&ranges, from, 6);
	ranges_sort(&ranges);
	expect(&ranges, to, 3);
	ranges_clear(&ranges);
}

static void test_align(void **state)
{
	static const struct range from[] = { { 0, 16 }, { 17, 15 }, { 33, 30 }, { 96, 15 }, { UINT64_MAX - 15, 15 } };
	static const struct range to[] = { { 0, 16 } };
	struct ranges ranges = { 0 };

	(void)state;
	fill(&ranges, from, 5);
	ranges_align(&ranges, 16);
	expect(&ranges, to, 1);
	ranges_clear(&ranges);
	fill(&ranges, from + 2, 1);
	ranges_align(&ranges, 8);
	assert_true(ranges.n == 1 && ranges.list[0].offset == 40 && ranges.list[0].length == 16);
	ranges_clear(&ranges);
}

static void test_common(void **state)
{
	static const struct range one[] = { { 0, 10 }, { 20, 10 }, { 40, 10 }, { 60, 100 } };
	static const struct range other[] = { { 5, 20 }, { 45, 1 }, { 47, 1 }, { 70, 10 }, { 150, 50 } };
	struct ranges a = { 0 }, b = { 0 }, none = { 0 };

	(void)state;
	fill(&a, one, 4);
	fill(&b, other, 5);
	assert_true(ranges_common(&a, &b) == 5 + 5 + 1 + 1 + 10 + 10);
	assert_true(ranges_common(&b, &a) == ranges_common(&a, &b));
	assert_true(ranges_common(&a, &a) == ranges_sum(&a));
	assert_true(ranges_common(&a, &none) == 0);
	ranges_clear(&a);
	ranges_clear(&b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_add),   cmocka_unit_test(test_many),   cmocka_unit_test(test_sort),
		cmocka_unit_test(test_align), cmocka_unit_test(test_common),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
