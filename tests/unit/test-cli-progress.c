/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* progress.c: what goes to standard error, and how ^C reaches the operation. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "cli/progress.h"

static int kept_stderr, written;

static void catch_stderr(void)
{
	int ends[2];

	assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
	kept_stderr = dup(STDERR_FILENO);
	dup2(ends[1], STDERR_FILENO);
	close(ends[1]);
	written = ends[0];
}

/* Gives standard error back; what was written to it is in `text`. */
static void release_stderr(char *text, size_t size)
{
	ssize_t n = read(written, text, size - 1);

	text[n > 0 ? n : 0] = 0;
	dup2(kept_stderr, STDERR_FILENO);
	close(kept_stderr);
	close(written);
}

static void test_modes(void **state)
{
	enum progress_mode mode;
	struct ploop_error err;

	(void)state;
	assert_int_equal(progress_parse("json", &mode, &err), 0);
	assert_int_equal(mode, PROGRESS_JSON);
	assert_int_equal(progress_parse("none", &mode, &err), 0);
	assert_int_equal(mode, PROGRESS_NONE);
	assert_int_equal(progress_parse("auto", &mode, &err), 0);
	assert_int_equal(mode, PROGRESS_AUTO);
	assert_int_equal(progress_parse("", &mode, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_PARAM);
}

static void test_json(void **state)
{
	struct progress progress;
	char text[256];

	(void)state;
	catch_stderr();
	progress_start(&progress, PROGRESS_JSON);
	assert_int_equal(progress_report(&progress, "copy", 1, 10), 0);
	assert_int_equal(progress_report(&progress, "copy", 2, 10), 0); /* too soon after the first */
	assert_int_equal(progress_report(&progress, "copy", 10, 10), 0);
	progress_end(&progress);
	release_stderr(text, sizeof(text));
	assert_string_equal(
		text, "{\"stage\":\"copy\",\"done\":1,\"total\":10}\n{\"stage\":\"copy\",\"done\":10,\"total\":10}\n");
}

static void test_quiet(void **state)
{
	static const enum progress_mode modes[] = { PROGRESS_AUTO, PROGRESS_NONE };
	struct progress progress;
	char text[256];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		catch_stderr(); /* which is no terminal now */
		progress_start(&progress, modes[i]);
		assert_int_equal(progress_report(&progress, "copy", 10, 10), 0);
		progress_end(&progress);
		release_stderr(text, sizeof(text));
		assert_string_equal(text, "");
	}
}

static void test_cancel(void **state)
{
	struct progress progress;
	struct sigaction action;
	char text[256];

	(void)state;
	catch_stderr();
	progress_start(&progress, PROGRESS_NONE);
	assert_int_equal(progress_report(&progress, "copy", 1, 10), 0);
	raise(SIGINT);
	assert_int_equal(progress_report(&progress, "copy", 2, 10), -ECANCELED);
	progress_end(&progress);
	release_stderr(text, sizeof(text));
	assert_string_equal(text, "Cancelling...\n");
	sigaction(SIGINT, NULL, &action);
	assert_ptr_equal(action.sa_handler, SIG_DFL);
	/* The next operation starts afresh. */
	progress_start(&progress, PROGRESS_NONE);
	assert_int_equal(progress_report(&progress, "copy", 1, 10), 0);
	progress_end(&progress);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_modes),
		cmocka_unit_test(test_json),
		cmocka_unit_test(test_quiet),
		cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
