/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partial.c on byte arrays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "base/prng.h"
#include "format/partial.h"

#define CLUSTER (1u << 20)
#define FILE_SIZE (UINT64_C(64) * CLUSTER)

static const struct geometry g = {
	.version = 2, .size = UINT64_C(1) << 30, .cluster = CLUSTER, .clusters = 1024, .first = 1, .index = 64,
	.extension = UINT64_C(5) * CLUSTER,
};

static void test_units(void **state)
{
	(void)state;
	assert_int_equal(partial_unit(32768), 4096);
	assert_int_equal(partial_unit(CLUSTER), 4096);
	assert_int_equal(partial_unit(64u << 20), 256u << 10);
	assert_int_equal(partial_max_pages(32768), 4);
	assert_int_equal(partial_max_pages(CLUSTER), 128);
	assert_int_equal(partial_max_pages(32767), 0);
	assert_int_equal(partial_max_pages(0), 0);
}

static void draw(struct prng *prng, struct partial_record records[PARTIAL_RECORDS])
{
	memset(records, 0, PARTIAL_RECORDS * sizeof(*records));
	for (unsigned i = 0; i < PARTIAL_RECORDS; i++) {
		if (prng_one_in(prng, 3))
			continue;
		records[i].v = (uint32_t)prng_next(prng);
		records[i].entry = (uint32_t)prng_next(prng) | 1;
		for (unsigned w = 0; w < 4; w++)
			records[i].valid[w] = prng_next(prng);
	}
}

static void test_pages(void **state)
{
	static struct partial_record in[PARTIAL_RECORDS], out[PARTIAL_RECORDS];
	uint8_t page[FORMAT_PAGE] = { 0 };
	struct prng prng;
	uint64_t sequence = 7;

	(void)state;
	prng_seed(&prng, 1);
	assert_true(partial_page_get(page, &sequence, out));
	assert_int_equal(sequence, 0);
	assert_int_equal(out[0].entry, 0);
	for (unsigned i = 0; i < 50; i++) {
		uint64_t number = prng_next(&prng);

		draw(&prng, in);
		partial_page_put(page, number, in);
		assert_true(partial_page_get(page, &sequence, out));
		assert_true(sequence == number);
		assert_memory_equal(in, out, sizeof(in));
	}
}

/* Whatever a crash leaves of a page is the page, or is found out. */
static void test_torn_pages(void **state)
{
	static struct partial_record old[PARTIAL_RECORDS], new[PARTIAL_RECORDS], out[PARTIAL_RECORDS];
	uint8_t before[FORMAT_PAGE], after[FORMAT_PAGE], page[FORMAT_PAGE];
	struct prng prng;
	uint64_t sequence;

	(void)state;
	prng_seed(&prng, 2);
	draw(&prng, old);
	draw(&prng, new);
	partial_page_put(before, 4, old);
	partial_page_put(after, 6, new);
	for (unsigned which = 1; which < 255; which++) {
		memcpy(page, before, sizeof(page));
		for (unsigned s = 0; s < 8; s++)
			if (which >> s & 1)
				memcpy(page + s * SECTOR, after + s * SECTOR, SECTOR);
		/* The last sector may hold nothing in both. */
		if (memcmp(page, before, sizeof(page)) && memcmp(page, after, sizeof(page)))
			assert_false(partial_page_get(page, &sequence, out));
	}
	for (unsigned i = 0; i < FORMAT_PAGE; i++) {
		memcpy(page, after, sizeof(page));
		page[i] ^= (uint8_t)(1 + prng_below(&prng, 255));
		assert_false(partial_page_get(page, &sequence, out));
	}
}

static void test_records(void **state)
{
	struct partial_record record = { .valid = { 0xff, 0, 0, 0 } };

	(void)state;
	assert_true(partial_record_fits(&record, 8));
	assert_false(partial_record_fits(&record, 7));
	record.valid[3] = UINT64_C(1) << 63;
	assert_false(partial_record_fits(&record, 255));
	assert_true(partial_record_fits(&record, 256));
}

/* An extension that holds the feature with these numbers. */
static int find(uint64_t sector, uint32_t unit, uint32_t pages, uint32_t length, struct partial_table *ret)
{
	uint8_t *cluster = calloc(1, CLUSTER), data[64] = { 0 };
	const struct extension_feature feature = { EXTENSION_PARTIAL, EXTENSION_NECESSARY, data, length };
	int r;

	le64_put(data, sector);
	le32_put(data + 8, unit);
	le32_put(data + 12, pages);
	assert_true(extension_add(cluster, CLUSTER, &feature));
	extension_seal(cluster, CLUSTER);
	assert_int_equal(extension_judge(cluster, CLUSTER), EXTENSION_IS_PARTIAL);
	r = partial_feature_find(cluster, &g, FILE_SIZE, ret);
	free(cluster);
	return r;
}

static void test_feature(void **state)
{
	struct partial_table table = { 0 }, in = { .offset = UINT64_C(9) * CLUSTER, .unit = 4096, .pages = 41 };
	uint8_t data[PARTIAL_FEATURE];

	(void)state;
	partial_feature_put(&in, data);
	assert_int_equal(find(le64_get(data), le32_get(data + 8), le32_get(data + 12), PARTIAL_FEATURE, &table), 1);
	assert_int_equal(table.offset, in.offset);
	assert_int_equal(table.pages, 41);
	assert_int_equal(partial_page_offset(&table, 3, 1), in.offset + 7 * 4096);
	/* No length, unit, number of pages or place is taken that does not fit. */
	assert_int_equal(find(2048 * 9, 4096, 41, PARTIAL_FEATURE - 1, &table), -EINVAL);
	assert_int_equal(find(2048 * 9, 4096, 41, PARTIAL_FEATURE + 8, &table), -EINVAL);
	assert_int_equal(find(2048 * 9, 8192, 41, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(2048 * 9, 4096, 0, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(2048 * 9, 4096, 129, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(2048 * 9 + 1, 4096, 41, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(0, 4096, 41, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(2048 * 5, 4096, 41, PARTIAL_FEATURE, &table), -EINVAL); /* the extension itself */
	assert_int_equal(find(2048 * 64, 4096, 41, PARTIAL_FEATURE, &table), -EINVAL);
	assert_int_equal(find(UINT64_MAX, 4096, 41, PARTIAL_FEATURE, &table), -EINVAL);
}

static void test_extension(void **state)
{
	uint8_t *cluster = calloc(1, CLUSTER), data[PARTIAL_FEATURE] = { 0 };
	const struct extension_feature other = { 0x1234, EXTENSION_TRANSIT, data, 13 };
	const struct extension_feature partial = { EXTENSION_PARTIAL, EXTENSION_NECESSARY, data, sizeof(data) };
	const struct extension_feature large = { 0x77, 0, cluster, CLUSTER - 24 };
	struct geometry copy = g;
	struct partial_table table;

	(void)state;
	extension_seal(cluster, CLUSTER);
	assert_int_equal(partial_feature_find(cluster, &g, FILE_SIZE, &table), 0);
	assert_false(extension_add(cluster, CLUSTER, &large));
	/* What others want kept is stronger than what we know. */
	assert_true(extension_add(cluster, CLUSTER, &other));
	assert_true(extension_add(cluster, CLUSTER, &partial));
	extension_seal(cluster, CLUSTER);
	assert_int_equal(extension_judge(cluster, CLUSTER), EXTENSION_IS_TRANSIT);
	extension_settle(&copy, EXTENSION_IS_TRANSIT);
	assert_true(copy.read_only && !copy.partial);
	extension_settle(&copy, EXTENSION_IS_PARTIAL);
	assert_true(!copy.read_only && copy.partial);
	free(cluster);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_units),   cmocka_unit_test(test_pages),
		cmocka_unit_test(test_torn_pages),  cmocka_unit_test(test_records), cmocka_unit_test(test_feature),
		cmocka_unit_test(test_extension),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
