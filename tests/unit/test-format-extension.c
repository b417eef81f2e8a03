/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* extension.c on byte arrays. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "format/extension.h"
#include "format/ploop1.h"

#define LEN 65536u

static uint8_t cluster[LEN];
static size_t tail;

static void begin(void)
{
	memset(cluster, 0, sizeof(cluster));
	tail = 24;
}

static uint8_t *feature(uint64_t magic, uint64_t flags, uint32_t length)
{
	uint8_t *p = cluster + tail;

	le64_put(p, magic);
	le64_put(p + 8, flags);
	le32_put(p + 16, length);
	tail += 24 + (length + 7) / 8 * 8;
	return p + 24;
}

/* A bitmap of `sectors` at 64 KiB a bit. */
static uint8_t *bitmap(uint64_t sectors, uint32_t entries)
{
	uint8_t *p = feature(EXTENSION_BITMAP, 0, 32 + 8 * entries);

	le64_put(p, sectors);
	memset(p + 8, 0x77, 16);
	le32_put(p + 24, 128);
	le32_put(p + 28, entries);
	return p;
}

static enum extension_verdict judge(void)
{
	extension_seal(cluster, LEN);
	return extension_judge(cluster, LEN);
}

static void test_digest(void **state)
{
	/* The digest of 65512 zero bytes, from another program (md5sum). */
	static const uint8_t zeros[16] = {
		0x0C, 0xEA, 0x49, 0x38, 0x1F, 0x93, 0xE3, 0x3B, 0x72, 0x3F, 0xCB, 0x66, 0xB9, 0xDD, 0x31, 0xBF,
	};

	(void)state;
	begin();
	extension_seal(cluster, LEN);
	assert_memory_equal(cluster, "\x87\xEA\xDC\x23\xEF\x4C\x23\xAB", 8);
	assert_memory_equal(cluster + 8, zeros, 16);
	assert_null(extension_verify(cluster, LEN));
	for (unsigned i = 0; i < LEN; i += i < 64 ? 1 : 4093) {
		cluster[i] ^= 1;
		assert_non_null(extension_verify(cluster, LEN));
		assert_int_equal(extension_judge(cluster, LEN), EXTENSION_DAMAGED);
		cluster[i] ^= 1;
	}
	for (unsigned len = 0; len < 24; len++)
		assert_non_null(extension_verify(cluster, len));
}

static void test_verdicts(void **state)
{
	(void)state;
	begin();
	assert_int_equal(judge(), EXTENSION_EXPENDABLE);
	bitmap(2097152, 1);
	assert_int_equal(judge(), EXTENSION_EXPENDABLE);
	feature(0x1234, 0, 13);
	assert_int_equal(judge(), EXTENSION_EXPENDABLE);
	feature(0x1234, EXTENSION_TRANSIT, 13);
	assert_int_equal(judge(), EXTENSION_IS_TRANSIT);
	feature(0x1234, EXTENSION_TRANSIT | EXTENSION_NECESSARY, 0);
	assert_int_equal(judge(), EXTENSION_IS_NECESSARY);
	begin();
	feature(EXTENSION_BITMAP, EXTENSION_NECESSARY, 40);
	assert_int_equal(judge(), EXTENSION_IS_NECESSARY);
}

static void test_broken_lists(void **state)
{
	struct extension_feature f;
	size_t pos = 0;

	(void)state;
	begin();
	feature(0x55, 0, UINT32_MAX);
	assert_int_equal(judge(), EXTENSION_DAMAGED);
	begin();
	feature(0x55, 0, LEN - 24 - 24 + 1);
	assert_int_equal(judge(), EXTENSION_DAMAGED);
	begin();
	feature(0x55, 0, LEN - 24 - 24); /* fills the cluster: fine */
	assert_int_equal(judge(), EXTENSION_EXPENDABLE);
	begin();
	feature(0x55, 0, LEN - 24 - 24 - 8); /* 8 bytes left: no room for a terminator */
	assert_int_equal(judge(), EXTENSION_DAMAGED);
	begin();
	feature(0, 1, 0); /* a terminator with flags */
	assert_int_equal(judge(), EXTENSION_DAMAGED);
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), -EINVAL);
}

static void test_bitmap(void **state)
{
	struct extension_feature f;
	struct extension_bitmap b;
	size_t pos = 0;
	uint8_t *p;

	(void)state;
	begin();
	p = bitmap(2 * 64 * 1024 * 8 * UINT64_C(128), 2);
	le64_put(p + 32, 1);
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), 1);
	assert_int_equal(f.magic, EXTENSION_BITMAP);
	assert_int_equal(extension_bitmap(&f, LEN, &b), 0);
	assert_int_equal(b.granularity, 65536);
	assert_int_equal(b.clusters, 2);
	assert_int_equal(le64_get(b.table), 1);
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), 0);

	pos = 0;
	extension_next(cluster, LEN, &pos, &f);
	le32_put(p + 28, 3); /* more entries than the disk needs */
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	le32_put(p + 28, 1);
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	le32_put(p + 28, 2);
	le32_put(p + 24, 0);
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	le32_put(p + 24, 100); /* not a power of two */
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	le32_put(p + 24, 128);
	le64_put(p, UINT64_MAX);
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	le64_put(p, 2 * 64 * 1024 * 8 * UINT64_C(128));
	f.length = 47; /* the table is cut */
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
	f.length = 31;
	assert_int_equal(extension_bitmap(&f, LEN, &b), -EINVAL);
}

static void test_place_and_settle(void **state)
{
	const struct format_params params = { .version = 2, .size = 64 * LEN, .cluster = LEN };
	struct geometry g;

	(void)state;
	assert_int_equal(format_ploop1.plan(&params, &g, NULL), 0);
	g.extension = 2 * LEN;
	assert_true(extension_placed(&g, 3 * LEN));
	assert_false(extension_placed(&g, 3 * LEN - 1));
	g.extension = 0;
	assert_false(extension_placed(&g, 3 * LEN));
	g.extension = 2 * LEN + 512;
	assert_false(extension_placed(&g, 9 * LEN));
	g.extension = UINT64_MAX;
	assert_false(extension_placed(&g, UINT64_MAX));

	for (int verdict = EXTENSION_IS_NECESSARY; verdict <= EXTENSION_DAMAGED; verdict++) {
		g.extension = 2 * LEN;
		extension_settle(&g, (enum extension_verdict)verdict);
		assert_true(g.read_only);
		assert_non_null(g.reason);
		assert_int_equal(g.extension, 2 * LEN);
	}
	extension_settle(&g, EXTENSION_EXPENDABLE);
	assert_false(g.read_only);
	assert_null(g.reason);
	assert_int_equal(g.extension, 2 * LEN);
	g.cluster = 63 * 512; /* another reason stays */
	g.extension = 2 * LEN;
	extension_settle(&g, EXTENSION_EXPENDABLE);
	assert_true(g.read_only);
}

/* Before the first write: other features go, bitmaps stay and say that all changed. */
static void test_spend(void **state)
{
	const uint64_t size = 2 * 64 * 1024 * 8 * UINT64_C(128);
	struct extension_feature f;
	struct extension_bitmap b;
	struct geometry g = { .size = 512 * size, .cluster = LEN, .extension = 2 * LEN };
	size_t pos = 0;

	(void)state;
	begin();
	feature(0x77, 0, 13);
	le64_put(bitmap(size, 2) + 32, 12345);
	feature(0x78, 0, 100);
	le64_put(bitmap(size, 2) + 32, 777);
	bitmap(size / 2, 1); /* for a disk of another size: worth nothing */
	assert_int_equal(judge(), EXTENSION_EXPENDABLE);
	assert_true(extension_spend(&g, cluster));
	assert_int_equal(g.extension, 2 * LEN);
	assert_null(extension_verify(cluster, LEN));
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), 1);
	assert_int_equal(extension_bitmap(&f, LEN, &b), 0);
	assert_int_equal(b.size / 512, size);
	assert_int_equal(le64_get(b.table), 1);
	assert_int_equal(le64_get(b.table + 8), 1);
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), 1);
	assert_int_equal(extension_bitmap(&f, LEN, &b), 0);
	assert_int_equal(b.size / 512, size);
	assert_int_equal(le64_get(b.table), 1);
	assert_int_equal(extension_next(cluster, LEN, &pos, &f), 0);

	begin();
	feature(0x77, 0, 13);
	assert_false(extension_spend(&g, cluster));
	assert_int_equal(g.extension, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_digest),		 cmocka_unit_test(test_verdicts),
		cmocka_unit_test(test_broken_lists),	 cmocka_unit_test(test_bitmap),
		cmocka_unit_test(test_place_and_settle), cmocka_unit_test(test_spend),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
