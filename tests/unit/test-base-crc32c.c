/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.h: the published values, and both ways alike at every length and alignment. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <string.h>

#include "base/crc32c.h"

static void test_published(void **state)
{
	unsigned char block[32] = { 0 };

	(void)state;
	assert_int_equal(crc32c(0, "123456789", 9), 0xe3069283u);
	assert_int_equal(crc32c(0, block, sizeof(block)), 0x8a9136aau); /* RFC 3720, B.4 */
	memset(block, 0xff, sizeof(block));
	assert_int_equal(crc32c(0, block, sizeof(block)), 0x62a8ab43u);
	for (unsigned i = 0; i < sizeof(block); i++)
		block[i] = (unsigned char)i;
	assert_int_equal(crc32c(0, block, sizeof(block)), 0x46dd794eu);
	assert_int_equal(crc32c(0, NULL, 0), 0);
}

static void test_both_ways(void **state)
{
	unsigned char block[100];

	(void)state;
	for (unsigned i = 0; i < sizeof(block); i++)
		block[i] = (unsigned char)(i * 37 + 11);
	for (unsigned start = 0; start < 9; start++) {
		for (unsigned len = 0; start + len <= sizeof(block); len++) {
			uint32_t whole = crc32c(7, block + start, len), part = crc32c(7, block + start, len / 3);

			assert_int_equal(whole, crc32c_by_tables(7, block + start, len));
			assert_int_equal(whole, crc32c(part, block + start + len / 3, len - len / 3));
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_published),
		cmocka_unit_test(test_both_ways),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
