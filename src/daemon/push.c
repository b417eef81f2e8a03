/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * push.c - a new top while the device is used: the daemon's half of a snapshot.
 *
 * The client has made the new delta durable, and the descriptor that names it, and holds the disk's lock. Order here:
 *  1. The new delta is opened and locked against everybody, so that nobody takes it for a leftover and removes it.
 *  2. device_push(): its invariants are in device/push.c.
 *  3. The old top is locked as what it is now, a file that is only read; then state.json tells of the new stack, and then
 *     the client is answered.
 * When 2 fails the device is as it was and the new delta is let go: the client takes it out of the descriptor again. When the
 * daemon dies anywhere the descriptor is right: the new delta is empty until the very moment in which it is the top.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "daemon/kept.h"
#include "device/device.h"
#include "image/stack.h"

static const char *top_of(const struct daemon *daemon)
{
	return daemon->state.images[daemon->state.nimages - 1];
}

/* The room for one more image, taken before it is needed. */
static int reserve_state(struct daemon *daemon)
{
	struct device_state *state = &daemon->state;
	char **images = reallocarray(state->images, state->nimages + 1, sizeof(*images));

	if (!images)
		return -ENOMEM;
	state->images = images;
	images[state->nimages] = NULL;
	return 0;
}

/* The device has its new top. That state.json cannot be written is no reason to say otherwise. */
static void pushed(struct daemon *daemon)
{
	struct device_state *state = &daemon->state;
	struct stack *stack = daemon->stack;
	struct ploop_error err;

	if (stack_lock(stack, stack->nlevels - 2, FILE_LOCK_WRITE, FILE_LOCK_READ, &err) < 0)
		log_warning("%s: %s", daemon->name, err.text);
	state->images[state->nimages] = strdup(stack->levels[stack->nlevels - 1].file->path);
	if (state->images[state->nimages])
		state->nimages++;
	daemon_save(daemon);
	log_info("%s: new top %s", daemon->name, top_of(daemon));
}

static void push_done(void *data, int result)
{
	struct daemon *daemon = data;
	struct server_peer *peer = daemon->pusher;
	struct ploop_error err;

	daemon->pusher = NULL;
	daemon_unsettle(daemon);
	if (result < 0) {
		error_sys(&err, result, PLOOP_EXIT_DEVIOC, "%s: cannot take the new top %s", daemon->name,
			  daemon->stack->levels[daemon->stack->nlevels - 1].file->path);
		stack_pop(daemon->stack);
		kept_save(daemon);
		server_refuse(peer, &err);
		return;
	}
	pushed(daemon);
	server_answer(peer, NULL);
}

static int check(struct daemon *daemon, struct json_object *arguments, struct ploop_error *err)
{
	const char *top;
	int r = message_need_text(arguments, "top", &top, err);

	if (r == 0)
		r = maintenance_check(daemon, err);
	if (r < 0)
		return r;
	if (strcmp(top, top_of(daemon)))
		return error_set(err, -ESTALE, PLOOP_EXIT_BUSY, "the top of %s is %s now", daemon->name,
				 top_of(daemon));
	if (daemon->state.nimages >= DEVICE_MAX_LEVELS)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM, "a stack has at most %d deltas", DEVICE_MAX_LEVELS);
	return 0;
}

/* {"top":"/a/delta"}: would another top be taken? Asked before one is made. */
void daemon_push_check(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	int r = check(daemon, arguments, &err);

	if (r == 0)
		r = device_can_push(daemon->device, &err);
	if (r < 0)
		server_refuse(peer, &err);
	else
		server_answer(peer, NULL);
}

/* {"image":"/a/new/delta","top":"/a/delta"}: `top` is what the client takes for the top; it is refused when it is mistaken. */
void daemon_push(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	const char *image;
	int r = message_need_text(arguments, "image", &image, &err);

	if (r == 0 && *image != '/')
		r = error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"image\" is not an absolute path");
	if (r == 0)
		r = check(daemon, arguments, &err);
	if (r == 0 && reserve_state(daemon) < 0)
		r = error_sys(&err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	if (r == 0)
		r = stack_push(daemon->loop, daemon->stack, image, &err);
	if (r == 0) {
		kept_save(daemon); /* before the device can have it */
		daemon->pusher = peer;
		r = device_push(daemon->device, &daemon->stack->levels[daemon->stack->nlevels - 1], push_done, daemon,
				&err);
		if (r < 0) {
			daemon->pusher = NULL;
			stack_pop(daemon->stack);
		}
	}
	if (r < 0)
		server_refuse(peer, &err);
}
