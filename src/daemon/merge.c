/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge.c - see merge.h. */
#include "daemon/merge.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "control/open.h"
#include "daemon/daemon.h"
#include "device/device.h"
#include "image/stack.h"

static int start_step(struct daemon *daemon, struct ploop_error *err);

bool merge_active(const struct daemon *daemon)
{
	return daemon->merge.state == PLOOP_MERGE_RUNNING || daemon->merge.state == PLOOP_MERGE_PAUSED;
}

/* The images of the levels that the merge writes to, from `from` on, go from one lock to another; all or none. */
static int lock_levels(struct daemon *daemon, unsigned from, unsigned end, struct ploop_error *err)
{
	for (unsigned level = from; level < end; level++) {
		int r = stack_lock(daemon->stack, level, FILE_LOCK_READ, FILE_LOCK_WRITE, err);

		if (r == 0)
			continue;
		while (level-- > from)
			stack_lock(daemon->stack, level, FILE_LOCK_WRITE, FILE_LOCK_READ, NULL);
		return r;
	}
	return 0;
}

static void unlock_levels(struct daemon *daemon, unsigned from, unsigned end)
{
	struct ploop_error err;

	for (unsigned level = from; level < end; level++)
		if (stack_lock(daemon->stack, level, FILE_LOCK_WRITE, FILE_LOCK_READ, &err) < 0)
			log_warning("%s: %s", daemon->name, err.text);
}

/* The stack has lost the levels first .. last. */
static void forget_levels(struct daemon *daemon, unsigned first, unsigned last)
{
	struct device_state *state = &daemon->state;
	unsigned gone = last - first + 1;

	stack_drop(daemon->stack, first, last);
	for (unsigned i = first; i <= last; i++) {
		log_info("%s: %s is merged", daemon->name, state->images[i]);
		free(state->images[i]);
	}
	memmove(&state->images[first], &state->images[last + 1], (state->nimages - last - 1) * sizeof(*state->images));
	state->nimages -= gone;
	daemon_save(daemon);
}

/* Over, one way or the other. */
static void end(struct daemon *daemon, int result)
{
	struct merge_job *job = &daemon->merge;

	job->state = result < 0 ? PLOOP_MERGE_FAILED : PLOOP_MERGE_DONE;
	if (result < 0)
		log_warning("%s: %s", daemon->name, job->error.text);
	else
		log_info("%s: levels %u..%u are merged", daemon->name, job->low, job->high);
}

/* One past the last level whose lock is ours for the time of the merge: the top's is in any case. */
static unsigned end_of_range(const struct merge_job *job)
{
	return job->low + job->left + !job->with_top;
}

/* The data of low + 1 .. step_high is in `low`. */
static int below_merged(struct daemon *daemon)
{
	struct merge_job *job = &daemon->merge;
	int r = 0;

	for (unsigned level = job->low + 1; level <= job->step_high && r == 0; level++)
		r = stack_empty(daemon->stack, level, &job->error);
	forget_levels(daemon, job->low + 1, job->step_high);
	job->left -= job->step_high - job->low;
	if (r == 0 && job->left)
		return start_step(daemon, &job->error);
	unlock_levels(daemon, job->low, end_of_range(job));
	end(daemon, r);
	return r;
}

static void step_failed(struct daemon *daemon, int result)
{
	struct merge_job *job = &daemon->merge;
	const char *path = daemon->stack->levels[job->low].file->path;

	if (result == -ECANCELED)
		error_set(&job->error, result, PLOOP_EXIT_ABORT,
			  "%s: the merge was stopped; the device works on, and merging again goes on", daemon->name);
	else
		error_sys(&job->error, result, PLOOP_EXIT_WRITE, "%s: merging into %s failed; the device works on",
			  daemon->name, path);
	job->held = job->top;
	if (!job->top)
		unlock_levels(daemon, job->low, end_of_range(job));
	end(daemon, result);
}

static void step_done(void *data, int result)
{
	struct daemon *daemon = data;
	struct merge_job *job = &daemon->merge;

	stack_set_file(daemon->stack, job->low, job->file);
	job->file = NULL;
	daemon->stack->levels[job->low].geometry = *device_geometry(daemon->device, job->low);
	job->done = job->total;
	if (result < 0) {
		step_failed(daemon, result);
	} else if (job->top) {
		job->held = false;
		forget_levels(daemon, job->low + 1, job->low + 1);
		end(daemon, 0);
	} else {
		result = below_merged(daemon);
		if (result < 0 && merge_active(daemon)) {
			unlock_levels(daemon, job->low, end_of_range(job));
			end(daemon, result);
		}
	}
}

/* The levels from low + 1 on that are of one size and not the top; or the top, when that is all that is left. */
static unsigned end_of_step(const struct merge_job *job, const struct stack *stack)
{
	unsigned last = job->low + job->left - (job->with_top && job->left > 1), high = job->low + 1;

	while (high < last && stack->levels[high + 1].geometry.size == stack->levels[high].geometry.size)
		high++;
	return high;
}

static int start_step(struct daemon *daemon, struct ploop_error *err)
{
	struct merge_job *job = &daemon->merge;
	struct stack *stack = daemon->stack;
	struct device_merge_config config = {
		.low = job->low,
		.bytes_a_second = job->bytes_a_second,
		.done = step_done,
		.data = daemon,
	};
	int r;

	job->top = job->with_top && job->left == 1;
	job->step_high = end_of_step(job, stack);
	config.high = job->step_high;
	r = stack_open_writable(daemon->loop, stack, job->low, &job->file, err);
	if (r < 0)
		return r;
	config.file = job->file;
	r = device_merge(daemon->device, &config, err);
	if (r < 0) {
		io_close(job->file);
		job->file = NULL;
		return r;
	}
	device_merge_pause(daemon->device, job->state == PLOOP_MERGE_PAUSED);
	return 0;
}

/* The client must know the files that it is about to merge. */
static int check_images(struct daemon *daemon, struct json_object *arguments, struct ploop_error *err)
{
	const struct merge_job *job = &daemon->merge;
	const struct device_state *state = &daemon->state;
	char **images = NULL;
	size_t n = 0;
	int r = message_texts(arguments, "images", OPEN_OPERANDS, &images, &n, err);

	if (r < 0)
		return r;
	if (n != job->high - job->low + 1)
		r = -ESTALE;
	for (size_t i = 0; i < n && r == 0; i++)
		r = strcmp(images[i], state->images[job->low + i]) ? -ESTALE : 0;
	message_texts_free(images, n);
	return r ? error_set(err, r, PLOOP_EXIT_BUSY, "the images of %s have changed meanwhile; try again",
			     daemon->name)
		 : 0;
}

/* Nobody may lose what a format extension holds, dirty bitmaps apart: those of the disk are elsewhere. */
static int check_extensions(struct daemon *daemon, struct ploop_error *err)
{
	const struct merge_job *job = &daemon->merge;

	for (unsigned level = job->low; level <= job->high && level + 1 < daemon->stack->nlevels; level++) {
		/* What the stack knows is from when the file was opened. */
		const struct geometry *g = device_geometry(daemon->device, level);

		if (g->extension && g->read_only)
			return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_FORMAT, "%s cannot be merged: %s",
					 daemon->stack->levels[level].file->path, g->reason);
	}
	return 0;
}

static int take_arguments(struct daemon *daemon, struct json_object *arguments, struct ploop_error *err)
{
	struct merge_job *job = &daemon->merge;
	const unsigned top = (unsigned)daemon->state.nimages - 1;
	uint64_t low, high, rate;
	int r = message_number(arguments, "low", DEVICE_MAX_LEVELS, &low, err);

	if (r == 0)
		r = message_number(arguments, "high", DEVICE_MAX_LEVELS, &high, err);
	if (r == 0)
		r = message_number(arguments, "rate", INT64_MAX, &rate, err);
	if (r < 0)
		return r;
	if (!top)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Single delta, nothing to merge");
	if (high > top)
		return error_set(err, -EINVAL, PLOOP_EXIT_SYSFS, "Illegal top level");
	if (low >= high)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there is nothing from level %u to %u to merge",
				 (unsigned)low, (unsigned)high);
	if (job->held && (high != top || low + 1 != top))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "the merge of levels %u..%u of %s that was stopped must end first", top - 1, top,
				 daemon->name);
	*job = (struct merge_job){
		.low = (unsigned)low, .high = (unsigned)high, .held = job->held, .bytes_a_second = rate
	};
	job->with_top = job->high == top;
	job->left = job->high - job->low;
	return 0;
}

/* Refused: as it was, but for what `merge-status` said of the one before. */
static void refuse(struct daemon *daemon, struct server_peer *peer, const struct ploop_error *err)
{
	daemon->merge.state = PLOOP_MERGE_NONE;
	server_refuse(peer, err);
}

void daemon_merge(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct merge_job *job = &daemon->merge;
	struct ploop_error err;
	unsigned from, until;
	int r = maintenance_check(daemon, &err);

	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	r = take_arguments(daemon, arguments, &err);
	if (r == 0)
		r = check_images(daemon, arguments, &err);
	if (r == 0)
		r = check_extensions(daemon, &err);
	/* The top's is held for writing, and so is that of the one below after a merge that was stopped. */
	from = job->low + job->held;
	until = job->high + !job->with_top;
	if (r == 0)
		r = lock_levels(daemon, from, until, &err);
	if (r < 0) {
		refuse(daemon, peer, &err);
		return;
	}
	job->state = PLOOP_MERGE_RUNNING;
	r = start_step(daemon, &err);
	if (r < 0) {
		unlock_levels(daemon, from, until);
		refuse(daemon, peer, &err);
		return;
	}
	log_info("%s: merging levels %u..%u", daemon->name, job->low, job->high);
	server_answer(peer, NULL);
}

void daemon_merge_status(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct merge_job *job = &daemon->merge;
	struct json_object *result = json_object_new_object();

	(void)arguments;
	device_merge_progress(daemon->device, &job->total, &job->done);
	if (result) {
		message_add_text(result, "state", ploop_merge_state_name(job->state));
		message_add_bool(result, "top", job->top);
		message_add_number(result, "low", job->low);
		message_add_number(result, "high", job->high);
		message_add_number(result, "done", job->done);
		message_add_number(result, "total", job->total);
		if (job->state == PLOOP_MERGE_FAILED) {
			message_add_number(result, "errno", (uint64_t)-job->error.code);
			message_add_number(result, "status", job->error.status);
			message_add_text(result, "text", job->error.text);
		}
	}
	server_answer(peer, result);
}

void daemon_merge_pause(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	bool paused;

	if (message_bool(arguments, "paused", &paused, &err) < 0) {
		server_refuse(peer, &err);
		return;
	}
	if (merge_active(daemon)) {
		daemon->merge.state = paused ? PLOOP_MERGE_PAUSED : PLOOP_MERGE_RUNNING;
		device_merge_pause(daemon->device, paused);
	}
	server_answer(peer, NULL);
}

void daemon_merge_stop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	(void)arguments;
	if (merge_active(daemon))
		device_merge_stop(daemon->device);
	server_answer(peer, NULL);
}
