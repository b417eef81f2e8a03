/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Operations on several files: what is left of an interrupted one goes, and nothing else. */
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
#include <unistd.h>

#include <ploop/ploop.h>

#include "image/descriptor.h"
#include "image/dir.h"
#include "image/journal.h"
#include "image/lock.h"

#define JOURNAL DESCRIPTOR_NAME JOURNAL_SUFFIX

static char folder[64];
static struct dir *dir;

/* A disk of one image, base.hds, and a file that nobody knows. */
static int set_up(void **state)
{
	const struct image_params params = { .version = 2, .size = 1 << 20, .cluster = 1 << 20 };

	(void)state;
	strcpy(folder, "/var/tmp/ploop-test-journal-XXXXXX");
	assert_non_null(mkdtemp(folder));
	assert_int_equal(dir_open(NULL, folder, &dir, NULL), 0);
	assert_int_equal(dir_write(dir, "base.hds", "base", 4, NULL), 0);
	assert_int_equal(dir_write(dir, "new.hds", "new", 3, NULL), 0);
	return disk_create(dir, DESCRIPTOR_NAME, "base.hds", &params, NULL);
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	dir_close(dir);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static int settle(void)
{
	struct ploop_error err;

	return journal_settle(dir, DESCRIPTOR_NAME, &err);
}

static void begin(const char *a, const char *b)
{
	const char *files[] = { a, b };

	assert_int_equal(journal_begin(dir, DESCRIPTOR_NAME, "test", files, b ? 2 : 1, NULL), 0);
	assert_true(dir_exists(dir, JOURNAL));
}

static void put(const char *text)
{
	assert_int_equal(dir_write(dir, JOURNAL, text, strlen(text), NULL), 0);
}

/* Not got as far as the descriptor: undone. */
static void test_undo(void **state)
{
	(void)state;
	begin("new.hds", "never-made.hds");
	assert_int_equal(settle(), 0);
	assert_false(dir_exists(dir, "new.hds"));
	assert_true(dir_exists(dir, "base.hds"));
	assert_false(dir_exists(dir, JOURNAL));
	assert_int_equal(settle(), 0);
}

/* The descriptor names the new file and not the old one: finished. */
static void test_finish(void **state)
{
	struct descriptor *d;

	(void)state;
	begin("new.hds", "base.hds");
	assert_int_equal(descriptor_read(dir, DESCRIPTOR_NAME, &d, NULL), 0);
	assert_int_equal(descriptor_set_file(d, &d->top, "new.hds"), 0);
	assert_int_equal(descriptor_store(d, dir, DESCRIPTOR_NAME, NULL), 0);
	descriptor_free(d);
	assert_int_equal(settle(), 0);
	assert_true(dir_exists(dir, "new.hds"));
	assert_false(dir_exists(dir, "base.hds"));
	assert_false(dir_exists(dir, JOURNAL));
}

/* What names of files may stand there: never the descriptor, never anything outside. */
static void test_names(void **state)
{
	(void)state;
	begin("../outside", DESCRIPTOR_NAME);
	assert_int_equal(settle(), 0);
	assert_true(dir_exists(dir, DESCRIPTOR_NAME));
	put("ploop journal 1\noperation test\nfile ../new.hds\nend\n");
	assert_int_equal(settle(), -EPROTO);
	put("ploop journal 1\noperation test\nfile ./new.hds\nend\n");
	assert_int_equal(settle(), -EPROTO);
	assert_true(dir_exists(dir, "new.hds"));
}

static void test_no_journal(void **state)
{
	static const char *const texts[] = {
		"",
		"ploop journal 1\n",
		"ploop journal 2\nfile new.hds\nend\n",
		"ploop journal 1\nfile new.hds\n",
		"ploop journal 1\nfile new.hds\nen",
		"ploop journal 1\nfiles new.hds\nend\n",
		"ploop journal 1\nfile \nend\n",
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(texts) / sizeof(*texts); i++) {
		put(texts[i]);
		assert_int_equal(settle(), -EPROTO);
		assert_true(dir_exists(dir, "new.hds"));
		assert_true(dir_exists(dir, JOURNAL));
	}
}

/* A descriptor that cannot be read tells nothing, so nothing goes. */
static void test_broken_descriptor(void **state)
{
	(void)state;
	begin("new.hds", NULL);
	assert_int_equal(dir_replace(dir, DESCRIPTOR_NAME, "<x", 2), 0);
	assert_true(settle() < 0);
	assert_true(dir_exists(dir, "new.hds"));
	assert_true(dir_exists(dir, JOURNAL));
}

/* What somebody has open stays until he is done. */
static void test_in_use(void **state)
{
	char *path = dir_path(dir, "new.hds");
	int fd = open(path, O_RDWR | O_CLOEXEC);

	(void)state;
	assert_true(fd >= 0);
	assert_int_equal(lock_file(fd, FILE_LOCK_NONE, FILE_LOCK_READ, path, NULL), 0);
	begin("new.hds", NULL);
	assert_int_equal(settle(), -EBUSY);
	assert_true(dir_exists(dir, "new.hds"));
	assert_true(dir_exists(dir, JOURNAL));
	close(fd);
	assert_int_equal(settle(), 0);
	assert_false(dir_exists(dir, "new.hds"));
	free(path);
}

/* Whoever takes the disk's lock settles first; that it cannot be done is no reason to refuse. */
static void test_lock(void **state)
{
	char *path = dir_path(dir, DESCRIPTOR_NAME);
	int fd;

	(void)state;
	begin("new.hds", NULL);
	assert_int_equal(journal_lock_disk(path, 0, &fd, NULL), 0);
	close(fd);
	assert_false(dir_exists(dir, "new.hds"));
	put("nonsense");
	assert_int_equal(journal_lock_disk(path, 0, &fd, NULL), 0);
	close(fd);
	assert_true(dir_exists(dir, JOURNAL));
	begin("never-made.hds", NULL); /* takes the place of nonsense */
	assert_int_equal(settle(), 0);
	free(path);
}

/* Long work of another goes on: its journal and its files are left to it, and who wants to change the disk is told. */
static void test_work(void **state)
{
	char *path = dir_path(dir, DESCRIPTOR_NAME);
	struct ploop_error err;
	int worker, fd;

	(void)state;
	assert_int_equal(lock_disk(path, 0, &worker, NULL), 0);
	assert_int_equal(lock_disk(path, 0, &fd, &err), -EBUSY);
	begin("new.hds", NULL);
	lock_work_begin(worker);
	assert_int_equal(journal_lock_disk(path, 0, &fd, NULL), 0);
	assert_true(dir_exists(dir, "new.hds"));
	assert_int_equal(lock_work_check(path, fd, &err), -EBUSY);
	assert_int_equal(err.status, PLOOP_EXIT_BUSY);
	assert_non_null(strstr(err.text, "under way"));
	close(fd);
	assert_int_equal(lock_work_end(path, worker, NULL), 0);
	assert_int_equal(lock_disk(path, 0, &fd, &err), -EBUSY);
	assert_false(lock_work_goes_on(worker));
	lock_work_begin(worker);
	close(worker); /* as if it died */
	assert_int_equal(journal_lock_disk(path, 0, &fd, NULL), 0);
	assert_int_equal(lock_work_check(path, fd, NULL), 0);
	assert_false(dir_exists(dir, "new.hds"));
	close(fd);
	free(path);
}

/* Who owns a temporary snapshot is seen by others, each by its own byte, as long as he lives. */
static void test_owner(void **state)
{
	char *path = dir_path(dir, DESCRIPTOR_NAME);
	int owner, fd;

	(void)state;
	assert_int_equal(lock_owner(path, UINT64_MAX - 5, &owner, NULL), 0);
	assert_int_equal(lock_disk(path, 0, &fd, NULL), 0);
	assert_true(lock_owned(fd, UINT64_MAX - 5));
	assert_false(lock_owned(fd, UINT64_MAX - 4));
	assert_false(lock_owned(owner, UINT64_MAX - 5));
	close(owner);
	assert_false(lock_owned(fd, UINT64_MAX - 5));
	close(fd);
	free(path);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(test_undo),
		TEST(test_finish),
		TEST(test_names),
		TEST(test_no_journal),
		TEST(test_broken_descriptor),
		TEST(test_in_use),
		TEST(test_lock),
		TEST(test_work),
		TEST(test_owner),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
