/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replace.c - see replace.h. The client has compared the two files, or was told not to; it holds the disk's lock, and a lock on the
 * new file.
 *
 * Order:
 *  1. The new file is opened and locked for reading.
 *  2. device_replace(): at its turn, when no request is under way, one name changes in one step: that of the new file becomes that of
 *     the old one, or a descriptor that names the new file takes the place of the old one. So whoever dies when: what is named is
 *     what the device used or uses, and as long as nothing else happened to the disk both are the same anyway.
 *  3. The change of the name is durable, then state.json tells, then the client is answered.
 * When 2 fails nothing has changed, and the new file is let go.
 */
#include "daemon/replace.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "device/device.h"
#include "image/dir.h"
#include "image/stack.h"

bool replace_active(const struct daemon *daemon)
{
	return daemon->replace.peer;
}

static void job_clear(struct replace_job *job)
{
	io_close(job->delta.file);
	if (job->lock >= 0)
		close(job->lock);
	free(job->path);
	free(job->from);
	free(job->to);
	dir_close(job->folder);
	*job = (struct replace_job){ .lock = -1 };
}

static int turn(void *data)
{
	struct daemon *daemon = data;
	struct replace_job *job = &daemon->replace;

	return job->folder ? dir_rename(job->folder, job->from, job->to) : 0;
}

/* The device uses the new file. */
static void replaced(struct daemon *daemon)
{
	struct replace_job *job = &daemon->replace;
	struct device_state *state = &daemon->state;
	int r = job->folder ? dir_sync(job->folder) : 0;

	if (r < 0)
		log_warning("%s: %s/%s may not be durable: %s", daemon->name, job->folder->path, job->to, strerror(-r));
	log_info("%s: %s takes the place of %s", daemon->name, job->delta.file->path, state->images[job->level]);
	stack_set_level(daemon->stack, job->level, &job->delta, job->lock);
	job->delta.file = NULL;
	job->lock = -1;
	free(state->images[job->level]);
	state->images[job->level] = take_ptr(job->path);
	daemon_save(daemon);
}

static void done(void *data, int result)
{
	struct daemon *daemon = data;
	struct replace_job *job = &daemon->replace;
	struct server_peer *peer = job->peer;
	struct ploop_error err;

	if (result == 0)
		replaced(daemon);
	else
		error_sys(&err, result, PLOOP_EXIT_DEVIOC, "%s: %s cannot take the place of %s", daemon->name,
			  job->delta.file->path, daemon->state.images[job->level]);
	job_clear(job);
	if (result == 0)
		server_answer(peer, NULL);
	else
		server_refuse(peer, &err);
}

static int take_paths(struct daemon *daemon, struct json_object *arguments, const char **ret_image,
		      struct ploop_error *err)
{
	struct replace_job *job = &daemon->replace;
	const char *from, *to, *name = NULL;
	int r = message_need_text(arguments, "image", ret_image, err);

	if (r == 0)
		r = message_text(arguments, "from", &from, err);
	if (r == 0)
		r = message_text(arguments, "to", &to, err);
	if (r < 0)
		return r;
	if (**ret_image != '/' || !from != !to || (from && (*from != '/' || *to != '/')))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: not an absolute path");
	r = to ? dir_open_parent(NULL, to, &job->folder, &name, err) : 0;
	if (r < 0)
		return r;
	job->from = from ? strdup(from) : NULL;
	job->to = name ? strdup(name) : NULL;
	/* The old one's name is what it gets, or its own stays. */
	job->path = strdup(to && !strcmp(from, *ret_image) ? to : *ret_image);
	if (!job->path || (from && (!job->from || !job->to)))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", *ret_image);
	return 0;
}

/* {"level":0,"old":"/a/base","image":"/a/new","from":"/a/tmp","to":"/a/name"}: `old` is what the client takes for the file of the
 * level; it is refused when it is mistaken. At the turn `from`, if it is there, gets the name `to`. */
static int take_arguments(struct daemon *daemon, struct json_object *arguments, const char **ret_image,
			  struct ploop_error *err)
{
	struct replace_job *job = &daemon->replace;
	uint64_t level;
	const char *old;
	int r = message_number(arguments, "level", DEVICE_MAX_LEVELS, &level, err);

	if (r == 0)
		r = message_need_text(arguments, "old", &old, err);
	if (r < 0)
		return r;
	if (level >= daemon->state.nimages)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Invalid level %u specified, allowed values are 0 to %u", (unsigned)level,
				 (unsigned)daemon->state.nimages - 1);
	if (strcmp(old, daemon->state.images[level]))
		return error_set(err, -ESTALE, PLOOP_EXIT_BUSY, "the images of %s have changed meanwhile; try again",
				 daemon->name);
	if (daemon->merge.held)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "the merge of %s that was stopped must end first",
				 daemon->name);
	job->level = (unsigned)level;
	return take_paths(daemon, arguments, ret_image, err);
}

static int start(struct daemon *daemon, struct json_object *arguments, struct ploop_error *err)
{
	struct replace_job *job = &daemon->replace;
	struct device_replace_config config = { .turn = turn, .done = done, .data = daemon, .delta = &job->delta };
	const char *image;
	int r = take_arguments(daemon, arguments, &image, err);

	if (r == 0)
		r = stack_open_other(daemon->loop, daemon->stack, job->level, image, &job->delta, &job->lock, err);
	config.level = job->level;
	return r < 0 ? r : device_replace(daemon->device, &config, err);
}

void daemon_replace(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	int r = maintenance_check(daemon, &err);

	if (r == 0) {
		daemon->replace = (struct replace_job){ .lock = -1, .peer = peer };
		r = start(daemon, arguments, &err);
		if (r < 0)
			job_clear(&daemon->replace);
	}
	if (r < 0)
		server_refuse(peer, &err);
}
