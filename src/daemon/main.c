/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * main.c - ploopd [--foreground] [TEXT]: reads one request (control/open.h) from standard input, answers there, and serves the
 * device. TEXT is for the eyes of who reads `ps`.
 *
 * Not in the foreground it becomes two processes, keeper and engine (keeper.h), unless PLOOPD_ALONE is in the environment.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "daemon/daemon.h"
#include "daemon/keeper.h"
#include "daemon/kept.h"
#include "daemon/self.h"
#include "daemon/succeed.h"

#define RING_DEPTH 512

struct signals {
	struct daemon *daemon;
	struct loop_watch watch;
};

static void to_syslog(void *data, int level, const char *text)
{
	(void)data;
	syslog(level < 0 ? LOG_ERR : level <= LOG_LEVEL_WARNING ? LOG_WARNING : LOG_INFO, "%s", text);
}

static void to_stderr(void *data, int level, const char *text)
{
	(void)data;
	(void)level;
	fprintf(stderr, "ploopd: %s\n", text);
}

/* SIGTERM and SIGINT: an orderly end, as soon as nobody has the device open. */
static void signals_ready(struct loop_watch *watch, int revents)
{
	struct signals *signals = container_of(watch, struct signals, watch);
	struct signalfd_siginfo info;

	(void)revents;
	while (read(watch->fd, &info, sizeof(info)) == sizeof(info)) {
		if (info.ssi_signo == SIGHUP)
			continue;
		log_info("%s: signal %u", signals->daemon->name, info.ssi_signo);
		daemon_stop_when_idle(signals->daemon);
	}
	(void)loop_watch_add(signals->daemon->loop, watch);
}

/* Before any thread is made, so that all of them leave these signals to the loop. */
static int block_signals(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGHUP);
	signal(SIGPIPE, SIG_IGN);
	return sigprocmask(SIG_BLOCK, set, NULL) < 0 ? -errno : 0;
}

/* `kept`: what the engine before left; NULL for the first. */
static int serve(struct daemon *daemon, struct kept *kept, struct ploop_error *err)
{
	struct signals signals = { .daemon = daemon };
	sigset_t set;
	int r;

	r = block_signals(&set);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "signals");
	r = loop_new(NULL, RING_DEPTH, &daemon->loop, err);
	if (r < 0)
		return r;
	signals.watch = (struct loop_watch){ .events = POLLIN, .ready = signals_ready };
	signals.watch.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	r = signals.watch.fd < 0 ? -errno : loop_watch_add(daemon->loop, &signals.watch);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "signals");
	if (kept)
		daemon_succeed(daemon, kept);
	else
		daemon_start(daemon);
	r = loop_run(daemon->loop);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s: event loop", daemon->name);
	server_free(daemon->server);
	if (signals.watch.armed)
		loop_watch_remove(daemon->loop, &signals.watch);
	close(signals.watch.fd);
	loop_watch_remove(daemon->loop, &daemon->keeper_gone);
	loop_free(daemon->loop);
	return daemon->failure.code;
}

/* The log goes to the file that the request names, else to syslog. Debug messages go to standard error: the file, too. */
static int open_log(const char *path, struct ploop_error *err)
{
	_close_ int fd = -EBADF;

	if (!path)
		return 0;
	fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0 || dup2(fd, STDERR_FILENO) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s", path);
	setvbuf(stderr, NULL, _IOLBF, 0);
	ploop_set_log(to_stderr, NULL);
	return 0;
}

/* Lets go of the starter's terminal, folder, session and files, but for the connection, which moves to descriptor 3. */
static int detach(struct starter *starter)
{
	_close_ int null = -EBADF;

	if (dup2(STDIN_FILENO, 3) < 0)
		return -errno;
	starter->in = starter->out = 3;
	null = open("/dev/null", O_RDWR);
	if (null < 0 || dup2(null, STDIN_FILENO) < 0)
		return -errno;
	dup2(STDIN_FILENO, STDOUT_FILENO);
	dup2(STDIN_FILENO, STDERR_FILENO);
	(void)take_fd(&null);
	close_range(4, ~0u, 0);
	if (fcntl(3, F_SETFD, FD_CLOEXEC) < 0 || setsid() < 0 || chdir("/") < 0)
		return -errno;
	umask(0022); /* what is secret says so itself */
	openlog("ploopd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
	return 0;
}

/* The first engine of a device. */
static int run(struct daemon *daemon, bool foreground, struct ploop_error *err)
{
	int r = starter_read(&daemon->starter, &daemon->request, err);

	if (r == 0 && (!foreground || daemon->request.log))
		r = open_log(daemon->request.log, err);
	if (r == 0) {
		self_protect();
		r = serve(daemon, NULL, err);
	}
	if (err->code)
		starter_refuse(&daemon->starter, err);
	if (err->code && foreground)
		fprintf(stderr, "ploopd: %s\n", err->text);
	return r;
}

/* One that takes over. What goes wrong goes to the log, as there is nobody else. */
static int run_successor(struct daemon *daemon, const struct keeper_set *set, struct ploop_error *err)
{
	struct kept kept;
	int r = kept_load(set, &kept, err);

	if (r == 0)
		r = open_log(kept.request.log, err);
	close(set->fds[0]);
	if (r == 0) {
		self_protect();
		r = serve(daemon, &kept, err);
	}
	if (err->code)
		log_error("%s", err->text);
	return r;
}

static int run_engine(struct daemon *daemon, const struct keeper_engine *engine, struct ploop_error *err)
{
	daemon->keeper = engine->socket;
	if (!engine->kept.n)
		return run(daemon, false, err);
	daemon->starter.in = daemon->starter.out = -EBADF;
	return run_successor(daemon, &engine->kept, err);
}

int main(int argc, char **argv)
{
	bool foreground = argc > 1 && !strcmp(argv[1], "--foreground");
	struct daemon daemon = { .keeper = -EBADF, .starter = { .in = STDIN_FILENO, .out = STDOUT_FILENO, .keep = true } };
	struct keeper_engine engine;
	struct ploop_error err = { 0 };
	int r;

	if (argc > 1 && !strcmp(argv[1], "--version")) {
		printf("ploopd %s\n", ploop_version());
		return 0;
	}
	prctl(PR_SET_NAME, "ploopd");
	ploop_set_log(foreground ? to_stderr : to_syslog, NULL);
	if (argc >= 4 && !strcmp(argv[1], "--keeper")) {
		openlog("ploopd", LOG_PID | LOG_NDELAY, LOG_DAEMON);
		daemon.refuge = atoi(argv[3]);
		keeper_resume(argv[2], argv[3], &engine);
		r = run_engine(&daemon, &engine, &err);
	} else if (foreground) {
		(void)rundir_prepare(NULL); /* if it fails, taking a name says why */
		daemon.refuge = self_isolate();
		r = run(&daemon, true, &err);
	} else {
		daemon.starter = (struct starter){ .in = STDIN_FILENO, .out = STDIN_FILENO };
		r = fork();
		if (r)
			return r < 0 ? PLOOP_EXIT_SYS : 0;
		if (detach(&daemon.starter) < 0)
			return PLOOP_EXIT_SYS;
		(void)rundir_prepare(NULL);
		daemon.refuge = self_isolate();
		engine = (struct keeper_engine){ .socket = -EBADF };
		if (!getenv("PLOOPD_ALONE"))
			keeper_run(daemon.starter.in, daemon.refuge, &engine);
		r = run_engine(&daemon, &engine, &err);
	}
	state_clear(&daemon.state);
	open_request_clear(&daemon.request);
	return r < 0 ? (int)(err.code ? err.status : daemon.failure.status) : 0;
}
