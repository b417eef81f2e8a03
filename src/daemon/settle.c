/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * settle.c - what was written in part over a lower level is filled in before something that must not wait for it: a frozen file
 * system, or a client that gives up after a while. The client asks again and again until that is so; nothing new is begun
 * until the operation is over, or some time after the client has asked for the last time.
 */
#include <errno.h>

#include "base/error.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "device/device.h"

#define HOLD_NS UINT64_C(10000000000)

void daemon_unsettle(struct daemon *daemon)
{
	struct settle_job *job = &daemon->settle;

	loop_timer_cancel(daemon->loop, &job->timer);
	if (job->held && !job->running)
		device_unsettle(daemon->device);
	/* While it runs the hold stays with it; settled() sees that nobody wants it any more. */
	job->held = job->held && job->running;
	job->wanted = false;
}

static void expired(struct loop_timer *timer)
{
	daemon_unsettle(container_of(timer, struct daemon, settle.timer));
}

static void settled(struct device_settle *settle, int result)
{
	struct daemon *daemon = container_of(settle, struct daemon, settle.settle);
	struct settle_job *job = &daemon->settle;

	job->running = false;
	job->result = result;
	if (!job->wanted)
		daemon_unsettle(daemon);
}

/* Answers with {"settled":true} when it is so, else with false: ask again. */
void daemon_settle(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct settle_job *job = &daemon->settle;
	struct json_object *result;
	struct ploop_error err;

	(void)arguments;
	if (daemon->phase != DAEMON_SERVING) {
		error_set(&err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being stopped", daemon->name);
		server_refuse(peer, &err);
		return;
	}
	job->wanted = true;
	job->timer.expired = expired;
	if (!job->held) {
		job->held = job->running = true;
		job->settle.done = settled;
		device_settle(daemon->device, &job->settle);
	} else if (!job->running && job->result < 0) {
		error_sys(&err, job->result, PLOOP_EXIT_DEVIOC,
			  "%s: what was written cannot be completed from the images below", daemon->name);
		daemon_unsettle(daemon);
		server_refuse(peer, &err);
		return;
	}
	loop_timer_cancel(daemon->loop, &job->timer);
	loop_timer_set(daemon->loop, &job->timer, HOLD_NS);
	result = json_object_new_object();
	if (result)
		message_add_bool(result, "settled", !job->running);
	server_answer(peer, result);
}
