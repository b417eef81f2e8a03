/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* alloc.h: what may be handed out when, and what must be punched first. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "device/alloc.h"

static void test_lowest_first(void **state)
{
	struct alloc alloc;
	uint32_t at;

	(void)state;
	assert_int_equal(alloc_init(&alloc, 1, 10, 100), 0);
	assert_true(alloc_claim(&alloc, 1));
	assert_true(alloc_claim(&alloc, 4));
	assert_false(alloc_claim(&alloc, 4));
	assert_int_equal(alloc_end(&alloc), 5);
	assert_int_equal(alloc_take(&alloc, 8, &at), 2); /* the hole between them */
	assert_int_equal(at, 2);
	assert_int_equal(alloc_take(&alloc, 8, &at), 8);
	assert_int_equal(at, 5);
	assert_int_equal(alloc_end(&alloc), 13);
	alloc_fini(&alloc);
}

static void test_full(void **state)
{
	struct alloc alloc;
	uint32_t at;

	(void)state;
	assert_int_equal(alloc_init(&alloc, 1, 1, 4), 0);
	assert_int_equal(alloc_take(&alloc, 9, &at), 3);
	assert_int_equal(alloc_take(&alloc, 1, &at), 0);
	alloc_fini(&alloc);
}

static void test_freed_waits_for_commit(void **state)
{
	struct alloc alloc;
	uint32_t at;

	(void)state;
	assert_int_equal(alloc_init(&alloc, 1, 1, 100), 0);
	assert_int_equal(alloc_take(&alloc, 2, &at), 2);
	alloc_free(&alloc, 1, true);
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 3);
	alloc_commit_start(&alloc);
	alloc_free(&alloc, 2, true); /* came after the start: not this commit's */
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 4);
	alloc_commit_done(&alloc);
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 1);
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 5);
	alloc_commit_start(&alloc);
	alloc_commit_done(&alloc);
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 2);
	alloc_fini(&alloc);
}

static void test_stale(void **state)
{
	struct alloc alloc;
	uint32_t at;

	(void)state;
	assert_int_equal(alloc_init(&alloc, 1, 3, 100), 0);
	assert_true(alloc_stale(&alloc, 1, 1)); /* inside the file as it was: anything may be there */
	assert_false(alloc_stale(&alloc, 3, 5));
	assert_true(alloc_stale(&alloc, 2, 2));
	alloc_cleaned(&alloc, 1, 2);
	assert_false(alloc_stale(&alloc, 1, 9));
	assert_int_equal(alloc_take(&alloc, 6, &at), 6);
	alloc_untake(&alloc, 5, 1); /* a write that failed may have left something */
	assert_true(alloc_stale(&alloc, 5, 1));
	assert_int_equal(alloc_take(&alloc, 1, &at), 1);
	assert_int_equal(at, 5);
	alloc_free(&alloc, 6, false); /* could not be punched */
	assert_true(alloc_stale(&alloc, 6, 1));
	assert_false(alloc_stale(&alloc, 7, 9)); /* never written */
	alloc_fini(&alloc);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lowest_first),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_freed_waits_for_commit),
		cmocka_unit_test(test_stale),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
