/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* grow.c - see grow.h. */
#include "daemon/grow.h"

#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "daemon/self.h"
#include "device/device.h"
#include "export/export.h"
#include "image/stack.h"

bool grow_active(const struct daemon *daemon)
{
	return daemon->grow.peer != NULL;
}

bool grow_holds_stop(struct daemon *daemon, bool force, struct server_peer *peer)
{
	struct grow_job *job = &daemon->grow;
	struct ploop_error err;

	if (!job->telling)
		return false;
	if (job->stop && peer) {
		error_set(&err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being stopped already", daemon->name);
		server_refuse(peer, &err);
		return true;
	}
	job->stop = true;
	job->stop_force |= force;
	job->stopper = job->stopper ? job->stopper : peer;
	return true;
}

static void answer(struct daemon *daemon, const struct ploop_error *err)
{
	struct server_peer *peer = daemon->grow.peer;
	struct json_object *result;

	daemon->grow.peer = NULL;
	if (err) {
		server_refuse(peer, err);
		return;
	}
	result = json_object_new_object();
	if (result)
		message_add_number(result, "size", device_size(daemon->device));
	server_answer(peer, result);
}

static void told(void *data, int result)
{
	struct daemon *daemon = data;
	struct grow_job job = daemon->grow;
	struct ploop_error err;

	daemon->grow.telling = daemon->grow.stop = false;
	daemon->grow.stopper = NULL;
	daemon->state.size = device_size(daemon->device);
	daemon_save(daemon);
	if (result < 0) {
		error_sys(&err, result, PLOOP_EXIT_DEVIOC,
			  "%s: the image has its new size, but %s does not take it; grow it again", daemon->name,
			  daemon->state.node);
		answer(daemon, &err);
	} else {
		log_info("%s: %llu bytes", daemon->name, (unsigned long long)daemon->state.size);
		answer(daemon, NULL);
	}
	if (job.stop)
		daemon_stop(daemon, job.stop_force, job.stopper);
}

static void tell(struct daemon *daemon)
{
	struct ploop_error err;

	if (daemon->phase != DAEMON_SERVING) {
		error_set(&err, -EBUSY, PLOOP_EXIT_BUSY, "%s is being stopped; the image has its new size",
			  daemon->name);
		answer(daemon, &err);
		return;
	}
	self_find_root(daemon->refuge);
	daemon->grow.telling = true;
	daemon->export->ops->resized(daemon->export, told, daemon);
}

static void resized(void *data, int result)
{
	struct daemon *daemon = data;
	struct stack *stack = daemon->stack;
	unsigned top = stack->nlevels - 1;
	struct ploop_error err;

	if (result < 0) {
		error_sys(&err, result, PLOOP_EXIT_WRITE, "%s: cannot be made larger", stack->levels[top].file->path);
		answer(daemon, &err);
		return;
	}
	stack->levels[top].geometry = *device_geometry(daemon->device, top);
	tell(daemon);
}

static int check(struct daemon *daemon, struct json_object *arguments, uint64_t *ret, struct ploop_error *err)
{
	const struct delta *top = &daemon->stack->levels[daemon->stack->nlevels - 1];
	uint64_t size = device_size(daemon->device), wanted;
	int r = message_number(arguments, "size", INT64_MAX, &wanted, err);

	if (r == 0)
		r = maintenance_check(daemon, err);
	if (r < 0)
		return r;
	if (daemon->state.read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_PARAM, "%s is read-only", daemon->name);
	if (!daemon->export->ops->resized)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
				 "%s: %s cannot grow while it is used on this kernel; umount it, or mount it with another --front-end",
				 daemon->name, daemon->export->ops->name);
	if (wanted != size)
		r = format_round_size(top->format, device_geometry(daemon->device, daemon->stack->nlevels - 1), wanted,
				      &wanted, err);
	if (r == 0 && wanted < size)
		r = error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect new size specified %llu current size %llu",
			      (unsigned long long)wanted / SECTOR, (unsigned long long)size / SECTOR);
	*ret = wanted;
	return r;
}

void daemon_grow(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	uint64_t size = 0;
	int r = check(daemon, arguments, &size, &err);

	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	daemon->grow.peer = peer;
	if (size == device_size(daemon->device)) {
		tell(daemon);
		return;
	}
	log_info("%s: growing from %llu to %llu bytes", daemon->name, (unsigned long long)device_size(daemon->device),
		 (unsigned long long)size);
	r = device_resize(daemon->device, size, resized, daemon, &err);
	if (r < 0)
		answer(daemon, &err);
}
