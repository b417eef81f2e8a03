/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ploopd.c - ploopd as a child that leaves us: it forks once more by itself, so that the caller has no zombie, and answers on
 * the socket that is its standard input.
 *
 * Where systemd runs, ploopd gets a scope of its own in system.slice: in the session or service of its caller it would be
 * killed together with that.
 */
#include "lib/ploopd.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/client.h"
#include "control/message.h"
#include "control/rundir.h"
#include "lib/settle.h"

#define END_TIMEOUT_MS 30000
#define KEEP_TIMEOUT_MS 10000

/* The daemon beside the program that runs; else the installed one. */
static void daemon_beside(char path[PATH_MAX])
{
	char self[PATH_MAX];
	ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - sizeof("/ploopd"));
	char *slash;

	self[n > 0 ? n : 0] = '\0';
	slash = strrchr(self, '/');
	if (slash)
		strcpy(slash, "/ploopd");
	snprintf(path, PATH_MAX, "%s", slash && !access(self, X_OK) ? self : PLOOPD_PATH);
}

int find_daemon(char path[PATH_MAX], struct ploop_error *err)
{
	const char *wanted = secure_getenv("PLOOPD");

	if (wanted && *wanted)
		snprintf(path, PATH_MAX, "%s", wanted);
	else
		daemon_beside(path);
	if (access(path, X_OK) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS,
				 "%s: cannot run the daemon; the variable PLOOPD can say where it is", path);
	return 0;
}

static bool systemd_runs(void)
{
	return !access("/run/systemd/system", F_OK) && !secure_getenv("PLOOP_NO_SYSTEMD");
}

/* Runs `argv` with `fd` as its standard input; returns its exit status, or a negative errno. */
static int run(char *const *argv, int fd)
{
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t none;
	int r, status;
	pid_t pid;

	sigemptyset(&none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, fd, STDIN_FILENO);
	posix_spawnattr_init(&attributes);
	posix_spawnattr_setsigmask(&attributes, &none);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
	r = -posix_spawnp(&pid, argv[0], &actions, &attributes, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	if (r < 0)
		return r;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return errno == ECHILD ? 0 : -errno; /* a caller that ignores SIGCHLD */
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int start(const char *path, const char *title, int fd, struct ploop_error *err)
{
	const char *in_scope[] = { "systemd-run",
				   "--scope",
				   "--quiet",
				   "--collect",
				   "--slice=system.slice",
				   "--property=DefaultDependencies=no",
				   "--property=SendSIGKILL=no",
				   path,
				   title,
				   NULL };
	const char *plain[] = { path, title, NULL };
	int r = -ENOENT;

	if (systemd_runs())
		r = run((char *const *)in_scope, fd);
	if (r)
		r = run((char *const *)plain, fd);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s", path);
	if (r > 0)
		return error_set(err, -ECHILD, PLOOP_EXIT_SYS, "%s: ended with status %d", path, r);
	return 0;
}

static int send_request(int fd, const struct open_request *request)
{
	_message_ struct json_object *message = NULL;
	int r;

	r = open_request_print(request, &message);
	return r < 0 ? r : message_write(fd, message);
}

static int receive_answer(int fd, struct device_state *ret, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct message_buffer buffer = { 0 };
	struct json_object *result = NULL;
	ssize_t n = 1;
	int r;

	while ((r = message_take(&buffer, &answer)) == 0 && n > 0)
		n = message_fill(&buffer, fd);
	message_buffer_free(&buffer);
	if (r <= 0)
		return error_set(err, r < 0 ? r : -ECONNRESET, PLOOP_EXIT_SYS,
				 "ploopd ended without an answer; see the system's log");
	r = message_result(answer, &result, err);
	if (r < 0)
		return r;
	return state_parse(result, ret, err);
}

int spawn_daemon(const struct open_request *request, struct device_state *ret, int *ret_connection,
		 struct ploop_error *err)
{
	_close_ int ours = -EBADF, theirs = -EBADF;
	char path[PATH_MAX];
	int ends[2], r;

	r = find_daemon(path, err);
	if (r < 0)
		return r;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS, "socketpair");
	ours = ends[0];
	theirs = ends[1];
	r = start(path, request->operands[0], theirs, err);
	if (r < 0)
		return r;
	close(take_fd(&theirs));
	r = send_request(ours, request);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s", path);
	r = receive_answer(ours, ret, err);
	if (r == 0)
		*ret_connection = take_fd(&ours);
	return r;
}

int spawn_keep(int connection, struct ploop_error *err)
{
	static const char line[] = "{\"verb\":\"keep\"}\n";
	struct pollfd end = { .fd = connection, .events = POLLIN };
	char rest[16];

	if (send(connection, line, sizeof(line) - 1, MSG_NOSIGNAL) != (ssize_t)sizeof(line) - 1)
		return error_sys(err, -errno, PLOOP_EXIT_PROTOCOL, "lost ploopd");
	/* Its end of the connection goes when the device has its keeper. */
	if (poll(&end, 1, KEEP_TIMEOUT_MS) > 0)
		(void)!read(connection, rest, sizeof(rest));
	return 0;
}

/* Waits until the process behind `pidfd` is gone. */
static int wait_for_exit(int pidfd)
{
	struct pollfd wait = { .fd = pidfd, .events = POLLIN };
	int n;

	do
		n = poll(&wait, 1, END_TIMEOUT_MS);
	while (n < 0 && errno == EINTR);
	return n < 0 ? -errno : n == 0 ? -ETIMEDOUT : 0;
}

/*
 * The daemon cannot be reached: it may be ending by itself, as one does whose client died before the device was kept, once its file
 * system is unmounted. When it has left nothing behind, all was closed.
 */
static bool has_ended(const char *name, int pidfd)
{
	char path[PATH_MAX];

	if (pidfd >= 0 && wait_for_exit(pidfd) < 0)
		return false;
	return rundir_path(name, "", path) == 0 && access(path, F_OK) < 0 && errno == ENOENT;
}

int daemon_end(const char *name, pid_t pid, bool lazy, struct ploop_error *err)
{
	_close_ int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	struct json_object *arguments = json_object_new_object();
	_client_ struct control_client *client = NULL;
	int r;

	/* So that the answer to "stop" does not take longer than anybody waits. */
	if (!lazy)
		(void)settle_device(name, NULL);
	r = control_connect(name, CONTROL_TIMEOUT_MS, &client, err);
	if (r < 0) {
		json_object_put(arguments);
		return (r == -ENOENT || r == -ECONNREFUSED) && has_ended(name, pidfd) ? 0 : r;
	}
	if (arguments)
		message_add_bool(arguments, "lazy", lazy);
	r = control_call(client, "stop", arguments, NULL, err);
	if (r < 0 || lazy)
		return r;
	if (pidfd >= 0 && wait_for_exit(pidfd) < 0)
		return error_set(err, -ETIMEDOUT, PLOOP_EXIT_SYS, "%s: ploopd (process %d) does not end", name,
				 (int)pid);
	return 0;
}
