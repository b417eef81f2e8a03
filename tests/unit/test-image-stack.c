/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* From a descriptor or images to open files: which, in what order, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/fd.h"
#include "base/le.h"
#include "format/ploop1.h"
#include "image/create.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/stack.h"
#include "io/loop.h"

#define MIB (1024u * 1024)
#define BASE "{11111111-aaaa-4bbb-8ccc-000000000001}"
#define MIDDLE "{11111111-aaaa-4bbb-8ccc-000000000002}"

static char folder[64];
static struct dir *dir;
static struct loop *loop;
static struct ploop_error error;

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/var/tmp/ploop-test-stack-XXXXXX");
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

static struct image_params params_of(uint64_t size)
{
	return (struct image_params){ .size = size, .cluster = MIB, .version = 2 };
}

static void create(const char *name, const struct image_params *params)
{
	if (image_create(loop, dir, name, params, &error) < 0)
		fail_msg("%s", error.text);
}

static void create_of_size(const char *name, uint64_t size)
{
	struct image_params params = params_of(size);

	create(name, &params);
}

static struct guid guid(const char *text)
{
	struct guid guid;

	assert_true(guid_parse(text, &guid));
	return guid;
}

static void patch(const char *name, const void *bytes, size_t len, uint64_t offset)
{
	char *path = dir_path(dir, name);
	int fd = open(path, O_WRONLY);

	assert_int_equal(fd_pwrite(fd, bytes, len, offset), 0);
	close(fd);
	free(path);
}

static void mark_in_use(const char *name)
{
	uint32_t mark = htole32(PLOOP1_IN_USE);

	patch(name, &mark, sizeof(mark), PLOOP1_OFF_IN_USE);
}

static uint32_t mark_of(const char *name)
{
	char *path = dir_path(dir, name);
	uint32_t mark = 0;
	int fd = open(path, O_RDONLY);

	assert_int_equal(fd_pread(fd, &mark, sizeof(mark), PLOOP1_OFF_IN_USE), sizeof(mark));
	close(fd);
	free(path);
	return le32toh(mark);
}

static void set_size(const char *name, uint64_t size)
{
	char *path = dir_path(dir, name);

	assert_int_equal(truncate(path, (off_t)size), 0);
	free(path);
}

static uint64_t size_of(const char *name)
{
	char *path = dir_path(dir, name);
	struct stat st;

	assert_int_equal(stat(path, &st), 0);
	free(path);
	return (uint64_t)st.st_size;
}

static int open_request(struct stack_request request, const char *const *names, unsigned n, struct stack **ret)
{
	char *paths[200];
	int r;

	for (unsigned i = 0; i < n; i++)
		paths[i] = dir_path(dir, names[i]);
	request.operands = (const char *const *)paths;
	request.noperands = n;
	memset(&error, 0, sizeof(error));
	r = stack_open(loop, &request, ret, &error);
	for (unsigned i = 0; i < n; i++)
		free(paths[i]);
	return r;
}

static struct stack *open_good(struct stack_request request, const char *name)
{
	struct stack *stack;

	if (open_request(request, &name, 1, &stack) < 0)
		fail_msg("%s", error.text);
	return stack;
}

/* Fails, with this status and these words. */
static void open_bad(struct stack_request request, const char *const *names, unsigned n, int status, const char *words)
{
	struct stack *stack = NULL;

	if (open_request(request, names, n, &stack) >= 0)
		fail_msg("opened; wanted: %s", words);
	assert_null(stack);
	if (!strstr(error.text, words))
		fail_msg("'%s' is not in '%s'", words, error.text);
	assert_int_equal(error.status, status);
}

static void open_bad_disk(struct stack_request request, int status, const char *words)
{
	static const char *const name = DESCRIPTOR_NAME;

	open_bad(request, &name, 1, status, words);
}

static const struct stack_request writing = { .snapshot = NULL };
static const struct stack_request reading = { .read_only = true };

/* base <- middle <- top, by a descriptor. */
static void create_chain(void)
{
	struct image_params params = params_of(10 * MIB);
	struct guid base = guid(BASE), middle = guid(MIDDLE), top = guid(GUID_TOP);
	struct descriptor *d;

	create("root.hds", &params);
	create("root.hds.1", &params);
	create("root.hds.2", &params);
	assert_int_equal(disk_create(dir, DESCRIPTOR_NAME, "root.hds", &params, NULL), 0);
	assert_int_equal(descriptor_read(dir, DESCRIPTOR_NAME, &d, NULL), 0);
	assert_int_equal(descriptor_rename(d, &top, &base), 0);
	assert_int_equal(descriptor_add(d, &middle, &base, "root.hds.1"), 0);
	assert_int_equal(descriptor_add(d, &top, &middle, "root.hds.2"), 0);
	assert_int_equal(descriptor_set_top(d, &top), 0);
	assert_int_equal(descriptor_store(d, dir, DESCRIPTOR_NAME, NULL), 0);
	descriptor_free(d);
}

static void test_operands(void **state)
{
	struct image_params params = params_of(10 * MIB);
	static const char *const operands[] = { DESCRIPTOR_NAME, ".", "disk.xml", "disk", "root.hds" };

	(void)state;
	create("root.hds", &params);
	assert_int_equal(disk_create(dir, DESCRIPTOR_NAME, "root.hds", &params, NULL), 0);
	assert_int_equal(disk_create(dir, "disk.xml", "root.hds", &params, NULL), 0);
	assert_int_equal(disk_create(dir, "disk", "root.hds", &params, NULL), 0);
	for (unsigned i = 0; i < sizeof(operands) / sizeof(*operands); i++) {
		struct stack *stack = open_good(writing, operands[i]);

		assert_int_equal(stack->nlevels, 1);
		assert_int_equal(stack->levels[0].geometry.size, 10 * MIB);
		assert_string_equal(stack->levels[0].file->path + strlen(folder), "/root.hds");
		assert_int_equal(stack->descriptor != NULL, i < 4);
		if (i < 4)
			assert_string_equal(stack->snapshot, GUID_TOP);
		stack_close(stack);
	}
}

static void test_chain(void **state)
{
	struct stack *stack, *other;
	struct stack_request request = writing;

	(void)state;
	create_chain();
	stack = open_good(writing, DESCRIPTOR_NAME);
	assert_int_equal(stack->nlevels, 3);
	assert_string_equal(stack->levels[0].file->path + strlen(folder), "/root.hds");
	assert_string_equal(stack->levels[2].file->path + strlen(folder), "/root.hds.2");
	assert_false(stack->levels[1].file->flags & IO_RDWR);
	assert_true(stack->levels[2].file->flags & IO_RDWR);

	/* One writer; snapshots below may be read beside it. */
	open_bad_disk(writing, PLOOP_EXIT_IN_USE, "root.hds.2 is in use by process");
	open_bad_disk(reading, PLOOP_EXIT_IN_USE, "root.hds.2 is in use by process");
	request.read_only = true;
	request.snapshot = "11111111-AAAA-4bbb-8ccc-000000000002";
	other = open_good(request, DESCRIPTOR_NAME);
	assert_int_equal(other->nlevels, 2);
	assert_string_equal(other->snapshot, MIDDLE);
	stack_close(other);
	request.snapshot = "base";
	other = open_good(request, DESCRIPTOR_NAME);
	assert_int_equal(other->nlevels, 1);
	stack_close(other);
	stack_close(stack);

	request.read_only = false;
	request.snapshot = MIDDLE;
	open_bad_disk(request, PLOOP_EXIT_PARAM, "Unable to mount (rw) snapshot " MIDDLE ": it has 1 child");
	request.snapshot = "11111111-aaaa-4bbb-8ccc-000000000009";
	open_bad_disk(request, PLOOP_EXIT_NO_SNAPSHOT, "Uuid 11111111-aaaa-4bbb-8ccc-000000000009 not found");
	request.snapshot = "nonsense";
	open_bad_disk(request, PLOOP_EXIT_PARAM, "Incorrect uuid specified: nonsense");
	stack = open_good(reading, DESCRIPTOR_NAME);
	other = open_good(reading, DESCRIPTOR_NAME);
	stack_close(stack);
	stack_close(other);
}

static void set_file(const char *file)
{
	struct guid base = guid(BASE);
	struct descriptor *d;

	assert_int_equal(descriptor_read(dir, DESCRIPTOR_NAME, &d, NULL), 0);
	assert_int_equal(descriptor_set_file(d, &base, file), 0);
	assert_int_equal(descriptor_store(d, dir, DESCRIPTOR_NAME, NULL), 0);
	descriptor_free(d);
}

static void test_outside(void **state)
{
	struct stack_request trusting = { .outside = true };
	char *inner = dir_path(dir, "inner"), *file = dir_path(dir, "root.hds"), *link = dir_path(dir, "inner/link");
	char command[256];

	(void)state;
	create_chain();
	snprintf(command, sizeof(command),
		 "cd %s && mkdir inner && mv Disk* root.hds.* inner && ln -s ../root.hds inner/link", folder);
	assert_int_equal(system(command), 0);
	dir_close(dir);
	assert_int_equal(dir_open(NULL, inner, &dir, NULL), 0);

	set_file("../root.hds");
	open_bad_disk(writing, PLOOP_EXIT_PARAM, "names ../root.hds, which is outside its folder");
	stack_close(open_good(trusting, DESCRIPTOR_NAME));
	set_file(file);
	open_bad_disk(writing, PLOOP_EXIT_PARAM, "which is outside its folder");
	stack_close(open_good(trusting, DESCRIPTOR_NAME));
	/* A link is no word of the descriptor. */
	set_file("link");
	open_bad_disk(writing, PLOOP_EXIT_PARAM, "leads outside its folder by a link");
	open_bad_disk(trusting, PLOOP_EXIT_PARAM, "leads outside its folder by a link");
	/* Absolute, but inside. */
	snprintf(command, sizeof(command), "mv %s %s/", file, inner);
	assert_int_equal(system(command), 0);
	free(file);
	file = dir_path(dir, "root.hds");
	set_file("x");
	assert_int_equal(snprintf(command, sizeof(command), "sed -i 's,<File>x<,<File>%s<,' %s/" DESCRIPTOR_NAME, file,
				  inner) > 0,
			 1);
	assert_int_equal(system(command), 0);
	stack_close(open_good(writing, DESCRIPTOR_NAME));
	set_file("gone");
	open_bad_disk(writing, PLOOP_EXIT_OPEN, "inner/gone: No such file or directory");
	set_file(".");
	open_bad_disk(writing, PLOOP_EXIT_PARAM, "outside its folder");
	free(inner);
	free(file);
	free(link);
}

static void test_mismatches(void **state)
{
	struct image_params params = params_of(10 * MIB);
	const char *two[] = { "a", "b" }, *xml[] = { "a", "x.xml" };

	(void)state;
	create("a", &params);
	params.cluster = MIB / 2;
	create("b", &params);
	open_bad(writing, two, 2, PLOOP_EXIT_PARAM, "a bs=2048 [current bs=1024]");
	dir_unlink(dir, "b");
	params = params_of(10 * MIB);
	params.version = 1;
	create("b", &params);
	open_bad(writing, two, 2, PLOOP_EXIT_FORMAT, "b 1 [prev 2]");
	dir_unlink(dir, "b");
	create_of_size("b", 9 * MIB);
	open_bad(writing, two, 2, PLOOP_EXIT_FORMAT, "is smaller than");
	dir_unlink(dir, "b");
	create_of_size("b", 11 * MIB);
	assert_int_equal(disk_create(dir, "x.xml", "b", &params, NULL), 0);
	open_bad(writing, xml, 2, PLOOP_EXIT_PARAM, "is a descriptor: it stands alone");
	/* 20479 sectors: the base ends inside its last cluster. */
	patch("a", "\xff\x4f", 2, 36);
	open_bad(writing, two, 2, PLOOP_EXIT_FORMAT, "ends inside a cluster");
	patch("a", "x", 1, 0);
	open_bad(writing, two, 2, PLOOP_EXIT_FORMAT, "wrong signature");
}

static void test_descriptor_cluster(void **state)
{
	struct image_params params = params_of(10 * MIB);

	(void)state;
	create("root.hds", &params);
	params.cluster = MIB / 2;
	assert_int_equal(disk_create(dir, DESCRIPTOR_NAME, "root.hds", &params, NULL), 0);
	open_bad_disk(writing, PLOOP_EXIT_PARAM, "root.hds bs=2048 [current bs=1024]");
}

static void test_raw(void **state)
{
	struct image_params params = params_of(10 * MIB);
	struct stack_request request = { .base_format = "raw" };
	const char *two[] = { "raw", "delta" }, *wrong[] = { "delta", "raw" };
	struct stack *stack;

	(void)state;
	create("delta", &params);
	params.mode = IMAGE_RAW;
	params.size = 3 * MIB + 512;
	create("raw", &params);
	open_bad(request, two, 1, PLOOP_EXIT_PARAM, "Blocksize is not specified");
	open_bad(writing, two, 1, PLOOP_EXIT_FORMAT, "wrong signature");
	open_bad(writing, wrong, 2, PLOOP_EXIT_FORMAT, "wrong signature");
	request.cluster = MIB;
	stack = open_good(request, "raw");
	assert_int_equal(stack->levels[0].geometry.size, 3 * MIB + 512);
	stack_close(stack);
	/* With something above it there is no need to say. */
	request.cluster = 0;
	assert_int_equal(open_request(request, two, 2, &stack), 0);
	assert_ptr_equal(stack->levels[0].format, &format_raw);
	assert_ptr_equal(stack->levels[1].format, &format_ploop1);
	stack_close(stack);
	request.base_format = "qcow2";
	open_bad(request, two, 2, PLOOP_EXIT_PARAM, "Bad -f argument: qcow2");
}

static void test_in_use(void **state)
{
	const char *names[] = { "root.hds", "root.hds.1", "root.hds.2" };
	struct stack_request base = { .read_only = true, .snapshot = BASE };
	struct stack *stack, *reader;

	(void)state;
	create_chain();
	for (unsigned i = 0; i < 3; i++)
		mark_in_use(names[i]);
	/* Reading changes nothing. */
	stack_close(open_good(reading, DESCRIPTOR_NAME));
	for (unsigned i = 0; i < 3; i++)
		assert_int_equal(mark_of(names[i]), PLOOP1_IN_USE);
	/* Somebody reads the base: its mark has to stay. The mark of the top is the device's business. */
	reader = open_good(base, DESCRIPTOR_NAME);
	stack = open_good(writing, DESCRIPTOR_NAME);
	assert_int_equal(mark_of("root.hds"), PLOOP1_IN_USE);
	assert_int_equal(mark_of("root.hds.1"), PLOOP1_CLOSED);
	assert_int_equal(mark_of("root.hds.2"), PLOOP1_IN_USE);
	assert_int_equal(stack->levels[1].geometry.state, FORMAT_CLEAN);
	/* Its lock is that of a reader again. */
	assert_int_equal(stack_lock(stack, 1, FILE_LOCK_READ, FILE_LOCK_WRITE, &error), 0);
	assert_int_equal(stack_lock(stack, 1, FILE_LOCK_WRITE, FILE_LOCK_READ, &error), 0);
	stack_close(reader);
	stack_close(stack);
	stack_close(open_good(writing, DESCRIPTOR_NAME));
	assert_int_equal(mark_of("root.hds"), PLOOP1_CLOSED);
}

/* What a crash left behind the last cluster that is named goes with the mark, unless the index cannot be trusted. */
static void test_tail(void **state)
{
	const uint32_t third = htole32(3), wild = htole32(UINT32_MAX);

	(void)state;
	create_chain();
	mark_in_use("root.hds");
	patch("root.hds", &third, sizeof(third), PLOOP1_HEADER + 4);
	set_size("root.hds", 9 * MIB);
	mark_in_use("root.hds.1");
	patch("root.hds.1", &wild, sizeof(wild), PLOOP1_HEADER);
	set_size("root.hds.1", 9 * MIB);
	stack_close(open_good(reading, DESCRIPTOR_NAME));
	assert_int_equal(size_of("root.hds"), 9 * MIB);
	stack_close(open_good(writing, DESCRIPTOR_NAME));
	assert_int_equal(size_of("root.hds"), 4 * MIB);
	assert_int_equal(size_of("root.hds.1"), 9 * MIB);
	/* One that was closed is nobody's business. */
	set_size("root.hds", 7 * MIB);
	stack_close(open_good(writing, DESCRIPTOR_NAME));
	assert_int_equal(size_of("root.hds"), 7 * MIB);
}

/* A file that can be read but not safely written. */
static void test_read_only_image(void **state)
{
	const char *name = "a";

	(void)state;
	create_of_size("a", 64 * MIB);
	patch("a", "\x3f", 2, 28); /* clusters of 63 sectors */
	patch("a", "\x40", 2, 32);
	patch("a", "\xc0\x0f\0\0", 4, 36);
	patch("a", "\x3f\0\0\0", 4, 48);
	open_bad(writing, &name, 1, PLOOP_EXIT_FORMAT, "can only be read (-r)");
	stack_close(open_good(reading, "a"));
}

static void test_deep(void **state)
{
	struct timespec start, end;
	char names[128][16];
	const char *list[128];
	struct stack *stack;

	(void)state;
	for (unsigned i = 0; i < 128; i++) {
		snprintf(names[i], sizeof(names[i]), "%u", i);
		list[i] = names[i];
		create_of_size(names[i], 10 * MIB);
	}
	clock_gettime(CLOCK_MONOTONIC, &start);
	assert_int_equal(open_request(writing, list, 127, &stack), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	assert_int_equal(stack->nlevels, 127);
	stack_close(stack);
	assert_true(end.tv_sec - start.tv_sec < 2);
	open_bad(writing, list, 128, PLOOP_EXIT_PARAM, "at most 127 can be stacked");
}

static void test_odd_files(void **state)
{
	const char *fifo = "fifo", *none = "none", *folder_name = "sub";
	char command[160];

	(void)state;
	snprintf(command, sizeof(command), "mkfifo %s/fifo; mkdir %s/sub", folder, folder);
	assert_int_equal(system(command), 0);
	open_bad(writing, &fifo, 1, PLOOP_EXIT_OPEN, "is not a regular file");
	open_bad(writing, &none, 1, PLOOP_EXIT_OPEN, "No such file or directory");
	open_bad(writing, &folder_name, 1, PLOOP_EXIT_OPEN, "sub/" DESCRIPTOR_NAME ": No such file or directory");
	open_bad(writing, NULL, 0, PLOOP_EXIT_PARAM, "no image is named");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_operands, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_chain, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_outside, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_mismatches, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_descriptor_cluster, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_raw, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_in_use, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_tail, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_only_image, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_deep, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_odd_files, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
