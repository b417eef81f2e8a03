/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* child.h: exit statuses, output in the log, the descriptor handed over, and nothing else handed over. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/child.h"
#include "base/log.h"
#include <ploop/ploop.h>

static char logged[4096];

static void collect(void *data, int level, const char *text)
{
	size_t used = strlen(logged);

	(void)data;
	snprintf(logged + used, sizeof(logged) - used, "%d:%s\n", level, text);
}

static int run(int fd, const char *script, int *ret_exit, char *last, unsigned last_size)
{
	const char *const argv[] = { "sh", "-c", script, NULL };
	const struct child_request request = { .argv = argv, .fd = fd, .level = LOG_LEVEL_INFO };

	logged[0] = 0;
	ploop_set_log(collect, NULL);
	return child_run(&request, ret_exit, last, last_size);
}

static void test_output_and_status(void **state)
{
	char last[32];
	int status;

	(void)state;
	assert_int_equal(run(-1, "echo one; echo; echo two >&2; exit 3", &status, last, sizeof(last)), 0);
	assert_int_equal(status, 3);
	assert_string_equal(logged, "3:one\n3:two\n");
	assert_string_equal(last, "two");
	assert_int_equal(run(-1, "printf 'groups: 10/12\\b\\b\\b\\b\\b     \\b\\b\\b\\b\\bdone \\n'", &status, last,
			     sizeof(last)),
			 0);
	assert_string_equal(last, "groups: done");
	assert_int_equal(run(-1, "kill -9 $$", &status, NULL, 0), 0);
	assert_int_equal(status, 128 + 9);
	assert_int_equal(run(-1, "cat; echo $LC_ALL", &status, last, sizeof(last)), 0);
	assert_string_equal(last, "C");
}

static void test_descriptor(void **state)
{
	int fd = memfd_create("test", 0), other = dup2(fd, 77), status;
	char text[5] = "";

	(void)state;
	assert_true(fd >= 0 && other == 77);
	/* `other` was not marked close-on-exec, and still does not get through. */
	assert_int_equal(run(fd, "printf abcd > " CHILD_FD_PATH "; test ! -e /proc/$$/fd/77", &status, NULL, 0), 0);
	assert_int_equal(status, 0);
	assert_int_equal(pread(fd, text, 4, 0), 4);
	assert_string_equal(text, "abcd");
	close(fd);
	close(other);
}

static void test_missing(void **state)
{
	const char *const argv[] = { "no-such-program", NULL };
	const struct child_request request = { .argv = argv, .fd = -1 };
	int status = 77;

	(void)state;
	assert_int_equal(child_run(&request, &status, NULL, 0), -ENOENT);
	assert_int_equal(status, 77);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_output_and_status),
		cmocka_unit_test(test_descriptor),
		cmocka_unit_test(test_missing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
