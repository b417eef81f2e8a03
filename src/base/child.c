/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* child.c - spawns a helper program and logs what it says. */
#include "base/child.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"

/* Helper programs live where an ordinary user's PATH does not look. */
#define SBIN "/usr/local/sbin:/usr/sbin:/sbin"

static bool find_in(const char *list, const char *name, char *path)
{
	while (*list) {
		int len = (int)strcspn(list, ":");

		if (len > 0 && snprintf(path, PATH_MAX, "%.*s/%s", len, list, name) < PATH_MAX && !access(path, X_OK))
			return true;
		list += len + (list[len] == ':');
	}
	return false;
}

static bool find_program(const char *name, char *path)
{
	const char *list = getenv("PATH");

	if (strchr(name, '/'))
		return snprintf(path, PATH_MAX, "%s", name) < PATH_MAX && !access(path, X_OK);
	return (list && find_in(list, name, path)) || find_in(SBIN, name, path);
}

/* Its own copy of the environment, in which programs speak the language that we look for. Only the array is new. */
static char **plain_environment(void)
{
	static char locale[] = "LC_ALL=C";
	size_t n = 0, used = 0;
	char **copy;

	while (environ[n])
		n++;
	copy = calloc(n + 2, sizeof(*copy));
	if (!copy)
		return NULL;
	for (size_t i = 0; i < n; i++)
		if (strncmp(environ[i], "LC_ALL=", 7))
			copy[used++] = environ[i];
	copy[used] = locale;
	return copy;
}

/* Signals that the caller blocked (to wait for them in a loop) work as usual in the child. */
static int spawn_attributes(posix_spawnattr_t *attributes)
{
	sigset_t none;

	sigemptyset(&none);
	posix_spawnattr_init(attributes);
	posix_spawnattr_setsigmask(attributes, &none);
	return posix_spawnattr_setflags(attributes, POSIX_SPAWN_SETSIGMASK);
}

static int spawn(const struct child_request *request, const char *path, int out, pid_t *ret_pid)
{
	_free_ char **environment = plain_environment();
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	int r;

	if (!environment)
		return -ENOMEM;
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	posix_spawn_file_actions_adddup2(&actions, out, STDERR_FILENO);
	if (request->fd >= 0)
		posix_spawn_file_actions_adddup2(&actions, request->fd, CHILD_FD);
	posix_spawn_file_actions_addclosefrom_np(&actions, request->fd >= 0 ? CHILD_FD + 1 : CHILD_FD);
	r = spawn_attributes(&attributes);
	if (!r)
		r = posix_spawn(ret_pid, path, &actions, &attributes, (char *const *)request->argv, environment);
	posix_spawnattr_destroy(&attributes);
	posix_spawn_file_actions_destroy(&actions);
	return -r;
}

/* Counters go back over what they wrote: what a person would see in the end is what counts. */
static void apply_backspaces(char *line)
{
	size_t to = 0, end = 0;

	for (const char *from = line; *from; from++) {
		if (*from == '\b') {
			to -= to > 0;
			continue;
		}
		line[to++] = *from;
		if (to > end)
			end = to;
	}
	line[end] = 0;
	while (end && line[end - 1] == ' ')
		line[--end] = 0;
}

static void log_line(int level, char *line, char *last, unsigned last_size)
{
	apply_backspaces(line);
	if (!line[strspn(line, " \t")])
		return;
	log_write(level, "%s", line);
	if (last)
		snprintf(last, last_size, "%s", line);
}

static void log_output(int in, int level, char *last, unsigned last_size)
{
	_fclose_ FILE *stream = fdopen(in, "r");
	_free_ char *line = NULL;
	size_t size = 0;
	ssize_t len;

	if (!stream) {
		close(in);
		return;
	}
	while ((len = getline(&line, &size, stream)) >= 0) {
		if (len && line[len - 1] == '\n')
			line[len - 1] = 0;
		log_line(level, line, last, last_size);
	}
}

static int wait_for(pid_t pid, int *ret_exit)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	*ret_exit = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	return 0;
}

int child_run(const struct child_request *request, int *ret_exit, char *last, unsigned last_size)
{
	char path[PATH_MAX];
	int ends[2], r;
	pid_t pid;

	if (last && last_size)
		last[0] = 0;
	if (!find_program(request->argv[0], path))
		return -ENOENT;
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	r = spawn(request, path, ends[1], &pid);
	close(ends[1]);
	if (r < 0) {
		close(ends[0]);
		return r;
	}
	log_output(ends[0], request->level, last, last_size);
	return wait_for(pid, ret_exit);
}
