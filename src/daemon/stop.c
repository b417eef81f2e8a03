/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stop.c - the way down, one step calling the next: front end, control socket, device, files, names, answers, end.
 *
 * Only the first step can be refused. From then on everything goes, and what fails is told: the device's own closing is what
 * makes the image durable and clean, so its error is the result of the whole.
 */
#include "daemon/stop.h"

#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "daemon/keeper.h"
#include "daemon/self.h"
#include "device/device.h"
#include "device/shadow.h"
#include "export/export.h"
#include "image/stack.h"

#define IDLE_RETRY_NS 500000000ull

/* Everything is down. */
static void finish(struct daemon *daemon)
{
	struct server_peer *stopper = daemon->stopper;

	daemon->stopper = NULL;
	cleanup_close(&daemon->disk_lock);
	daemon->disk_lock = -EBADF;
	stack_close(daemon->stack);
	daemon->stack = NULL;
	shadow_close(daemon->shadow);
	daemon->shadow = NULL;
	if (daemon->named)
		rundir_remove(daemon->name);
	daemon->phase = DAEMON_CLOSED;
	if (daemon->failure.code) {
		log_error("%s", daemon->failure.text);
		starter_refuse(&daemon->starter, &daemon->failure);
		if (stopper)
			server_refuse(stopper, &daemon->failure);
	} else {
		log_info("%s: stopped", daemon->name);
		if (stopper)
			server_answer(stopper, NULL);
	}
	starter_close(&daemon->starter);
	loop_stop(daemon->loop);
}

static void device_closed(void *data, int result)
{
	struct daemon *daemon = data;

	daemon->device = NULL;
	if (result < 0 && !daemon->failure.code)
		error_sys(&daemon->failure, result, PLOOP_EXIT_ABORT,
			  "%s: the image could not be closed properly; `ploop check` tells its state", daemon->name);
	finish(daemon);
}

static void close_device(struct daemon *daemon)
{
	daemon->phase = DAEMON_CLOSING;
	loop_timer_cancel(daemon->loop, &daemon->idle_timer);
	daemon_unsettle(daemon);
	uevents_stop(&daemon->uevents);
	if (daemon->server)
		server_shut(daemon->server);
	if (daemon->device)
		device_close(daemon->device, device_closed, daemon);
	else
		finish(daemon);
}

static void retry(struct loop_timer *timer)
{
	daemon_stop(container_of(timer, struct daemon, idle_timer), false, NULL);
}

/* It goes on serving. */
static void refused(struct daemon *daemon, const struct ploop_error *err)
{
	struct server_peer *stopper = daemon->stopper;

	daemon->phase = DAEMON_SERVING;
	daemon->stopper = NULL;
	if (stopper)
		server_refuse(stopper, err);
	if (daemon->stop_when_idle) {
		daemon->idle_timer.expired = retry;
		loop_timer_set(daemon->loop, &daemon->idle_timer, IDLE_RETRY_NS);
	}
}

static void export_stopped(void *data, int result)
{
	struct daemon *daemon = data;
	struct ploop_error err;

	if (result == 0) {
		daemon->export = NULL;
		daemon->kept = false;
		(void)keeper_forget(daemon->keeper);
		close_device(daemon);
		return;
	}
	if (result == -EBUSY)
		error_set(&err, result, PLOOP_EXIT_BUSY, "%s/%s is in use", rundir_dev(), daemon->name);
	else
		error_sys(&err, result, PLOOP_EXIT_DEVIOC, "%s/%s cannot be detached", rundir_dev(), daemon->name);
	refused(daemon, &err);
}

void daemon_stop(struct daemon *daemon, bool force, struct server_peer *peer)
{
	struct ploop_error err;

	if (daemon->phase != DAEMON_SERVING) {
		error_set(&err, -EBUSY, PLOOP_EXIT_BUSY, "%s/%s is being stopped already", rundir_dev(), daemon->name);
		if (peer)
			server_refuse(peer, &err);
		return;
	}
	if (grow_holds_stop(daemon, force, peer))
		return;
	loop_timer_cancel(daemon->loop, &daemon->idle_timer);
	self_find_root(daemon->refuge);
	daemon->stopper = peer;
	if (daemon->track.track && !force) {
		/* Not -EBUSY: that may be over in a moment, and is tried again. */
		error_set(&err, -EINPROGRESS, PLOOP_EXIT_BUSY,
			  "%s/%s is being copied; wait until `ploop copy` is done, or stop that", rundir_dev(),
			  daemon->name);
		refused(daemon, &err);
		return;
	}
	daemon->phase = DAEMON_STOPPING;
	daemon->export->ops->stop(daemon->export, force, export_stopped, daemon);
}

void daemon_stop_when_idle(struct daemon *daemon)
{
	daemon->stop_when_idle = true;
	daemon_stop(daemon, false, NULL);
}

static void failed(struct loop_task *task)
{
	struct daemon *daemon = container_of(task, struct daemon, failed_task);

	daemon->phase = DAEMON_STOPPING;
	if (daemon->export)
		daemon->export->ops->stop(daemon->export, true, export_stopped, daemon);
	else
		close_device(daemon);
}

/* From the loop: a front end is not stopped from inside its own call. */
void stop_failed(struct daemon *daemon)
{
	daemon->failed_task.run = failed;
	loop_defer(daemon->loop, &daemon->failed_task);
}
