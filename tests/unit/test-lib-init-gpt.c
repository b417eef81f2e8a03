/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-gpt.h: where the partition lies, and both copies of the table on the disk. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/le.h"
#include "lib/init-gpt.h"

#define SECTOR 512u

static void test_plan(void **state)
{
	static const struct {
		uint64_t disk, start, end; /* sectors */
		uint32_t cluster;
	} cases[] = {
		{ 2097152, 2048, 2095104, 2048 },           /* 1 GiB, 1 MiB clusters */
		{ 125000, 64, 124928, 64 },                 /* not whole clusters: the rest joins the last */
		{ 192, 64, 128, 64 },                       /* the smallest: one cluster */
		{ 393216, 131072, 262144, 131072 },         /* 64 MiB clusters */
		{ 137438953472, 2048, 137438951424, 2048 }, /* 64 TiB */
	};
	struct partition partition;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		assert_int_equal(gpt_plan(cases[i].disk * SECTOR, cases[i].cluster * SECTOR, &partition, NULL), 0);
		assert_int_equal(partition.start, cases[i].start * SECTOR);
		assert_int_equal(partition.start + partition.size, cases[i].end * SECTOR);
	}
}

static void test_too_small(void **state)
{
	struct partition partition;
	struct ploop_error err;

	(void)state;
	assert_int_equal(gpt_plan(2 * 32768, 32768, &partition, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_PARAM);
	assert_int_equal(strncmp(err.text, "Image size should be greater than 128 ", 38), 0);
}

static void check_header(int fd, uint64_t at, uint64_t other, uint64_t entries)
{
	uint8_t header[SECTOR];

	assert_int_equal(pread(fd, header, SECTOR, (off_t)(at * SECTOR)), SECTOR);
	assert_memory_equal(header, "EFI PART\0\0\1\0", 12);
	assert_int_equal(le64_get(header + 24), at);
	assert_int_equal(le64_get(header + 32), other);
	assert_int_equal(le64_get(header + 72), entries);
}

static void check_entry(int fd, uint64_t at, uint64_t first, uint64_t last)
{
	/* Linux filesystem data, mixed-endian as GPT has it. */
	static const uint8_t type[16] = { 0xaf, 0x3d, 0xc6, 0x0f, 0x83, 0x84, 0x72, 0x47,
					  0x8e, 0x79, 0x3d, 0x69, 0xd8, 0x47, 0x7d, 0xe4 };
	uint8_t entry[256];

	assert_int_equal(pread(fd, entry, sizeof(entry), (off_t)(at * SECTOR)), sizeof(entry));
	assert_memory_equal(entry, type, sizeof(type));
	assert_int_equal(le64_get(entry + 32), first);
	assert_int_equal(le64_get(entry + 40), last);
	for (size_t i = 128; i < 256; i++)
		assert_int_equal(entry[i], 0);
}

static void write_and_check(uint64_t sectors, uint32_t cluster)
{
	_close_ int fd = memfd_create("disk", MFD_CLOEXEC);
	struct partition partition;
	uint8_t mbr[SECTOR];
	uint64_t first, last;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)(sectors * SECTOR)), 0);
	assert_int_equal(gpt_plan(sectors * SECTOR, cluster * SECTOR, &partition, NULL), 0);
	assert_int_equal(gpt_write(fd, "disk", &partition, NULL), 0);
	first = partition.start / SECTOR;
	last = first + partition.size / SECTOR - 1;
	assert_int_equal(pread(fd, mbr, SECTOR, 0), SECTOR);
	assert_int_equal(mbr[450], 0xee);
	assert_int_equal(le32_get(mbr + 454), 1);
	assert_memory_equal(mbr + 510, "\x55\xaa", 2);
	check_header(fd, 1, sectors - 1, 2);
	check_header(fd, sectors - 1, 1, sectors - 33);
	check_entry(fd, 2, first, last);
	check_entry(fd, sectors - 33, first, last);
}

static void test_write(void **state)
{
	(void)state;
	write_and_check(2097152, 2048);
	write_and_check(192, 64);
	write_and_check(125000, 64);
	write_and_check(137438953472, 2048);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_too_small),
		cmocka_unit_test(test_write),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
