/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Folders of the host: files replaced whole, links not followed out. */
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
#include <unistd.h>

#include "image/dir.h"

static char folder[64];
static struct dir *dir;

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/var/tmp/ploop-test-dir-XXXXXX");
	assert_non_null(mkdtemp(folder));
	return dir_open(NULL, folder, &dir, NULL);
}

static int tear_down(void **state)
{
	char command[128];

	(void)state;
	dir_close(dir);
	snprintf(command, sizeof(command), "rm -r %s", folder);
	return system(command);
}

static void assert_content(const char *name, const char *want)
{
	char *text;
	size_t len;

	assert_int_equal(dir_read(dir, name, 4096, &text, &len), 0);
	assert_string_equal(text, want);
	assert_int_equal(len, strlen(want));
	free(text);
}

static void test_replace(void **state)
{
	struct stat st;
	char *path = dir_path(dir, "a");

	(void)state;
	assert_int_equal(dir_create(dir, "a", "old", 3), 0);
	assert_content("a", "old");
	assert_int_equal(dir_create(dir, "a", "new", 3), -EEXIST);
	assert_content("a", "old");
	assert_false(dir_exists(dir, "a.tmp"));
	assert_int_equal(chmod(path, 0640), 0);
	assert_int_equal(dir_replace(dir, "a", "newer", 5), 0);
	assert_content("a", "newer");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0640);
	assert_int_equal(dir_rename(dir, "a", "b"), 0);
	assert_int_equal(dir_unlink(dir, "b"), 0);
	assert_int_equal(dir_unlink(dir, "b"), -ENOENT);
	free(path);
}

/* A link planted under the temporary name must not be written through. */
static void test_planted_link(void **state)
{
	char *tmp = dir_path(dir, "a.tmp"), *victim = dir_path(dir, "victim");

	(void)state;
	assert_int_equal(dir_create(dir, "victim", "v", 1), 0);
	assert_int_equal(symlink(victim, tmp), 0);
	assert_int_equal(dir_replace(dir, "a", "text", 4), 0);
	assert_content("victim", "v");
	assert_content("a", "text");
	free(tmp);
	free(victim);
}

static void test_read_limits(void **state)
{
	char *fifo = dir_path(dir, "fifo"), *text;
	size_t len;

	(void)state;
	assert_int_equal(dir_create(dir, "a", "12345", 5), 0);
	assert_int_equal(dir_read(dir, "a", 4, &text, &len), -EFBIG);
	assert_int_equal(dir_read(dir, "none", 4, &text, &len), -ENOENT);
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(dir_read(dir, "fifo", 4, &text, &len), -EINVAL);
	assert_int_equal(dir_read(dir, ".", 4, &text, &len), -EISDIR);
	free(fifo);
}

static int locate(const char *name, bool beneath)
{
	int fd, r = dir->ops->locate(dir, name, beneath, &fd);

	if (!r)
		close(fd);
	return r;
}

static void test_locate(void **state)
{
	char *in = dir_path(dir, "in"), *out = dir_path(dir, "out"), *sub = dir_path(dir, "sub"), up[128];

	(void)state;
	assert_int_equal(dir_create(dir, "a", "", 0), 0);
	assert_int_equal(symlink("a", in), 0);
	assert_int_equal(symlink("/etc/passwd", out), 0);
	assert_int_equal(symlink("/etc", sub), 0);
	assert_int_equal(locate("a", true), 0);
	assert_int_equal(locate("in", true), 0);
	assert_int_equal(locate(in, true), 0);
	assert_int_equal(locate("out", true), -EXDEV);
	assert_int_equal(locate("out", false), 0);
	assert_int_equal(locate("sub/passwd", true), -EXDEV);
	assert_int_equal(locate("/etc/passwd", true), -EXDEV);
	assert_int_equal(locate("none", true), -ENOENT);
	/* Out and in again is inside. */
	snprintf(up, sizeof(up), "..%s/a", strrchr(folder, '/'));
	assert_int_equal(locate(up, true), 0);
	/* A folder whose name only starts the same is outside. */
	snprintf(up, sizeof(up), "%s-twin", folder);
	assert_int_equal(mkdir(up, 0700), 0);
	assert_int_equal(locate(up, true), -EXDEV);
	assert_int_equal(rmdir(up), 0);
	free(in);
	free(out);
	free(sub);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_replace, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_planted_link, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_read_limits, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_locate, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
