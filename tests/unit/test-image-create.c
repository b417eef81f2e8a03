/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* New images, byte by byte, and that a failure leaves none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/fd.h"
#include "base/le.h"
#include "image/create.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "io/loop.h"

#define MIB (1024u * 1024)

static char folder[64];
static struct dir *dir;
static struct loop *loop;
static struct ploop_error error;

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/var/tmp/ploop-test-create-XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(loop_new(NULL, 16, &loop, NULL), 0);
	return dir_open(NULL, folder, &dir, NULL);
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	dir_close(dir);
	loop_free(loop);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static int create(const char *name, const struct image_params *params, struct stat *st, uint8_t *bytes, size_t len)
{
	char *path = dir_path(dir, name);
	int r, fd;

	memset(&error, 0, sizeof(error));
	r = image_create(loop, dir, name, params, &error);
	if (r < 0) {
		free(path);
		return r;
	}
	fd = open(path, O_RDONLY);
	assert_int_equal(fstat(fd, st), 0);
	assert_true(fd_pread(fd, bytes, len, 0) >= 0);
	close(fd);
	free(path);
	return 0;
}

static void test_expanded(void **state)
{
	struct image_params params = { .size = 1024ull * MIB, .cluster = MIB, .version = 2 };
	uint8_t bytes[8192];
	struct stat st;

	(void)state;
	assert_int_equal(create("a", &params, &st, bytes, sizeof(bytes)), 0);
	assert_int_equal(st.st_size, MIB);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_true(st.st_blocks * 512 <= 65536);
	assert_memory_equal(bytes, "WithouFreSpacExt", 16);
	assert_int_equal(le32_get(bytes + 16), 2);
	assert_int_equal(le32_get(bytes + 20), 16);
	assert_int_equal(le32_get(bytes + 24), 2080);
	assert_int_equal(le32_get(bytes + 28), 2048);
	assert_int_equal(le32_get(bytes + 32), 1024);
	assert_int_equal(le64_get(bytes + 36), 2097152);
	assert_int_equal(le32_get(bytes + 44), 0);
	assert_int_equal(le32_get(bytes + 48), 2048);
	assert_int_equal(le32_get(bytes + 52), 1);
	assert_int_equal(le64_get(bytes + 56), 0);
	for (unsigned i = 64; i < sizeof(bytes); i++)
		assert_int_equal(bytes[i], 0);
	assert_int_equal(create("a", &params, &st, bytes, 1), -EEXIST);
	assert_int_equal(error.status, PLOOP_EXIT_PARAM);
	assert_non_null(strstr(error.text, "/a: File exists"));
	assert_true(dir_exists(dir, "a"));
	/* 1 TiB in clusters of 32 KiB: an index of 128 MiB, and no time for it. */
	params.size = 1024ull * 1024 * MIB;
	params.cluster = 32768;
	assert_int_equal(create("b", &params, &st, bytes, 1), 0);
	assert_int_equal(st.st_size, 128 * MIB + 32768);
	assert_true(st.st_blocks * 512 <= 65536);
}

static void test_preallocated(void **state)
{
	struct image_params params = { .mode = IMAGE_PREALLOCATED, .size = 20 * MIB, .cluster = MIB, .version = 1 };
	uint8_t bytes[4096];
	struct stat st;

	(void)state;
	for (params.version = 1; params.version <= 2; params.version++) {
		const char *name = params.version == 1 ? "1" : "2";

		assert_int_equal(create(name, &params, &st, bytes, sizeof(bytes)), 0);
		assert_int_equal(st.st_size, 21 * MIB);
		assert_true(st.st_blocks * 512 >= 21 * MIB);
		for (uint32_t v = 0; v < 20; v++)
			assert_int_equal(le32_get(bytes + 64 + 4 * v), params.version == 1 ? 2048 * (v + 1) : v + 1);
		assert_int_equal(le32_get(bytes + 64 + 4 * 20), 0);
	}
	/* Not everything that version 1 can be as a disk fits its file. */
	params.version = 1;
	params.size = (UINT64_C(0xffffffff) / 2048) * MIB;
	assert_int_equal(create("3", &params, &st, bytes, 1), -EFBIG);
	assert_false(dir_exists(dir, "3"));
}

static void test_raw(void **state)
{
	struct image_params params = { .mode = IMAGE_RAW, .size = 8 * MIB + 512, .cluster = MIB };
	uint8_t bytes[1];
	struct stat st;

	(void)state;
	assert_int_equal(create("full", &params, &st, bytes, 1), 0);
	assert_int_equal(st.st_size, 8 * MIB + 512);
	assert_true(st.st_blocks * 512 >= 8 * MIB);
	params.sparse = true;
	assert_int_equal(create("sparse", &params, &st, bytes, 1), 0);
	assert_int_equal(st.st_size, 8 * MIB + 512);
	assert_true(st.st_blocks * 512 <= 65536);
}

static void test_bad(void **state)
{
	static const struct image_params bad[] = {
		{ .size = 0, .cluster = MIB, .version = 2 },
		{ .size = 10 * MIB, .cluster = 0, .version = 2 },
		{ .size = 10 * MIB, .cluster = MIB + 512, .version = 2 },
		{ .size = 10 * MIB, .cluster = 16384, .version = 2 },
		{ .size = 10 * MIB, .cluster = MIB, .version = 3 },
		{ .size = 10 * MIB + 512, .cluster = MIB, .version = 2 },
		{ .size = UINT64_C(4096) * 1024 * 1024 * MIB, .cluster = MIB, .version = 1 },
		{ .mode = IMAGE_RAW, .size = 513, .cluster = MIB },
	};
	uint8_t bytes[1];
	struct stat st;

	(void)state;
	for (unsigned i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		assert_true(create("a", &bad[i], &st, bytes, 1) < 0);
		assert_int_equal(error.status, PLOOP_EXIT_PARAM);
		assert_false(dir_exists(dir, "a"));
	}
}

/* The file may grow to 4 MiB only. */
static void test_no_room(void **state)
{
	struct image_params params = { .mode = IMAGE_PREALLOCATED, .size = 20 * MIB, .cluster = MIB, .version = 2 };
	struct rlimit limit, small;
	uint8_t bytes[1];
	struct stat st;
	int r;

	(void)state;
	signal(SIGXFSZ, SIG_IGN);
	getrlimit(RLIMIT_FSIZE, &limit);
	small = limit;
	small.rlim_cur = 4 * MIB;
	setrlimit(RLIMIT_FSIZE, &small);
	r = create("a", &params, &st, bytes, 1);
	setrlimit(RLIMIT_FSIZE, &limit);
	assert_int_equal(r, -EFBIG);
	assert_int_equal(error.status, PLOOP_EXIT_CREAT);
	assert_false(dir_exists(dir, "a"));
}

static void test_disk(void **state)
{
	struct image_params params = { .size = 20 * MIB, .cluster = MIB, .version = 2 };
	struct descriptor *d;

	(void)state;
	assert_int_equal(disk_create(dir, DESCRIPTOR_NAME, "a", &params, &error), 0);
	assert_int_equal(disk_create(dir, DESCRIPTOR_NAME, "b", &params, &error), -EEXIST);
	assert_int_equal(error.status, PLOOP_EXIT_PARAM);
	assert_non_null(strstr(error.text, "Can't create /var/tmp/ploop-test-create-"));
	assert_non_null(strstr(error.text, "/" DESCRIPTOR_NAME ": File exists"));
	assert_int_equal(descriptor_open(folder, &d, &error), 0);
	assert_string_equal(descriptor_top(d)->file, "a");
	assert_int_equal(d->size, 20 * MIB);
	descriptor_free(d);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_expanded, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_preallocated, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_raw, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_bad, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_no_room, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_disk, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
