/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk.c and map.c: a raw disk read in process, at any offset and length, and refused beyond its end. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#define CLUSTER 32768u
#define SIZE (100 * CLUSTER + 512) /* half a last cluster */

static char path[] = "/var/tmp/ploop-test-disk-XXXXXX";
static uint8_t *want;

static int make_disk(void **state)
{
	int fd = mkstemp(path);

	(void)state;
	want = malloc(SIZE);
	if (fd < 0 || !want)
		return -1;
	for (uint32_t i = 0; i < SIZE; i++)
		want[i] = (uint8_t)(i * 2654435761u >> 24);
	if (write(fd, want, SIZE) != SIZE)
		return -1;
	return close(fd);
}

static int remove_disk(void **state)
{
	(void)state;
	free(want);
	return unlink(path);
}

static struct ploop_disk *open_disk(void)
{
	const char *const paths[] = { path };
	const struct ploop_files files = { .paths = paths, .npaths = 1, .format = "raw", .cluster = CLUSTER };
	struct ploop_error err = { 0 };
	struct ploop_disk *disk = NULL;

	if (ploop_disk_open(&files, &disk, &err) < 0)
		fail_msg("%s", err.text);
	return disk;
}

static void test_read(void **state)
{
	static const struct {
		uint64_t offset;
		size_t length;
	} cases[] = {
		{ 0, 0 },
		{ 0, 1 },
		{ 0, 512 },
		{ 1, 1 },
		{ 511, 2 },
		{ 512, 512 },
		{ 1000, 100000 },
		{ CLUSTER - 1, 2 },
		{ 0, SIZE },
		{ 3, SIZE - 5 },
		{ SIZE - 1, 1 },
		{ SIZE, 0 },
		{ (1 << 20) - 7, 20 },
		{ 99, 1 << 20 },
		{ SIZE - 513, 513 },
	};
	struct ploop_disk *disk = open_disk();
	uint8_t *got = malloc(SIZE + 2);

	(void)state;
	assert_int_equal(ploop_disk_size(disk), SIZE);
	assert_int_equal(ploop_disk_cluster(disk), CLUSTER);
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		memset(got, 0x77, SIZE + 2);
		assert_int_equal(ploop_disk_read(disk, got + 1, cases[i].length, cases[i].offset, NULL), 0);
		assert_memory_equal(got + 1, want + cases[i].offset, cases[i].length);
		assert_int_equal(got[0], 0x77);
		assert_int_equal(got[cases[i].length + 1], 0x77);
	}
	free(got);
	ploop_disk_close(disk);
}

static void test_beyond(void **state)
{
	struct ploop_disk *disk = open_disk();
	struct ploop_error err;
	uint8_t byte;

	(void)state;
	assert_int_equal(ploop_disk_read(disk, &byte, 1, SIZE, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_PARAM);
	assert_int_equal(ploop_disk_read(disk, &byte, 2, SIZE - 1, &err), -EINVAL);
	assert_int_equal(ploop_disk_read(disk, &byte, 1, UINT64_MAX, &err), -EINVAL);
	ploop_disk_close(disk);
	ploop_disk_close(NULL);
}

static void test_extents(void **state)
{
	struct ploop_disk *disk = open_disk();
	struct ploop_extent extent;
	struct ploop_level level;

	(void)state;
	assert_true(ploop_disk_extent(disk, 0, &extent));
	assert_true(extent.mapped);
	assert_int_equal(extent.level, 0);
	assert_int_equal(extent.offset, 0);
	assert_int_equal(extent.length, SIZE);
	assert_int_equal(extent.file_offset, 0);
	assert_true(ploop_disk_extent(disk, 3 * CLUSTER + 7, &extent));
	assert_int_equal(extent.offset, 3 * CLUSTER);
	assert_int_equal(extent.file_offset, 3 * CLUSTER);
	assert_false(ploop_disk_extent(disk, SIZE, &extent));
	assert_int_equal(ploop_disk_levels(disk), 1);
	assert_int_equal(ploop_disk_level(disk, 0, &level, NULL), 0);
	assert_string_equal(level.format, "raw");
	assert_int_equal(level.length, SIZE);
	assert_int_equal(ploop_disk_level(disk, 1, &level, NULL), -EINVAL);
	ploop_disk_close(disk);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),
		cmocka_unit_test(test_beyond),
		cmocka_unit_test(test_extents),
	};

	return cmocka_run_group_tests(tests, make_disk, remove_disk);
}
