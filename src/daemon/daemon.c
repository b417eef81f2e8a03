/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* daemon.c - the way up: from a request to a device that can be used. */
#include "daemon/daemon.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/node.h"
#include "daemon/kept.h"
#include "daemon/stop.h"
#include "daemon/succeed.h"
#include "device/device.h"
#include "device/shadow.h"
#include "job/complete.h"
#include "export/export.h"
#include "image/descriptor.h"
#include "image/journal.h"
#include "image/lock.h"
#include "image/stack.h"

#define DEPTH 128 /* requests in flight */

static void device_event(void *data, enum device_event event)
{
	struct daemon *daemon = data;

	switch (event) {
	case DEVICE_EVENT_FULL:
		log_error("%s: no space left below the image; writes wait until there is some", daemon->name);
		break;
	case DEVICE_EVENT_RESUMED:
		log_info("%s: there is space again, writes go on", daemon->name);
		break;
	case DEVICE_EVENT_ABORTED:
		log_error("%s: the index of the image cannot be written; all further writes fail", daemon->name);
		break;
	}
}

/* Holds the descriptor still, when there is one, until the world can see what we serve. */
static int lock_descriptor(struct daemon *daemon, struct ploop_error *err)
{
	_free_ char *path = NULL;
	int r;

	r = descriptor_find_file(daemon->request.operands[0], &path, err);
	if (r <= 0)
		return r;
	/* Read-only promises that nothing is written, and the descriptor alone tells how to open the disk. */
	return daemon->request.read_only ? lock_disk(path, LOCK_WAIT_MS, &daemon->disk_lock, err)
					 : journal_lock_disk(path, LOCK_WAIT_MS, &daemon->disk_lock, err);
}

static int open_stack(struct daemon *daemon, struct ploop_error *err)
{
	const struct open_request *request = &daemon->request;
	struct stack_request what = {
		.operands = (const char *const *)request->operands,
		.noperands = (unsigned)request->noperands,
		.base_format = request->base_format,
		.cluster = request->cluster,
		.snapshot = request->snapshot,
		.read_only = request->read_only,
		.outside = request->outside,
	};

	if (request->io_module) {
		what.module = io_module_find(request->io_module);
		if (!what.module)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "no I/O module is called '%s'; see `ploop modules`", request->io_module);
	}
	return stack_open(daemon->loop, &what, &daemon->stack, err);
}

int daemon_open_device(struct daemon *daemon, struct ploop_error *err)
{
	struct device_config config = {
		.loop = daemon->loop,
		.levels = daemon->stack->levels,
		.nlevels = daemon->stack->nlevels,
		.read_only = daemon->stack->read_only,
		.on_full = daemon->request.fail_when_full ? DEVICE_FULL_ERROR : DEVICE_FULL_STOP,
		.shadow = daemon->shadow,
		.event = device_event,
		.event_data = daemon,
	};
	int r = daemon->stack->read_only ? 0 : job_complete(daemon->loop, daemon->stack, err);

	return r < 0 ? r : device_open(&config, &daemon->device, err);
}

/* The front end asked for, or the first that this host can run. */
static int choose_front_end(const char *name, const struct export_ops **ret, struct ploop_error *err)
{
	struct ploop_error why = { .text = "none is built in" };

	if (name) {
		*ret = export_find(name);
		if (!*ret)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "no front end is called '%s'; see `ploop modules`", name);
		return (*ret)->usable(err);
	}
	for (unsigned i = 0; export_modules[i]; i++) {
		if (!strcmp(export_modules[i]->name, "null") || export_modules[i]->usable(&why) < 0)
			continue;
		*ret = export_modules[i];
		return 0;
	}
	return error_set(err, -ENODEV, PLOOP_EXIT_DEVICE, "this host has no usable front end: %s", why.text);
}

/* One text more for the state; NULL stays NULL. */
static bool copy(char **ret, const char *text)
{
	return !text || (*ret = strdup(text));
}

static int fill_state(struct daemon *daemon, struct ploop_error *err)
{
	struct device_state *state = &daemon->state;
	const struct stack *stack = daemon->stack;
	const char *node = daemon->export->ops->node(daemon->export);

	state->read_only = stack->read_only;
	state->size = device_size(daemon->device);
	state->cluster = device_cluster(daemon->device);
	state->diskseq = state_diskseq(node);
	state->images = calloc(stack->nlevels, sizeof(*state->images));
	if (!state->images || !copy(&state->name, daemon->name) || !copy(&state->node, node) ||
	    !copy(&state->front_end, daemon->export->ops->name) || !copy(&state->descriptor, stack->descriptor) ||
	    !copy(&state->snapshot, stack->snapshot) || !copy(&state->component, daemon->request.component))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	for (; state->nimages < stack->nlevels; state->nimages++)
		if (!copy(&state->images[state->nimages], stack->levels[state->nimages].file->path))
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	return 0;
}

/* The device can be used: make that known. */
static int publish(struct daemon *daemon, struct ploop_error *err)
{
	struct json_object *result;
	int r;

	r = fill_state(daemon, err);
	if (r < 0)
		return r;
	/* First, so that no partition is missed between the two. */
	uevents_start(&daemon->uevents, daemon->loop, daemon->name, daemon->state.node);
	r = node_make(daemon->name, daemon->state.node, err);
	if (r == 0)
		r = state_save(&daemon->state, err);
	if (r == 0)
		r = server_new(daemon->loop, daemon->name, daemon_request, daemon, &daemon->server, err);
	if (r == 0) {
		r = state_print(&daemon->state, &result);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	}
	if (r < 0)
		return r;
	cleanup_close(&daemon->disk_lock);
	daemon->disk_lock = -EBADF;
	daemon->phase = DAEMON_SERVING;
	log_info("%s: serving %s on %s", daemon->name, daemon->state.images[daemon->state.nimages - 1],
		 daemon->state.node);
	r = starter_answer(&daemon->starter, daemon->loop, result);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_PROTOCOL, "%s: who asked for the device is gone", daemon->name);
	if (daemon->stop_when_idle) /* a signal came meanwhile */
		daemon_stop_when_idle(daemon);
	return 0;
}

static void export_started(void *data, int result)
{
	struct daemon *daemon = data;
	int r = result;

	if (r < 0) {
		daemon->export = NULL;
		if (!daemon->failure.text[0])
			error_sys(&daemon->failure, r, PLOOP_EXIT_DEVICE, "%s: the front end does not start",
				  daemon->name);
	} else {
		r = publish(daemon, &daemon->failure);
	}
	if (r < 0)
		stop_failed(daemon);
}

static void export_gone(void *data)
{
	struct daemon *daemon = data;

	log_info("%s: the kernel has let the device go", daemon->name);
	daemon_stop(daemon, true, NULL);
}

static void export_kept(void *data)
{
	kept_save(data);
}

void daemon_export_config(struct daemon *daemon, struct export_config *ret)
{
	*ret = (struct export_config){
		.loop = daemon->loop,
		.device = daemon->device,
		.name = daemon->name,
		.depth = DEPTH,
		.read_only = daemon->stack->read_only,
		.logical_block = 512,
		.gone = export_gone,
		.kept = export_kept,
		.data = daemon,
	};
}

static int start_export(struct daemon *daemon, struct ploop_error *err)
{
	const struct export_ops *ops;
	struct export_config config;
	int r;

	daemon_export_config(daemon, &config);
	r = choose_front_end(daemon->request.front_end, &ops, err);
	return r < 0 ? r : ops->start(&config, export_started, daemon, &daemon->export, err);
}

/* What a device must have from the start to outlive this process. */
static int prepare_keeping(struct daemon *daemon, struct ploop_error *err)
{
	int r;

	if (daemon->keeper < 0)
		return 0;
	r = loop_hold(daemon->loop, daemon->keeper);
	if (r == 0)
		r = shadow_new(&daemon->shadow);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s", daemon->name);
	(void)rundir_own(daemon->name, getppid(), getpid());
	keeper_watch(daemon);
	return 0;
}

static int start(struct daemon *daemon, struct ploop_error *err)
{
	int r;

	r = rundir_claim(daemon->request.device, daemon->name, err);
	if (r < 0)
		return r;
	daemon->named = true;
	r = prepare_keeping(daemon, err);
	if (r == 0)
		r = lock_descriptor(daemon, err);
	if (r == 0)
		r = open_stack(daemon, err);
	if (r == 0)
		r = daemon_open_device(daemon, err);
	if (r == 0)
		r = start_export(daemon, err);
	return r;
}

static void starter_ended(struct starter *starter, bool keep)
{
	struct daemon *daemon = container_of(starter, struct daemon, starter);

	if (keep) {
		daemon->kept = true;
		kept_save(daemon);
		return;
	}
	log_info("%s: who asked for the device is gone before it was kept", daemon->name);
	daemon_stop_when_idle(daemon);
}

void daemon_save(struct daemon *daemon)
{
	struct ploop_error err;

	if (state_save(&daemon->state, &err) < 0)
		log_error("%s: %s", daemon->name, err.text);
	kept_save(daemon);
}

void daemon_start(struct daemon *daemon)
{
	daemon->starter.ended = starter_ended;
	daemon->disk_lock = -EBADF;
	if (start(daemon, &daemon->failure) < 0)
		stop_failed(daemon);
}
