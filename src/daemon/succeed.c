/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * succeed.c - from what an engine left to a device that is served again.
 *
 * Order:
 *  1. The files are opened by their locks, which nobody gave up (image/stack.h).
 *  2. What the engine before had answered is made durable (device/shadow.h), lower levels first, before anything else is
 *     written to them. Then the notes are forgotten: the device makes its own.
 *  3. The device is opened, as after any crash.
 *  4. The front end takes the kernel's device over, and answers what that engine did not.
 *  5. Names, control socket, keeper: all as it was, for the new process.
 * Until 5 whoever looks finds the old state, and a process that has the device: the keeper.
 */
#include "daemon/succeed.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/node.h"
#include "daemon/daemon.h"
#include "daemon/kept.h"
#include "daemon/self.h"
#include "device/shadow.h"
#include "image/stack.h"

static _Noreturn void fail(const struct daemon *daemon, const struct ploop_error *err)
{
	log_error("%s: cannot take over: %s", daemon->name, err->text);
	_exit(EXIT_FAILURE);
}

/* --- the disk --- */

static int replay_level(struct daemon *daemon, struct stack *stack, unsigned level, struct ploop_error *err)
{
	struct delta delta = stack->levels[level];
	int r;

	if (!shadow_has(daemon->shadow, delta.file->path))
		return 0;
	if (level + 1 == stack->nlevels)
		return shadow_replay(daemon->shadow, &delta, err);
	r = stack_lock(stack, level, FILE_LOCK_READ, FILE_LOCK_WRITE, err);
	if (r < 0)
		return r;
	r = stack_open_writable(daemon->loop, stack, level, &delta.file, err);
	if (r == 0) {
		r = shadow_replay(daemon->shadow, &delta, err);
		io_close(delta.file);
	}
	if (r == 0)
		r = stack_lock(stack, level, FILE_LOCK_WRITE, FILE_LOCK_READ, err);
	return r;
}

static int replay(void *data, struct stack *stack, struct ploop_error *err)
{
	struct daemon *daemon = data;
	int r = 0;

	for (unsigned level = 0; level < stack->nlevels && r == 0; level++)
		r = replay_level(daemon, stack, level, err);
	return r;
}

/* What lies over the top that the device had is not in the device yet, or not any more. */
static unsigned count_levels(const struct daemon *daemon, const struct kept *kept)
{
	const char *top = shadow_top(daemon->shadow);
	unsigned n = (unsigned)kept->state.nimages;

	while (top && n && strcmp(kept->state.images[n - 1], top))
		n--;
	return n ? n : (unsigned)kept->state.nimages;
}

static int open_disk(struct daemon *daemon, const struct kept *kept, struct ploop_error *err)
{
	const struct device_state *state = &kept->state;
	struct stack_adoption what = {
		.paths = (const char *const *)state->images,
		.locks = kept->locks,
		.base_format = kept->base_format,
		.cluster = state->cluster,
		.descriptor = state->descriptor,
		.snapshot = state->snapshot,
		.read_only = state->read_only,
		.module = daemon->request.io_module ? io_module_find(daemon->request.io_module) : NULL,
		.replay = replay,
		.data = daemon,
	};
	int r = shadow_open(kept->shadow, &daemon->shadow);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_PROTOCOL, "what was answered is not understood");
	what.nlevels = count_levels(daemon, kept);
	r = stack_adopt(daemon->loop, &what, &daemon->stack, err);
	for (unsigned i = 0; i < state->nimages; i++)
		if (kept->locks[i] >= 0)
			close(kept->locks[i]);
	if (r < 0)
		return r;
	shadow_forget(daemon->shadow);
	return daemon_open_device(daemon, err);
}

/* --- the world --- */

static void grown(void *data, int result)
{
	struct daemon *daemon = data;

	daemon->grow.telling = false;
	if (result < 0)
		log_warning("%s: the kernel does not take the new size; grow it again", daemon->name);
	daemon->state.size = device_size(daemon->device);
	daemon_save(daemon);
}

/* Growing was cut off between the image and the kernel. */
static void settle_size(struct daemon *daemon)
{
	if (daemon->state.size == device_size(daemon->device) || !daemon->export->ops->resized)
		return;
	daemon->grow.telling = true;
	daemon->export->ops->resized(daemon->export, grown, daemon);
}

static int settle_images(struct daemon *daemon)
{
	struct device_state *state = &daemon->state;

	while (state->nimages > daemon->stack->nlevels)
		free(state->images[--state->nimages]);
	return 0;
}

static void adopted(void *data, int result)
{
	struct daemon *daemon = data;
	struct ploop_error err;
	int r = result;

	if (r < 0) {
		error_sys(&err, r, PLOOP_EXIT_DEVICE, "the front end does not start");
		fail(daemon, &err);
	}
	(void)settle_images(daemon);
	uevents_start(&daemon->uevents, daemon->loop, daemon->name, daemon->state.node);
	(void)node_sync(daemon->name, daemon->state.node, NULL);
	r = server_new(daemon->loop, daemon->name, daemon_request, daemon, &daemon->server, &err);
	if (r < 0)
		fail(daemon, &err);
	daemon->phase = DAEMON_SERVING;
	daemon->kept = true;
	keeper_watch(daemon);
	daemon_save(daemon);
	(void)rundir_own(daemon->name, getppid(), getpid());
	log_info("%s: took over, serving %s on %s", daemon->name, daemon->state.images[daemon->state.nimages - 1],
		 daemon->state.node);
	settle_size(daemon);
	if (daemon->stop_when_idle) /* a signal came meanwhile */
		daemon_stop_when_idle(daemon);
}

static int succeed(struct daemon *daemon, struct kept *kept, struct ploop_error *err)
{
	const struct export_ops *ops = export_find(kept->state.front_end);
	struct export_config config;
	int r;

	if (!ops || !ops->adopt)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "there is no front end '%s'", kept->state.front_end);
	r = loop_hold(daemon->loop, daemon->keeper);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "the ring");
	r = open_disk(daemon, kept, err);
	if (r < 0)
		return r;
	daemon_export_config(daemon, &config);
	return ops->adopt(&config, &kept->export, adopted, daemon, &daemon->export, err);
}

void daemon_succeed(struct daemon *daemon, struct kept *kept)
{
	struct ploop_error err = { 0 };

	self_find_root(daemon->refuge);
	daemon->disk_lock = -EBADF;
	daemon->named = true;
	memcpy(daemon->name, kept->state.name, strlen(kept->state.name) + 1);
	daemon->request = kept->request;
	kept->request = (struct open_request){ 0 };
	if (succeed(daemon, kept, &err) < 0)
		fail(daemon, &err);
	daemon->state = kept->state;
	kept->state = (struct device_state){ 0 };
	kept_clear(kept);
}
