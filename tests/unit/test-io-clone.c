/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* IO_CLONE on XFS, by both modules: blocks are shared, and what is written to one side afterwards is not seen on the other. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "io/io.h"
#include "io/loop.h"

#define MIB (1024u * 1024)

static char folder[64];
static struct loop *loop;
static struct io_file *from, *to;
static char *buffer;
static bool mounted, done;
static int result;

/* In a mount namespace of our own: nothing is left mounted, whatever happens. */
static int group_setup(void **state)
{
	char command[512];

	(void)state;
	strcpy(folder, "/var/tmp/ploop-clone-XXXXXX");
	if (!mkdtemp(folder) || unshare(CLONE_NEWNS) || mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL))
		return 0;
	snprintf(command, sizeof(command),
		 "exec >/dev/null 2>&1; cd %s && truncate -s 512M disk && mkfs.xfs -q -m reflink=1 disk && mkdir mnt && "
		 "mount -o loop disk mnt",
		 folder);
	mounted = !system(command);
	return 0;
}

static int group_teardown(void **state)
{
	char command[256];

	(void)state;
	snprintf(command, sizeof(command), "umount %s/mnt 2>/dev/null; rm -rf %s", folder, folder);
	return system(command) ? -1 : 0;
}

static struct io_file *make(const char *module, const char *name)
{
	struct io_file *file;
	struct ploop_error err;
	char path[160];

	snprintf(path, sizeof(path), "%s/mnt/%s-%s", folder, module, name);
	if (io_open(loop, io_module_find(module), path, IO_RDWR | IO_CREATE, &file, &err))
		fail_msg("%s", err.text);
	return file;
}

static void op_done(struct io_op *op, int r)
{
	(void)op;
	done = true;
	result = r;
}

static int run(struct io_op *op)
{
	op->done = op_done;
	done = false;
	io_submit(op);
	while (!done)
		assert_int_equal(loop_turn(loop, UINT64_MAX), 0);
	return result;
}

static int transfer(enum io_kind kind, struct io_file *file, uint64_t offset, uint64_t length)
{
	return run(&(struct io_op){ .kind = kind, .file = file, .offset = offset, .length = length, .buffer = buffer });
}

static int clone_range(uint64_t source, uint64_t offset, uint64_t length)
{
	return run(&(struct io_op){ .kind = IO_CLONE, .file = to, .offset = offset, .length = length, .source = from,
				    .source_offset = source });
}

static void assert_all(unsigned char byte, size_t len)
{
	for (size_t i = 0; i < len; i++)
		assert_int_equal((unsigned char)buffer[i], byte);
}

static void clone_with(const char *module)
{
	uint64_t size;

	assert_int_equal(loop_new(NULL, 8, &loop, NULL), 0);
	if (io_module_find(module)->usable(NULL)) {
		loop_free(loop);
		skip();
	}
	from = make(module, "from");
	to = make(module, "to");
	buffer = io_buffer_new(MIB);
	memset(buffer, 5, MIB);
	assert_int_equal(transfer(IO_WRITE, from, MIB, MIB), 0);
	/* Beyond the end of the target, which grows. */
	assert_int_equal(clone_range(MIB, 2 * MIB, MIB), 0);
	assert_int_equal(io_size(to, &size), 0);
	assert_int_equal(size, 3 * MIB);
	assert_int_equal(transfer(IO_READ, to, 2 * MIB, MIB), 0);
	assert_all(5, MIB);
	memset(buffer, 6, 4096);
	assert_int_equal(transfer(IO_WRITE, to, 2 * MIB, 4096), 0);
	assert_int_equal(transfer(IO_READ, from, MIB, MIB), 0);
	assert_all(5, MIB);
	/* Not whole blocks: refused for this range, but still possible for the next. */
	assert_int_equal(clone_range(MIB + 512, 8 * MIB, 4096), -EOPNOTSUPP);
	assert_true(to->can_clone);
	assert_int_equal(clone_range(MIB, 8 * MIB, 4096), 0);
	io_close(from);
	io_close(to);
	io_buffer_free(buffer, MIB);
	loop_free(loop);
}

static void test_uring(void **state)
{
	(void)state;
	if (!mounted)
		skip(); /* needs root and mkfs.xfs */
	clone_with("uring");
}

/* A file that shares blocks is still opened for direct I/O, and takes single sectors, between whole blocks. */
static void test_opened_again(void **state)
{
	struct io_file *file;
	char path[160];

	(void)state;
	if (!mounted || io_module_find("uring")->usable(NULL))
		skip(); /* needs root, mkfs.xfs, io_uring */
	assert_int_equal(loop_new(NULL, 8, &loop, NULL), 0);
	snprintf(path, sizeof(path), "%s/mnt/uring-to", folder);
	assert_int_equal(io_open(loop, NULL, path, IO_RDWR, &file, NULL), 0);
	assert_true(file->direct);
	buffer = io_buffer_new(MIB);
	for (unsigned i = 0; i < 64; i++) {
		memset(buffer, 100 + (int)i, 8192);
		assert_int_equal(transfer(IO_WRITE, file, 8 * MIB + i * 8192, 4096), 0);
		assert_int_equal(transfer(IO_WRITE, file, 8 * MIB + i * 8192 + 4608, 512), 0);
	}
	assert_int_equal(transfer(IO_DATASYNC, file, 0, 0), 0);
	assert_int_equal(transfer(IO_READ, file, 8 * MIB, 512 * 1024), 0);
	for (unsigned i = 0; i < 64; i++) {
		for (unsigned at = 0; at < 4096; at++)
			assert_int_equal((unsigned char)buffer[i * 8192 + at], 100 + i);
		for (unsigned at = 4608; at < 5120; at++)
			assert_int_equal((unsigned char)buffer[i * 8192 + at], 100 + i);
		assert_int_equal(buffer[i * 8192 + 4096], 0);
		assert_int_equal(buffer[i * 8192 + 5120], 0);
	}
	io_close(file);
	io_buffer_free(buffer, MIB);
	loop_free(loop);
}

static void test_sync(void **state)
{
	(void)state;
	if (!mounted)
		skip(); /* needs root and mkfs.xfs */
	clone_with("sync");
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(test_uring), cmocka_unit_test(test_opened_again),
					    cmocka_unit_test(test_sync) };

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
