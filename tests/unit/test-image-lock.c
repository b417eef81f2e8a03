/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Locks between processes, and with qemu-img, which must see ours and be seen. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "image/lock.h"

static char folder[64], image[96];
static struct ploop_error error;

static int shell(const char *format, const char *argument)
{
	char command[512];

	snprintf(command, sizeof(command), format, argument, argument);
	return system(command);
}

static int set_up(void **state)
{
	(void)state;
	strcpy(folder, "/var/tmp/ploop-test-lock-XXXXXX");
	assert_non_null(mkdtemp(folder));
	snprintf(image, sizeof(image), "%s/image", folder);
	return shell("truncate -s 1M %s", image);
}

static int tear_down(void **state)
{
	(void)state;
	return shell("rm -r %s", folder);
}

static int open_image(void)
{
	int fd = open(image, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	memset(&error, 0, sizeof(error));
	return fd;
}

static int take(int fd, enum file_lock from, enum file_lock to)
{
	return lock_file(fd, from, to, image, &error);
}

static void test_readers_and_writer(void **state)
{
	int a = open_image(), b = open_image(), c = open_image();

	(void)state;
	assert_int_equal(take(a, FILE_LOCK_NONE, FILE_LOCK_READ), 0);
	assert_int_equal(take(b, FILE_LOCK_NONE, FILE_LOCK_READ), 0);
	assert_int_equal(take(c, FILE_LOCK_NONE, FILE_LOCK_WRITE), -EBUSY);
	assert_int_equal(error.status, PLOOP_EXIT_IN_USE);
	assert_int_equal(take(a, FILE_LOCK_READ, FILE_LOCK_WRITE), -EBUSY);
	close(b);
	assert_int_equal(take(a, FILE_LOCK_READ, FILE_LOCK_WRITE), 0);
	assert_int_equal(take(c, FILE_LOCK_NONE, FILE_LOCK_READ), -EBUSY);
	assert_int_equal(take(c, FILE_LOCK_NONE, FILE_LOCK_WRITE), -EBUSY);
	assert_int_equal(take(a, FILE_LOCK_WRITE, FILE_LOCK_READ), 0);
	assert_int_equal(take(c, FILE_LOCK_NONE, FILE_LOCK_READ), 0);
	assert_int_equal(take(a, FILE_LOCK_READ, FILE_LOCK_NONE), 0);
	assert_int_equal(take(c, FILE_LOCK_READ, FILE_LOCK_WRITE), 0);
	close(a);
	close(c);
}

/* Starts a process that does `work` and then waits to be killed. */
static pid_t start_holder(void (*work)(void))
{
	int ready[2];
	char byte = 0;
	pid_t pid;

	assert_int_equal(pipe(ready), 0);
	pid = fork();
	if (!pid) {
		work();
		if (write(ready[1], &byte, 1) == 1)
			pause();
		_exit(1);
	}
	assert_int_equal(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	close(ready[1]);
	return pid;
}

static void stop_holder(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static void hold_writing(void)
{
	if (take(open_image(), FILE_LOCK_NONE, FILE_LOCK_WRITE) < 0)
		_exit(1);
}

static void test_holder_is_named(void **state)
{
	pid_t pid = start_holder(hold_writing);
	int fd = open_image();
	char want[64];

	(void)state;
	assert_int_equal(lock_holder(fd), pid);
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_READ), -EBUSY);
	snprintf(want, sizeof(want), "in use by process %d (test-image-lock)", pid);
	assert_non_null(strstr(error.text, want));
	stop_holder(pid);
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_WRITE), 0);
	close(fd);
}

/* Tries to write when `go` is closed, tells whether it may, and holds it until `end` is closed. */
static void race(const int go[2], const int told[2], const int end[2])
{
	int fd = open_image();
	char byte;

	close(go[1]);
	close(end[1]);
	if (read(go[0], &byte, 1) != 0)
		_exit(2);
	byte = take(fd, FILE_LOCK_NONE, FILE_LOCK_WRITE) == 0;
	if (write(told[1], &byte, 1) != 1 || read(end[0], &byte, 1) != 0)
		_exit(2);
	_exit(0);
}

/* Two at the same moment: never both, and not for long none. */
static void test_race(void **state)
{
	(void)state;
	for (int round = 0; round < 10; round++) {
		int winners = 0, status, go[2], told[2], end[2];
		pid_t pids[4];
		char won;

		assert_int_equal(pipe(go) | pipe(told) | pipe(end), 0);
		for (int i = 0; i < 4; i++) {
			pids[i] = fork();
			if (!pids[i])
				race(go, told, end);
		}
		close(go[0]);
		close(go[1]);
		for (int i = 0; i < 4; i++) {
			assert_int_equal(read(told[0], &won, 1), 1);
			winners += won;
		}
		close(told[0]);
		close(told[1]);
		close(end[0]);
		close(end[1]);
		for (int i = 0; i < 4; i++) {
			waitpid(pids[i], &status, 0);
			assert_int_equal(status, 0);
		}
		assert_true(winners <= 1);
	}
}

static void hold_disk(void)
{
	int fd;

	if (lock_disk(image, 0, &fd, &error) < 0)
		_exit(1);
}

static void test_disk(void **state)
{
	pid_t pid = start_holder(hold_disk);
	int fd = -1;
	char want[160];

	(void)state;
	assert_int_equal(lock_disk(image, 60, &fd, &error), -EBUSY);
	assert_int_equal(error.status, PLOOP_EXIT_LOCK);
	snprintf(want, sizeof(want), "The %s is locked by process %d", image, pid);
	assert_non_null(strstr(error.text, want));
	stop_holder(pid);
	assert_int_equal(lock_disk(image, 0, &fd, &error), 0);
	assert_int_equal(shell("test -f %s.lck", image), 0);
	assert_int_not_equal(shell("flock -n %s.lck true", image), 0);
	close(fd);
	assert_int_equal(shell("flock -n %s.lck true", image), 0);
}

/* Whether qemu-img is content with the image in this state. */
static bool qemu(const char *what)
{
	char command[256];

	snprintf(command, sizeof(command), "qemu-img %s %%s >/dev/null 2>%%s.err", what);
	if (!shell(command, image))
		return true;
	assert_int_equal(shell("grep -q lock %s.err", image), 0);
	return false;
}

static void test_qemu(void **state)
{
	int fd;

	(void)state;
	if (system("command -v qemu-img qemu-io >/dev/null"))
		skip();
	assert_int_equal(shell("rm %s; qemu-img create -q -f parallels %s 64M", image), 0);
	fd = open_image();
	assert_true(qemu("check -f parallels"));
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_WRITE), 0);
	assert_false(qemu("check -f parallels"));
	assert_false(qemu("check -r all -f parallels"));
	assert_false(qemu("info -f parallels"));
	assert_false(qemu("map -f parallels"));
	assert_false(qemu("bench -c 1 -f parallels"));
	assert_true(qemu("info -U -f parallels"));
	assert_int_equal(take(fd, FILE_LOCK_WRITE, FILE_LOCK_READ), 0);
	assert_true(qemu("check -f parallels"));
	assert_true(qemu("info -f parallels"));
	assert_false(qemu("check -r all -f parallels"));
	assert_false(qemu("bench -w -c 1 -f parallels"));
	close(fd);
}

static pid_t qemu_pid;

/* A qemu that has the image open, and for us. */
static void start_qemu(const char *options)
{
	int in[2], out[2];
	char text[64];

	assert_int_equal(pipe(in), 0);
	assert_int_equal(pipe(out), 0);
	qemu_pid = fork();
	if (!qemu_pid) {
		dup2(in[0], 0);
		dup2(out[1], 1);
		close(in[1]);
		execlp("qemu-io", "qemu-io", options, "-f", "parallels", image, NULL);
		_exit(1);
	}
	close(in[0]);
	close(out[1]);
	assert_true(read(out[0], text, sizeof(text)) > 0); /* its prompt */
	close(out[0]);
}

static void test_qemu_first(void **state)
{
	int fd;

	(void)state;
	if (system("command -v qemu-img qemu-io >/dev/null"))
		skip();
	assert_int_equal(shell("rm %s; qemu-img create -q -f parallels %s 64M", image), 0);
	fd = open_image();
	start_qemu("-C");
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_READ), -EBUSY);
	assert_non_null(strstr(error.text, "(qemu-io)"));
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_WRITE), -EBUSY);
	stop_holder(qemu_pid);
	start_qemu("-r");
	assert_int_equal(take(fd, FILE_LOCK_NONE, FILE_LOCK_READ), 0);
	assert_int_equal(take(fd, FILE_LOCK_READ, FILE_LOCK_WRITE), -EBUSY);
	stop_holder(qemu_pid);
	assert_int_equal(take(fd, FILE_LOCK_READ, FILE_LOCK_WRITE), 0);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_readers_and_writer, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_holder_is_named, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_race, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_disk, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_qemu, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_qemu_first, set_up, tear_down),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
