/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * upgrade.c - an engine gives its place to that of another program, and its keeper to another keeper.
 *
 *	SERVING --> the front end is left: what was begun is answered, what comes waits in the kernel
 *	        --> flush --> UPGRADE to the keeper --> exit
 *
 * The image is not closed: that may take long, and who comes next recovers it in any case. So handing over is dying in good order,
 * and what goes wrong in it is no worse than a crash.
 */
#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "daemon/kept.h"
#include "daemon/succeed.h"

/* --- another keeper --- */

static void keeper_gone(struct loop_watch *watch, int revents)
{
	struct daemon *daemon = container_of(watch, struct daemon, keeper_gone);
	pid_t pid;

	(void)revents;
	close(daemon->keeper);
	daemon->keeper = -EBADF;
	if (daemon->phase != DAEMON_SERVING)
		return;
	pid = keeper_spawn(daemon->refuge, &daemon->keeper);
	log_warning("%s: its keeper has died; %s", daemon->name,
		    pid < 0 ? "there is no other, it would not survive its ploopd" : "there is another one");
	(void)rundir_own(daemon->name, pid < 0 ? 0 : pid, getpid());
	if (pid < 0)
		return;
	(void)loop_hold(daemon->loop, daemon->keeper);
	keeper_watch(daemon);
	kept_save(daemon);
}

void keeper_watch(struct daemon *daemon)
{
	daemon->keeper_gone =
		(struct loop_watch){ .fd = daemon->keeper, .events = POLLIN, .ready = keeper_gone };
	if (daemon->keeper >= 0 && loop_watch_add(daemon->loop, &daemon->keeper_gone) < 0)
		log_warning("%s: nobody watches its keeper", daemon->name);
}

/* --- another program --- */

struct handover {
	struct daemon *daemon;
	struct device_request flush;
	char program[PATH_MAX];
};

static void flushed(struct device_request *request, int result)
{
	struct handover *handover = container_of(request, struct handover, flush);
	struct daemon *daemon = handover->daemon;
	int r;

	if (result < 0)
		log_warning("%s: %s; the next engine tries again", daemon->name, strerror(-result));
	r = keeper_upgrade(daemon->keeper, handover->program);
	if (r < 0)
		log_error("%s: the keeper is not reached: %s", daemon->name, strerror(-r));
	log_info("%s: handed over to %s", daemon->name, handover->program);
	_exit(EXIT_SUCCESS);
}

static void left(void *data)
{
	struct handover *handover = data;
	struct daemon *daemon = handover->daemon;

	daemon->export = NULL;
	handover->flush = (struct device_request){ .kind = DEVICE_FLUSH, .done = flushed };
	device_submit(daemon->device, &handover->flush);
}

static int check(const struct daemon *daemon, const char *program, struct ploop_error *err)
{
	int r = maintenance_check(daemon, err);

	if (r < 0)
		return r;
	if (*program != '/' || strlen(program) >= PATH_MAX)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"program\" is not an absolute path");
	if (access(program, X_OK) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_PARAM, "%s: cannot be run", program);
	if (daemon->keeper < 0 || !daemon->kept)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "%s: its ploopd runs alone and has no successor",
				 daemon->name);
	if (!daemon->export->ops->leave)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "%s: its front end (%s) cannot change engines",
				 daemon->name, daemon->export->ops->name);
	return 0;
}

void daemon_upgrade(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct handover *handover = calloc(1, sizeof(*handover));
	struct json_object *result;
	struct ploop_error err;
	const char *program;
	int r = message_need_text(arguments, "program", &program, &err);

	if (r == 0)
		r = check(daemon, program, &err);
	if (r == 0 && !handover)
		r = error_sys(&err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	if (r < 0) {
		free(handover);
		server_refuse(peer, &err);
		return;
	}
	handover->daemon = daemon;
	memcpy(handover->program, program, strlen(program) + 1);
	kept_save(daemon);
	daemon->phase = DAEMON_LEAVING;
	result = json_object_new_object();
	if (result)
		message_add_number(result, "engine", (uint64_t)getpid());
	server_answer(peer, result);
	daemon->export->ops->leave(daemon->export, left, handover);
}
