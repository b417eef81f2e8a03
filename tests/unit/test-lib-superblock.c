/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Superblocks from strangers: what is none, what lies beyond the disk, and numbers that do not fit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "base/prng.h"
#include "lib/superblock.h"

#define DISK (256u * 1024)
static uint8_t disk[DISK];

static int read_disk(void *data, void *buffer, size_t len, uint64_t offset)
{
	(void)data;
	assert_true(offset <= DISK && len <= DISK - offset);
	memcpy(buffer, disk + offset, len);
	return 0;
}

static int look(struct ploop_fs *ret)
{
	const struct superblock_source source = { .read = read_disk, .size = DISK };

	memset(ret, 0, sizeof(*ret));
	return superblock_read(&source, ret);
}

/* An ext4 of 4 KiB blocks, 64 bits wide. */
static void put_ext4(uint32_t at)
{
	uint8_t *sb = disk + at + 1024;

	le32_put(sb + 0, 1000);   /* inodes */
	le32_put(sb + 4, 50000);  /* blocks */
	le32_put(sb + 12, 30000); /* free */
	le32_put(sb + 16, 900);   /* inodes free */
	le32_put(sb + 24, 2);     /* 4 KiB */
	le32_put(sb + 28, 2);     /* clusters of as much */
	sb[56] = 0x53;
	sb[57] = 0xef;
	le32_put(sb + 96, 0x80 | 0x40); /* 64 bits, extents */
	le32_put(sb + 336, 1);          /* 2^32 blocks more */
	le32_put(sb + 584, 100);        /* overhead */
}

static void put_gpt(uint32_t lba, uint64_t entries, uint64_t first)
{
	memcpy(disk + lba, "EFI PART", 8);
	le64_put(disk + lba + 72, entries);
	le32_put(disk + lba + 84, 128);
	if (entries < DISK / lba)
		le64_put(disk + entries * lba + 32, first);
}

static void test_ext4(void **state)
{
	struct ploop_fs fs;

	(void)state;
	for (unsigned large = 0; large < 3; large++) {
		uint32_t lba = large == 2 ? 4096 : 512;

		memset(disk, 0, DISK);
		put_ext4(large ? 65536 : 0);
		if (large)
			put_gpt(lba, 2, 65536 / lba);
		assert_int_equal(look(&fs), 0);
		assert_string_equal(fs.type, "ext4");
		assert_int_equal(fs.block, 4096);
		assert_int_equal(fs.blocks, (UINT64_C(1) << 32) + 50000 - 100);
		assert_int_equal(fs.blocks_free, 30000);
		assert_int_equal(fs.inodes, 1000);
		assert_int_equal(fs.inodes_free, 900);
		assert_false(fs.approximate);
	}
	le32_put(disk + 65536 + 1024 + 96, 0x80 | 0x40 | 0x4); /* the journal is not empty */
	assert_int_equal(look(&fs), 0);
	assert_true(fs.approximate);
}

static void test_nothing(void **state)
{
	static const struct {
		uint64_t entries, first;
	} bad[] = {
		{ 2, 0 },
		{ 2, UINT64_MAX },
		{ 2, UINT64_MAX / 512 },
		{ 2, DISK / 512 },
		{ 2, DISK / 512 - 7 },
		{ UINT64_MAX, 8 },
		{ UINT64_MAX / 512, 8 },
		{ DISK / 512, 8 },
	};
	struct ploop_fs fs;

	(void)state;
	memset(disk, 0, DISK);
	assert_int_equal(look(&fs), -ENODATA);
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		memset(disk, 0, DISK);
		put_ext4(0); /* beneath a partition table it does not count */
		put_gpt(512, bad[i].entries, bad[i].first);
		assert_int_equal(look(&fs), -ENODATA);
	}
}

/* Whatever stands there: no number that makes others nonsense, and no read beyond the disk. */
static void test_noise(void **state)
{
	struct prng prng;
	struct ploop_fs fs;
	unsigned found = 0;

	(void)state;
	prng_seed(&prng, 1);
	for (unsigned round = 0; round < 20000; round++) {
		memset(disk, 0, 65536);
		put_ext4(0);
		if (round % 2) {
			memset(disk + 1024, 0, 1024);
			memcpy(disk, "XFSB\0\0\20\0", 8);
			for (unsigned i = 8; i < 152; i++)
				disk[i] = round % 4 == 1 ? (uint8_t)prng_next(&prng) : 0;
		}
		for (unsigned i = 0; i < 8; i++)
			disk[(round % 2 ? 0 : 1024) + prng_next(&prng) % 600] = (uint8_t)prng_next(&prng);
		if (look(&fs) < 0)
			continue;
		found++;
		assert_non_null(fs.type);
		assert_true(fs.block >= 512 && fs.block <= 65536);
		assert_true(fs.blocks_free <= fs.blocks && fs.inodes_free <= fs.inodes);
	}
	assert_true(found > 1000);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ext4),
		cmocka_unit_test(test_nothing),
		cmocka_unit_test(test_noise),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
