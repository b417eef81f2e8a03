/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* The spelling of GUIDs: braces and case. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "image/guid.h"

static void test_parse(void **state)
{
	static const char *const good[] = {
		GUID_TOP,
		"5fbaabe3-6958-40ff-92a7-860e329aab41",
		"{5FBAABE3-6958-40FF-92A7-860E329AAB41}",
		" \n{5fbaabe3-6958-40ff-92a7-860e329aab41}\t",
	};
	static const char *const bad[] = {
		"",
		"{",
		"base",
		"{5fbaabe3-6958-40ff-92a7-860e329aab41",
		"5fbaabe3-6958-40ff-92a7-860e329aab41}",
		"{5fbaabe3-6958-40ff-92a7-860e329aab4}",
		"{5fbaabe3-6958-40ff-92a7-860e329aab411}",
		"{5fbaabe3-6958-40ff-92a7-860e329aab4g}",
		"{5fbaabe3+6958-40ff-92a7-860e329aab41}",
		"{5fbaabe3-6958-40ff-92a7-860e329aab41} x",
		"{{5fbaabe3-6958-40ff-92a7-860e329aab41}}",
		"5fbaabe3695840ff92a7860e329aab41",
	};
	struct guid guid;

	(void)state;
	for (unsigned i = 0; i < sizeof(good) / sizeof(*good); i++) {
		assert_true(guid_parse(good[i], &guid));
		assert_true(guid_is_top(&guid));
		assert_false(guid_is_none(&guid));
	}
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++)
		assert_false(guid_parse(bad[i], &guid));
}

static void test_equal(void **state)
{
	struct guid lower, upper, other, again;

	(void)state;
	assert_true(guid_parse("{abcdef01-0000-4000-8000-00000000000a}", &lower));
	assert_true(guid_parse("{ABCDEF01-0000-4000-8000-00000000000A}", &upper));
	assert_true(guid_equal(&lower, &upper));
	assert_int_equal(guid_hash(&lower), guid_hash(&upper));
	guid_generate(&other);
	guid_generate(&again);
	assert_false(guid_equal(&other, &again));
	assert_true(guid_parse(other.text, &again));
	assert_true(guid_equal(&other, &again));
	assert_int_equal(other.text[15], '4');
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_equal),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
