/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keeper.c - see keeper.h. */
#include "daemon/keeper.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "control/rundir.h"
#include "daemon/keeper-message.h"
#include "daemon/self.h"

#define CRASHES 5
#define CRASHES_MOST 100
#define CRASH_SECONDS 60
#define PAUSE_MS 100 /* before the second, third ... try in a row */

extern char **environ;

struct keeper {
	struct keeper_set set;
	int socket; /* to the engine */
	int signals;
	int refuge;
	pid_t engine;
	bool handed;           /* the engine has handed over */
	char program[PATH_MAX]; /* that is to be next; "": this one */
	uint64_t started;       /* the engine, ms */
	uint64_t crashes[CRASHES_MOST];
	unsigned ncrashes, limit;
};

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* For tests that kill more often than anybody else does. */
static unsigned crash_limit(void)
{
	const char *text = getenv("PLOOPD_CRASHES");
	long n = text ? strtol(text, NULL, 10) : 0;

	return n > 0 && n <= CRASHES_MOST ? (unsigned)n : CRASHES;
}

static void set_clear(struct keeper_set *set)
{
	for (unsigned i = 0; i < set->n; i++)
		close(set->fds[i]);
	set->n = 0;
}

/* --- the end --- */

/* What is kept is closed by the end of the process. */
static _Noreturn void give_up(struct keeper *keeper)
{
	char text[128];

	snprintf(text, sizeof(text), "its ploopd died %u times within %u seconds and is not started again\n",
		 keeper->limit, CRASH_SECONDS);
	log_error("%s: %s", keeper->set.name, text);
	self_find_root(keeper->refuge);
	(void)rundir_write(keeper->set.name, "failed", text, strlen(text));
	exit(EXIT_FAILURE);
}

/* Counts a crash. */
static void account(struct keeper *keeper)
{
	uint64_t now = now_ms(), oldest;

	keeper->crashes[keeper->ncrashes++ % keeper->limit] = now;
	oldest = keeper->crashes[keeper->ncrashes % keeper->limit];
	if (keeper->ncrashes >= keeper->limit && now - oldest < CRASH_SECONDS * UINT64_C(1000))
		give_up(keeper);
	log_error("%s: its ploopd (process %d) has died; another one takes over", keeper->set.name,
		  (int)keeper->engine);
	if (now - keeper->started < PAUSE_MS)
		(void)poll(NULL, 0, PAUSE_MS);
}

/* --- another program --- */

static void keep_over_exec(int fd)
{
	(void)fcntl(fd, F_SETFD, 0);
}

/* Becomes the program. Returns only when that fails. */
static void become(struct keeper *keeper)
{
	char number[16];
	const char *const argv[] = { "ploopd", "--keeper", "start", number, keeper->set.name, NULL };
	int ends[2];

	snprintf(number, sizeof(number), "%d", keeper->refuge);
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0 ||
	    keeper_keep(ends[0], &keeper->set) < 0 || dup2(ends[1], KEEPER_SOCKET) < 0) {
		log_error("%s: %s", keeper->program, strerror(errno));
		return;
	}
	if (keeper->refuge >= 0)
		keep_over_exec(keeper->refuge);
	execve(keeper->program, (char *const *)argv, environ);
	log_error("%s: %s; the program that was there goes on", keeper->program, strerror(errno));
	close(ends[0]);
	close(ends[1]);
}

/* --- engines --- */

/* True in the engine. */
static bool start(struct keeper *keeper, int first, struct keeper_engine *ret)
{
	int ends[2];

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return false;
	keeper->handed = false;
	keeper->program[0] = '\0';
	keeper->started = now_ms();
	keeper->engine = fork();
	if (keeper->engine == 0) {
		close(ends[0]);
		close(keeper->signals);
		ret->socket = ends[1];
		ret->kept = keeper->set;
		return true;
	}
	close(ends[1]);
	if (first >= 0)
		close(first);
	keeper->socket = ends[0];
	return false;
}

/* One message. False: the engine has ended. */
static bool receive(struct keeper *keeper)
{
	struct keeper_message message;
	struct keeper_set set;
	int r = keeper_receive(keeper->socket, &message, &set);

	if (r <= 0)
		return r == -EINTR || r == -EAGAIN;
	if (message.kind == KEEPER_KEEP) {
		set_clear(&keeper->set);
		keeper->set = set;
		return true;
	}
	set_clear(&set);
	if (message.kind == KEEPER_FORGET) {
		set_clear(&keeper->set);
	} else if (message.kind == KEEPER_UPGRADE) {
		keeper->handed = true;
		memcpy(keeper->program, message.text, sizeof(keeper->program));
	}
	return true;
}

/* Who asks us to end means the engine. */
static void pass_signal(const struct keeper *keeper)
{
	struct signalfd_siginfo info;

	if (read(keeper->signals, &info, sizeof(info)) == sizeof(info) && info.ssi_signo != SIGHUP)
		kill(keeper->engine, (int)info.ssi_signo);
}

/* Until the engine has ended. */
static void watch(struct keeper *keeper)
{
	struct pollfd fds[] = { { .fd = keeper->socket, .events = POLLIN },
				{ .fd = keeper->signals, .events = POLLIN } };

	for (;;) {
		if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
			continue;
		if (fds[1].revents)
			pass_signal(keeper);
		if (fds[0].revents && !receive(keeper))
			break;
	}
	close(keeper->socket);
}

/* Watches the engine and the next and so on; returns in each that is started. */
static void run(struct keeper *keeper, struct keeper_engine *ret)
{
	do {
		watch(keeper);
		if (!keeper->set.n || (!keeper->handed && !keeper->set.any_time))
			exit(EXIT_SUCCESS);
		if (!keeper->handed)
			account(keeper);
		else if (keeper->program[0])
			become(keeper);
	} while (!start(keeper, -1, ret));
}

static void prepare(struct keeper *keeper, int refuge)
{
	sigset_t set;

	keeper->refuge = refuge;
	keeper->limit = crash_limit();
	signal(SIGCHLD, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	(void)sigprocmask(SIG_BLOCK, &set, NULL);
	keeper->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	self_protect();
}

void keeper_run(int first, int refuge, struct keeper_engine *ret)
{
	static struct keeper keeper;

	prepare(&keeper, refuge);
	if (!start(&keeper, first, ret))
		run(&keeper, ret);
}

void keeper_resume(const char *how, const char *refuge, struct keeper_engine *ret)
{
	static struct keeper keeper;

	(void)fcntl(KEEPER_SOCKET, F_SETFD, FD_CLOEXEC);
	prepare(&keeper, (int)strtol(refuge, NULL, 10));
	if (keeper.refuge >= 0)
		(void)fcntl(keeper.refuge, F_SETFD, FD_CLOEXEC);
	keeper.socket = KEEPER_SOCKET;
	keeper.engine = getppid();
	keeper.started = now_ms();
	if (!receive(&keeper))
		exit(EXIT_FAILURE);
	if (!strcmp(how, "start")) {
		close(KEEPER_SOCKET);
		if (start(&keeper, -1, ret))
			return;
	}
	run(&keeper, ret);
}
