/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * compact.c - see compact.h. A level below the top is only read otherwise: for the time it is locked and opened for writing. The
 * order of writes is device/compact.c's; the stack, and whatever names its files, stay as they are.
 */
#include "daemon/compact.h"

#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "device/device.h"
#include "image/stack.h"

bool compact_active(const struct daemon *daemon)
{
	return daemon->compact.running;
}

static bool is_top(const struct daemon *daemon, unsigned level)
{
	return level + 1 == daemon->stack->nlevels;
}

static uint64_t length_of(const struct daemon *daemon, unsigned level)
{
	uint64_t length;

	return io_size(daemon->stack->levels[level].file, &length) < 0 ? 0 : length;
}

static void unlock(struct daemon *daemon, unsigned level)
{
	struct ploop_error err;

	if (!is_top(daemon, level) && stack_lock(daemon->stack, level, FILE_LOCK_WRITE, FILE_LOCK_READ, &err) < 0)
		log_warning("%s: %s", daemon->name, err.text);
}

static void compacted(void *data, int result)
{
	struct daemon *daemon = data;
	struct compact_job *job = &daemon->compact;

	if (job->file) {
		stack_set_file(daemon->stack, job->level, job->file);
		job->file = NULL;
	}
	unlock(daemon, job->level);
	job->running = false;
	job->after = length_of(daemon, job->level);
	if (result == -ECANCELED)
		error_set(&job->error, result, PLOOP_EXIT_ABORT, "%s: the compaction was stopped; the device works on",
			  daemon->name);
	else if (result < 0)
		error_sys(&job->error, result, PLOOP_EXIT_RELOC, "%s: making %s shorter failed; the device works on",
			  daemon->name, daemon->stack->levels[job->level].file->path);
	if (result < 0)
		log_warning("%s", job->error.text);
	else
		log_info("%s: %s is %llu bytes long, after %llu", daemon->name,
			 daemon->stack->levels[job->level].file->path, (unsigned long long)job->after,
			 (unsigned long long)job->before);
}

static int find_level(const struct daemon *daemon, const char *image, unsigned *ret, struct ploop_error *err)
{
	const struct device_state *state = &daemon->state;

	for (unsigned i = 0; i < state->nimages; i++) {
		if (!strcmp(state->images[i], image)) {
			*ret = i;
			return 0;
		}
	}
	return error_set(err, -ESTALE, PLOOP_EXIT_BUSY, "the images of %s have changed meanwhile; try again",
			 daemon->name);
}

/* A level below the top is opened for writing, for the time. */
static int open_level(struct daemon *daemon, unsigned level, struct io_file **ret, struct ploop_error *err)
{
	const struct delta *delta = &daemon->stack->levels[level];
	int r;

	*ret = NULL;
	if (is_top(daemon, level))
		return 0;
	if (delta->geometry.extension && delta->geometry.read_only)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_FORMAT, "%s stays as it is: %s", delta->file->path,
				 delta->geometry.reason);
	r = stack_lock(daemon->stack, level, FILE_LOCK_READ, FILE_LOCK_WRITE, err);
	if (r < 0)
		return r;
	r = stack_open_writable(daemon->loop, daemon->stack, level, ret, err);
	if (r < 0)
		unlock(daemon, level);
	return r;
}

static int start(struct daemon *daemon, struct device_compact_config *config, struct ploop_error *err)
{
	struct compact_job *job = &daemon->compact;
	int r = open_level(daemon, config->level, &config->file, err);

	if (r < 0)
		return r;
	*job = (struct compact_job){ .running = true, .level = config->level, .file = config->file };
	job->before = length_of(daemon, config->level);
	config->done = compacted;
	config->data = daemon;
	r = device_compact(daemon->device, config, err);
	if (r == 0)
		return 0;
	job->running = false;
	if (job->file)
		io_close(job->file);
	job->file = NULL;
	unlock(daemon, config->level);
	return r;
}

void daemon_compact(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct device_compact_config config = { 0 };
	struct ploop_error err;
	const char *image;
	int r = message_need_text(arguments, "image", &image, &err);

	if (r == 0)
		r = message_number(arguments, "target", INT64_MAX, &config.target, &err);
	if (r == 0)
		r = message_number(arguments, "rate", INT64_MAX, &config.bytes_a_second, &err);
	if (r == 0)
		r = maintenance_check_for(daemon, peer, &err);
	if (r == 0)
		r = find_level(daemon, image, &config.level, &err);
	if (r == 0)
		r = start(daemon, &config, &err);
	if (r < 0)
		server_refuse(peer, &err);
	else
		server_answer(peer, NULL);
}

void daemon_compact_status(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct compact_job *job = &daemon->compact;
	struct json_object *result = json_object_new_object();

	(void)arguments;
	if (job->running)
		device_compact_progress(daemon->device, &job->total, &job->done);
	if (result) {
		message_add_bool(result, "running", job->running);
		message_add_number(result, "done", job->done);
		message_add_number(result, "total", job->total);
		message_add_number(result, "before", job->before);
		message_add_number(result, "after", job->after);
		if (job->error.code) {
			message_add_number(result, "errno", (uint64_t)-job->error.code);
			message_add_number(result, "status", job->error.status);
			message_add_text(result, "text", job->error.text);
		}
	}
	server_answer(peer, result);
}

void daemon_compact_stop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	(void)arguments;
	if (compact_active(daemon))
		device_compact_stop(daemon->device);
	server_answer(peer, NULL);
}
