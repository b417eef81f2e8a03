/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * serve.c - an engine and nothing around it: serves an image by a front end until it is told to stop (SIGTERM), to leave the device
 * to the next one (SIGUSR1), or is killed.
 *
 *	serve FRONT-END IMAGE           a new device; prints its node, then what it keeps for the next engine
 *	serve FRONT-END IMAGE KEPT      the next engine, with that
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "device/device.h"
#include "export/export.h"
#include "image/stack.h"
#include "io/loop.h"

static struct loop *loop;
static struct stack *stack;
static struct device *device;
static struct export *export;
static struct ploop_error err;
static int status;

static void fail(const char *what)
{
	fprintf(stderr, "serve: %s: %s\n", what, err.text);
	exit(1);
}

static void closed(void *data, int result)
{
	(void)data;
	status = result ? 1 : 0;
	loop_stop(loop);
}

static void stopped(void *data, int result)
{
	if (result) {
		fprintf(stderr, "serve: does not stop: %s\n", strerror(-result));
		return;
	}
	device_close(device, closed, data);
}

static void left(void *data)
{
	(void)data;
	_exit(0);
}

static void told(struct loop_watch *watch, int revents)
{
	struct signalfd_siginfo info;

	(void)revents;
	if (read(watch->fd, &info, sizeof(info)) != sizeof(info))
		fail("signals");
	if (info.ssi_signo == SIGUSR1)
		export->ops->leave(export, left, NULL);
	else
		export->ops->stop(export, false, stopped, NULL);
	if (loop_watch_add(loop, watch) < 0)
		fail("signals");
}

static void started(void *data, int result)
{
	struct export_kept kept = { .nfds = 0 };

	(void)data;
	if (result)
		fail("start");
	if (export->ops->keep(export, &kept))
		fail("keep");
	printf("%s\n%s\n", export->ops->node(export), kept.text);
	fflush(stdout);
}

static void gone(void *data)
{
	(void)data;
	export->ops->stop(export, true, stopped, NULL);
}

static void begin(const char *front_end, const char *kept_text)
{
	const struct export_ops *ops = export_find(front_end);
	struct export_config config = {
		.loop = loop, .device = device, .name = "serve", .logical_block = 512, .gone = gone
	};
	struct export_kept kept = { .nfds = 0 };
	int r;

	if (!ops || !ops->adopt)
		fail("no such front end");
	if (kept_text) {
		snprintf(kept.text, sizeof(kept.text), "%s", kept_text);
		r = ops->adopt(&config, &kept, started, NULL, &export, &err);
	} else {
		r = ops->start(&config, started, NULL, &export, &err);
	}
	if (r < 0)
		fail("front end");
}

int main(int argc, char **argv)
{
	struct stack_request what = { .operands = (const char *const *)&argv[2], .noperands = 1 };
	struct loop_watch watch = { .events = POLLIN, .ready = told };
	sigset_t set;

	if (argc < 3 || argc > 4) {
		fprintf(stderr, "usage: serve FRONT-END IMAGE [KEPT]\n");
		return 2;
	}
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR1);
	sigprocmask(SIG_BLOCK, &set, NULL);
	watch.fd = signalfd(-1, &set, SFD_CLOEXEC);
	if (loop_new("uring", 512, &loop, &err) < 0 || loop_watch_add(loop, &watch) < 0)
		fail("loop");
	if (stack_open(loop, &what, &stack, &err) < 0)
		fail(argv[2]);
	struct device_config config = { .loop = loop, .levels = stack->levels, .nlevels = stack->nlevels };
	if (device_open(&config, &device, &err) < 0)
		fail(argv[2]);
	begin(argv[1], argc == 4 ? argv[3] : NULL);
	if (loop_run(loop) < 0)
		fail("loop");
	stack_close(stack);
	return status;
}
