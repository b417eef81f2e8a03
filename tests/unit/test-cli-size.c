/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* size.c and arg.c: the grammar of the original tool, accepted and refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include "cli/arg.h"
#include "cli/size.h"

static void test_good(void **state)
{
	static const struct {
		const char *text;
		unsigned unit;
		uint64_t bytes;
	} cases[] = {
		{ "0", 512, 0 },
		{ "2048", 512, 1 << 20 },
		{ "0x800", 512, 1 << 20 },
		{ "010", 512, 8 * 512 },
		{ " 8", 512, 8 * 512 },
		{ "+8", 512, 8 * 512 },
		{ "1k", 512, 1024 },
		{ "1K", 512, 1024 },
		{ "10m", 512, 10 << 20 },
		{ "3G", 512, 3ull << 30 },
		{ "1023t", 512, 1023ull << 40 },
		{ "0x10k", 512, 16 << 10 },
		{ "4096", 1, 4096 },
		{ "4k", 1, 4096 },
		{ "2199023255039", 512, 2199023255039ull * 512 },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		uint64_t bytes = 0;

		assert_int_equal(size_parse(cases[i].text, "-s", cases[i].unit, &bytes, NULL), 0);
		assert_int_equal(bytes, cases[i].bytes);
	}
}

static void test_bad(void **state)
{
	static const struct {
		const char *text, *message;
	} cases[] = {
		{ "", "ERROR: Invalid argument for option -s: " },
		{ "x", "ERROR: Invalid argument for option -s: x" },
		{ "1.5g", "ERROR: Invalid argument for option -s: 1.5g" },
		{ "1kb", "ERROR: Invalid argument for option -s: 1kb" },
		{ "1Ki", "ERROR: Invalid argument for option -s: 1Ki" },
		{ "1p", "ERROR: Invalid argument for option -s: 1p" },
		{ "1 k", "ERROR: Invalid argument for option -s: 1 k" },
		{ "-1", "ERROR: Too large value for option -s: -1" },
		{ "2199023255040", "ERROR: Too large value for option -s: 2199023255040" },
		{ "1024t", "ERROR: Too large value for option -s: 1024t" },
		{ "99999999999999999999", "ERROR: Too large value for option -s: 99999999999999999999" },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ploop_error err = { 0 };
		uint64_t bytes = 77;

		assert_true(size_parse(cases[i].text, "-s", 512, &bytes, &err) < 0);
		assert_int_equal(bytes, 77);
		assert_int_equal(err.status, PLOOP_EXIT_PARAM);
		assert_string_equal(err.text, cases[i].message);
	}
}

static void test_format(void **state)
{
	char text[SIZE_TEXT];

	(void)state;
	assert_string_equal(size_format(0, text), "0 B");
	assert_string_equal(size_format(1023, text), "1023 B");
	assert_string_equal(size_format(1024, text), "1 KiB");
	assert_string_equal(size_format(3 << 19, text), "1.5 MiB");
	assert_string_equal(size_format(UINT64_MAX, text), "16.0 EiB");
}

static void test_uuid(void **state)
{
	static const char plain[] = "5FBAABE3-6958-40ff-92a7-860e329aab41",
			  full[] = "{5FBAABE3-6958-40ff-92a7-860e329aab41}";
	static const char *const bad[] = { "",
					   "{}",
					   "5fbaabe3",
					   "{5fbaabe3-6958-40ff-92a7-860e329aab41",
					   "5fbaabe3-6958-40ff-92a7-860e329aab4g",
					   "5fbaabe3x6958-40ff-92a7-860e329aab41",
					   "[5fbaabe3-6958-40ff-92a7-860e329aab41]" };
	char uuid[ARG_UUID];
	struct ploop_error err;

	(void)state;
	assert_int_equal(arg_uuid(plain, uuid, &err), 0);
	assert_string_equal(uuid, full);
	assert_int_equal(arg_uuid(full, uuid, &err), 0);
	assert_string_equal(uuid, full);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		assert_true(arg_uuid(bad[i], uuid, &err) < 0);
		assert_int_equal(err.status, PLOOP_EXIT_PARAM);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),
		cmocka_unit_test(test_bad),
		cmocka_unit_test(test_format),
		cmocka_unit_test(test_uuid),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
