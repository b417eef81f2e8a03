/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rundir.h, node.h, state.h: names are taken once, the dead are seen, nothing of others is touched. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "control/node.h"
#include "control/rundir.h"
#include "control/state.h"

static char scratch[] = "/tmp/ploop-rundir.XXXXXX";

static void path_in_dev(const char *name, char path[PATH_MAX])
{
	snprintf(path, PATH_MAX, "%s/dev/%s", scratch, name);
}

static int setup(void **state)
{
	char path[64];

	(void)state;
	if (!mkdtemp(scratch))
		return -1;
	snprintf(path, sizeof(path), "%s/a/run", scratch);
	setenv("PLOOP_RUN_DIR", path, 1);
	snprintf(path, sizeof(path), "%s/dev", scratch);
	setenv("PLOOP_DEV_DIR", path, 1);
	return mkdir(path, 0755);
}

static int teardown(void **state)
{
	char command[64];

	(void)state;
	snprintf(command, sizeof(command), "rm -rf %s", scratch);
	return system(command);
}

static void test_names(void **state)
{
	static const char *const bad[] = { "ploop", "ploop00",       "ploop1x", "../ploop1",
					   "loop0", "ploop12345678", "ploop-1", "" };
	char name[RUNDIR_NAME];

	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
		assert_false(rundir_name_ok(bad[i]));
	assert_int_equal(rundir_name_of("/dev/ploop12p1", name), 0);
	assert_string_equal(name, "ploop12");
	assert_int_equal(rundir_name_of("ploop0", name), 0);
	assert_string_equal(name, "ploop0");
	assert_int_equal(rundir_name_of("/dev/loop0", name), -EINVAL);
	assert_int_equal(rundir_name_of("/dev/ploopp1", name), -EINVAL);
}

static void test_claim(void **state)
{
	char name[RUNDIR_NAME], path[PATH_MAX];
	struct ploop_error err;
	char(*names)[RUNDIR_NAME];
	struct stat st;
	size_t n;

	(void)state;
	assert_int_equal(rundir_list(&names, &n, NULL), 0);
	assert_int_equal(n, 0);
	assert_int_equal(rundir_claim(NULL, name, NULL), 0);
	assert_string_equal(name, "ploop0");
	assert_int_equal(rundir_pid("ploop0"), getpid());
	assert_int_equal(rundir_path("ploop0", "", path), 0);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0700);
	assert_int_equal(rundir_claim("ploop10", name, NULL), 0);
	assert_int_equal(rundir_claim("ploop10", name, &err), -EBUSY);
	assert_int_equal(rundir_claim("ploop2", name, NULL), 0);
	assert_int_equal(rundir_list(&names, &n, NULL), 0);
	assert_int_equal(n, 3);
	assert_string_equal(names[1], "ploop2");
	assert_string_equal(names[2], "ploop10");
	free(names);
	assert_int_equal(rundir_remove("ploop0"), 0);
	assert_int_equal(rundir_remove("ploop0"), 0);
	assert_int_equal(rundir_remove("ploop2"), 0);
	assert_int_equal(rundir_remove("ploop10"), 0);
}

/* A keeper and an engine: the device is there as long as one of them is. */
static void test_two_owners(void **state)
{
	char name[RUNDIR_NAME];
	pid_t child;

	(void)state;
	assert_int_equal(rundir_claim("ploop20", name, NULL), 0);
	assert_int_equal(rundir_engine(name), getpid());
	child = fork();
	if (!child) {
		pause();
		_exit(0);
	}
	assert_int_equal(rundir_own(name, getpid(), child), 0);
	assert_int_equal(rundir_pid(name), getpid());
	assert_int_equal(rundir_engine(name), child);
	assert_int_equal(rundir_own(name, child, getpid()), 0);
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	assert_int_equal(rundir_pid(name), getpid());
	assert_int_equal(rundir_own(name, getpid(), child), 0);
	assert_int_equal(rundir_engine(name), 0);
	assert_int_equal(rundir_remove(name), 0);
}

static void test_race(void **state)
{
	char seen[16] = { 0 }, name[RUNDIR_NAME];
	int ends[2], status;

	(void)state;
	assert_int_equal(pipe(ends), 0);
	for (int i = 0; i < 16; i++) {
		if (fork() == 0) {
			char byte = -1;

			if (rundir_claim(NULL, name, NULL) == 0)
				byte = (char)rundir_number(name);
			_exit(write(ends[1], &byte, 1) != 1);
		}
	}
	for (int i = 0; i < 16; i++) {
		char byte;

		assert_int_equal(read(ends[0], &byte, 1), 1);
		assert_in_range(byte, 0, 15);
		assert_int_equal(seen[(int)byte]++, 0);
		wait(&status);
	}
	/* All of them are dead now, and their names stay taken until they are cleared. */
	for (int i = 0; i < 16; i++) {
		snprintf(name, sizeof(name), "ploop%d", i);
		assert_int_equal(rundir_pid(name), 0);
		assert_int_equal(rundir_claim(name, name, NULL), -EBUSY);
		assert_int_equal(rundir_remove(name), 0);
	}
	close(ends[0]);
	close(ends[1]);
}

static void test_reused_pid(void **state)
{
	char name[RUNDIR_NAME], text[64];

	(void)state;
	assert_int_equal(rundir_claim(NULL, name, NULL), 0);
	snprintf(text, sizeof(text), "%d 12345\n", (int)getpid());
	assert_int_equal(rundir_write(name, "pid", text, strlen(text)), 0);
	assert_int_equal(rundir_pid(name), 0);
	assert_int_equal(rundir_write(name, "pid", "garbage", 7), 0);
	assert_int_equal(rundir_pid(name), 0);
	assert_int_equal(rundir_remove(name), 0);
}

static void test_nodes(void **state)
{
	char path[PATH_MAX], target[PATH_MAX] = "", name[RUNDIR_NAME];
	struct ploop_error err;

	(void)state;
	path_in_dev("ploop0", path);
	assert_int_equal(symlink("/nowhere/gone", path), 0); /* stale */
	assert_int_equal(rundir_claim("ploop0", name, NULL), 0);
	assert_int_equal(node_make("ploop0", "/dev/null", NULL), 0);
	assert_true(readlink(path, target, sizeof(target)) > 0);
	assert_string_equal(target, "/dev/null");
	/* The name of a partition that is gone goes. */
	path_in_dev("ploop0p1", path);
	assert_int_equal(symlink("/dev/nullp1", path), 0);
	assert_int_equal(node_sync("ploop0", "/dev/null", NULL), 0);
	assert_int_equal(readlink(path, target, sizeof(target)), -1);
	assert_int_equal(rundir_remove("ploop0"), 0);
	path_in_dev("ploop0", path);
	assert_int_equal(readlink(path, target, sizeof(target)), -1);

	/* What is not ours is neither taken nor removed. */
	path_in_dev("ploop0", path);
	close(open(path, O_CREAT | O_WRONLY, 0600));
	assert_int_equal(rundir_claim("ploop0", name, &err), -EEXIST);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(rundir_claim(NULL, name, NULL), 0);
	assert_string_equal(name, "ploop1");
	assert_int_equal(rundir_remove("ploop1"), 0);
	node_remove("ploop0");
	assert_int_equal(access(path, F_OK), 0);
	unlink(path);
}

static void test_state(void **state)
{
	char *images[] = { (char *)"/a", (char *)"/b" };
	struct device_state out = { .name = (char *)"ploop0",
				    .node = (char *)"/dev/loop9",
				    .images = images,
				    .nimages = 2,
				    .size = 1ULL << 46,
				    .cluster = 1 << 20,
				    .read_only = true,
				    .diskseq = 77 };
	struct device_state in;
	char name[RUNDIR_NAME];

	(void)state;
	assert_int_equal(state_load("ploop0", &in, NULL), -ENOENT);
	assert_int_equal(rundir_claim(NULL, name, NULL), 0);
	assert_int_equal(state_save(&out, NULL), 0);
	assert_int_equal(state_load("ploop0", &in, NULL), 0);
	assert_string_equal(in.node, "/dev/loop9");
	assert_int_equal(in.nimages, 2);
	assert_string_equal(in.images[1], "/b");
	assert_true(in.size == out.size && in.cluster == out.cluster && in.read_only && in.diskseq == 77);
	state_clear(&in);
	assert_int_equal(rundir_write(name, "state.json", "{\"name\":\"x\"}\n", 13), 0);
	assert_int_equal(state_load("ploop0", &in, NULL), -EPROTO);
	assert_int_equal(rundir_remove(name), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_two_owners),
		cmocka_unit_test(test_names),      cmocka_unit_test(test_claim), cmocka_unit_test(test_race),
		cmocka_unit_test(test_reused_pid), cmocka_unit_test(test_nodes), cmocka_unit_test(test_state),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
