/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* compact-run.c - see compact-run.h. Asked to stop, it stops the device's work and still waits for its end. */
#include "lib/compact-run.h"

#include <errno.h>
#include <time.h>

#include "base/checked.h"
#include "base/error.h"
#include "control/client.h"
#include "control/message.h"

#define POLL_FIRST_MS 2u
#define POLL_MOST_MS 200u

struct status {
	bool running;
	uint64_t done, total, before, after;
	struct ploop_error error; /* code 0: none */
};

static int take_error(struct json_object *answer, struct ploop_error *ret, struct ploop_error *err)
{
	uint64_t code, status;
	const char *text;
	int r = message_number(answer, "errno", 4095, &code, err);

	if (r < 0 || !code)
		return r;
	r = message_number(answer, "status", 255, &status, err);
	if (r == 0)
		r = message_need_text(answer, "text", &text, err);
	if (r == 0)
		error_set(ret, -(int)code, (enum ploop_exit)(status ? status : PLOOP_EXIT_RELOC), "%s", text);
	return r;
}

static int ask_status(struct control_client *client, struct status *ret, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct status status = { 0 };
	int r = control_call(client, "compact-status", NULL, &answer, err);

	if (r == 0)
		r = message_bool(answer, "running", &status.running, err);
	if (r == 0)
		r = message_number(answer, "done", INT64_MAX, &status.done, err);
	if (r == 0)
		r = message_number(answer, "total", INT64_MAX, &status.total, err);
	if (r == 0)
		r = message_number(answer, "before", INT64_MAX, &status.before, err);
	if (r == 0)
		r = message_number(answer, "after", INT64_MAX, &status.after, err);
	if (r == 0)
		r = take_error(answer, &status.error, err);
	if (r == 0)
		*ret = status;
	return r;
}

static void sleep_ms(unsigned ms)
{
	const struct timespec time = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&time, NULL);
}

static int wait_for_end(struct compact_run *run, struct status *ret, struct ploop_error *err)
{
	bool stopping = false;
	int r;

	for (unsigned ms = POLL_FIRST_MS;; ms = (unsigned)min_u64(2 * ms, POLL_MOST_MS)) {
		r = ask_status(run->client, ret, err);
		if (r < 0 || !ret->running)
			return r;
		if (!stopping && run->progress &&
		    run->progress(run->progress_data, "relocate", ret->done, ret->total)) {
			stopping = true;
			r = control_call(run->client, "compact-stop", NULL, NULL, err);
			if (r < 0)
				return r;
		}
		sleep_ms(ms);
	}
}

int compact_run(struct compact_run *run, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();
	struct status status;
	int r;

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", run->image);
	message_add_text(arguments, "image", run->image);
	message_add_number(arguments, "target", run->target);
	message_add_number(arguments, "rate", run->bytes_a_second);
	r = control_call(run->client, "compact", arguments, NULL, err);
	if (r == 0)
		r = wait_for_end(run, &status, err);
	if (r < 0)
		return r;
	run->truncated = status.before > status.after ? status.before - status.after : 0;
	return status.error.code ? error_set(err, status.error.code, status.error.status, "%s", status.error.text) : 0;
}

int compact_wait(struct compact_run *run, struct ploop_error *err)
{
	struct status status;
	int r = wait_for_end(run, &status, err);

	if (r == 0)
		run->truncated = status.before > status.after ? status.before - status.after : 0;
	return r;
}
