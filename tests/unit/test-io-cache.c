/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Reads past the host's cache that may look into it: they give what the file holds, and spare the disk when they can. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "io/io.h"
#include "io/loop.h"
#include "io/page-cache.h"

#define MIB (1024u * 1024)
#define SIZE (4 * MIB)
#define RAGGED 700u /* the file ends so much behind SIZE */

static struct loop *loop;
static struct io_file *file;
static char path[] = "/var/tmp/ploop-cache-XXXXXX";
static int fd;
static unsigned char *data, *buffer;
static bool done;
static int result;

static int setup(void **state)
{
	struct ploop_error err;

	(void)state;
	strcpy(strrchr(path, '-'), "-XXXXXX");
	fd = mkstemp(path);
	data = io_buffer_new_large(2 * SIZE);
	buffer = io_buffer_new_large(2 * SIZE);
	assert_true(fd >= 0 && data && buffer);
	assert_int_equal((uintptr_t)buffer % (2 * MIB), 0);
	for (unsigned i = 0; i < SIZE + RAGGED; i++)
		data[i] = (unsigned char)(i / 512 * 7 + i);
	assert_int_equal(write(fd, data, SIZE + RAGGED), SIZE + RAGGED);
	assert_int_equal(fsync(fd), 0);
	assert_int_equal(loop_new(NULL, 8, &loop, &err), 0);
	assert_int_equal(io_open(loop, NULL, path, IO_RDONLY, &file, &err), 0);
	file->from_cache = true;
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	io_close(file);
	loop_free(loop);
	io_buffer_free(data, 2 * SIZE);
	io_buffer_free(buffer, 2 * SIZE);
	close(fd);
	return unlink(path);
}

static void read_done(struct io_op *op, int r)
{
	(void)op;
	result = r;
	done = true;
}

/* Reads and compares. */
static void check(uint64_t offset, uint64_t length, unsigned char *memory)
{
	struct io_op op = { .kind = IO_READ, .file = file, .offset = offset, .length = length, .buffer = memory,
			    .done = read_done };

	memset(memory, 0xee, length);
	done = false;
	io_submit(&op);
	while (!done)
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
	assert_int_equal(result, 0);
	assert_memory_equal(memory, data + offset, length);
}

/* Bytes that this process has read from disks. */
static uint64_t disk_reads(void)
{
	FILE *f = fopen("/proc/self/io", "re");
	uint64_t n = 0;
	char line[64];

	if (!f)
		skip();
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "read_bytes: %" SCNu64, &n) == 1)
			break;
	fclose(f);
	return n;
}

static void test_what_is_cached_is_not_read(void **state)
{
	uint64_t before;

	(void)state;
	if (!file->direct || !page_cache_has(fd, 0, SIZE))
		skip();
	before = disk_reads();
	check(0, SIZE, buffer);
	check(512, MIB, buffer);
	if (page_cache_has(fd, 0, SIZE)) /* still: memory may be short on a busy host */
		assert_int_equal(disk_reads(), before);
}

static void test_what_is_not_cached_is_read(void **state)
{
	(void)state;
	assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
	check(0, SIZE, buffer);
	check(MIB - 512, 2 * MIB, buffer);
}

/* The cache may have lost a part since it was asked. */
static void test_half_of_it(void **state)
{
	(void)state;
	assert_int_equal(posix_fadvise(fd, 0, 2 * MIB, POSIX_FADV_DONTNEED), 0);
	check(0, SIZE, buffer);
	check(2 * MIB - 4096, 8192, buffer);
	assert_int_equal(posix_fadvise(fd, 3 * MIB, 0, POSIX_FADV_DONTNEED), 0);
	check(0, SIZE, buffer);
	check(2 * MIB, 2 * MIB, buffer);
}

static void test_end_of_file(void **state)
{
	(void)state;
	check(SIZE - 4096, 8192, buffer);
	check(SIZE + 512, 4096, buffer);
	check(SIZE + 8192, 4096, buffer);
}

static void test_misaligned_memory(void **state)
{
	(void)state;
	check(4096, MIB, buffer + 1);
	check(SIZE - 512, 4096, buffer + 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_what_is_cached_is_not_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_what_is_not_cached_is_read, setup, teardown),
		cmocka_unit_test_setup_teardown(test_half_of_it, setup, teardown),
		cmocka_unit_test_setup_teardown(test_end_of_file, setup, teardown),
		cmocka_unit_test_setup_teardown(test_misaligned_memory, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
