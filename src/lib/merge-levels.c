/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-levels.c - asks a running ploopd to merge levels, and waits until it has. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"
#include "device/device.h"
#include "lib/merge-names.h"

/* It is looked after a while that is small beside what it has taken so far. */
#define POLL_LEAST_MS 2u
#define POLL_MOST_MS 200u
#define POLL_SHARE 32u

static const char *const state_names[] = { "none", "running", "paused", "done", "failed" };

const char *ploop_merge_state_name(enum ploop_merge_state state)
{
	return (size_t)state < ARRAY_SIZE(state_names) ? state_names[state] : "unknown";
}

static int find_running(const char *device, struct ploop_device *ret, struct ploop_error *err)
{
	struct ploop_which which = { .device = device };
	int r = ploop_find(&which, ret, err);

	if (r == 0 && !ret->alive) {
		ploop_device_clear(ret);
		r = error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`", device,
			      device);
	}
	return r;
}

static int connect_to(const char *device, struct control_client **ret, struct ploop_error *err)
{
	struct ploop_device found;
	int r = find_running(device, &found, err);

	if (r < 0)
		return r;
	r = control_connect(found.name, CONTROL_TIMEOUT_MS, ret, err);
	ploop_device_clear(&found);
	return r;
}

static int take_state(struct json_object *answer, enum ploop_merge_state *ret, struct ploop_error *err)
{
	const char *word;
	int r = message_need_text(answer, "state", &word, err);

	for (size_t i = 0; r == 0 && i < ARRAY_SIZE(state_names); i++) {
		if (!strcmp(word, state_names[i])) {
			*ret = (enum ploop_merge_state)i;
			return 0;
		}
	}
	return r < 0 ? r : error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"state\" is not known");
}

static int take_error(struct json_object *answer, struct ploop_error *ret, struct ploop_error *err)
{
	uint64_t code, status;
	const char *text;
	int r = message_number(answer, "errno", 4095, &code, err);

	if (r == 0)
		r = message_number(answer, "status", 255, &status, err);
	if (r == 0)
		r = message_need_text(answer, "text", &text, err);
	if (r < 0)
		return r;
	error_set(ret, code ? -(int)code : -EIO, (enum ploop_exit)(status ? status : PLOOP_EXIT_SYS), "%s", text);
	return 0;
}

static int take_status(struct json_object *answer, struct ploop_merge_status *ret, struct ploop_error *err)
{
	struct ploop_merge_status status = { 0 };
	uint64_t low = 0, high = 0;
	int r = take_state(answer, &status.state, err);

	if (r == 0)
		r = message_bool(answer, "top", &status.top, err);
	if (r == 0)
		r = message_number(answer, "low", DEVICE_MAX_LEVELS, &low, err);
	if (r == 0)
		r = message_number(answer, "high", DEVICE_MAX_LEVELS, &high, err);
	if (r == 0)
		r = message_number(answer, "done", INT64_MAX, &status.done, err);
	if (r == 0)
		r = message_number(answer, "total", INT64_MAX, &status.total, err);
	if (r == 0 && status.state == PLOOP_MERGE_FAILED)
		r = take_error(answer, &status.error, err);
	if (r < 0)
		return r;
	status.low = (uint32_t)low;
	status.high = (uint32_t)high;
	*ret = status;
	return 0;
}

static int ask_status(struct control_client *client, struct ploop_merge_status *ret, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	int r = control_call(client, "merge-status", NULL, &answer, err);

	return r < 0 ? r : take_status(answer, ret, err);
}

static bool is_over(const struct ploop_merge_status *status)
{
	return status->state != PLOOP_MERGE_RUNNING && status->state != PLOOP_MERGE_PAUSED;
}

static void sleep_ms(unsigned ms)
{
	const struct timespec time = { .tv_nsec = (long)ms * 1000000 };

	nanosleep(&time, NULL);
}

/* Until the merge is over. Asked to stop, it stops it and still waits. */
static int wait_for_end(struct control_client *client, const struct ploop_merge_levels *merge,
			struct ploop_merge_status *ret, struct ploop_error *err)
{
	bool stopping = false;
	unsigned ms = POLL_LEAST_MS;
	int r;

	for (uint64_t waited = 0;; waited += ms) {
		r = ask_status(client, ret, err);
		if (r < 0 || is_over(ret))
			return r;
		if (merge && !stopping && merge->progress &&
		    merge->progress(merge->progress_data, ret->top ? "merge of the top" : "merge", ret->done,
				    ret->total)) {
			stopping = true;
			r = control_call(client, "merge-stop", NULL, NULL, err);
			if (r < 0)
				return r;
		}
		ms = (unsigned)max_u64(POLL_LEAST_MS, min_u64(waited / POLL_SHARE, POLL_MOST_MS));
		sleep_ms(ms);
	}
}

static int start(struct control_client *client, const struct ploop_merge_levels *merge,
		 const struct ploop_device *device, uint32_t high, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	message_add_number(arguments, "low", merge->low);
	message_add_number(arguments, "high", high);
	message_add_number(arguments, "rate", merge->bytes_a_second);
	message_add_texts(arguments, "images", (const char *const *)device->images + merge->low, high - merge->low + 1);
	return control_call(client, "merge", arguments, NULL, err);
}

/* When a descriptor names more images than the device has, one of the two is behind. */
static int single_delta(const struct ploop_device *device, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *path = NULL;

	if (merge_names_find(device->descriptor, device->images[0], &path) > 0 &&
	    descriptor_open(path, &d, NULL) == 0 && d->nsnapshots > 1)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Single delta, nothing to merge: %s has one image and %s names %u; which of the two "
				 "is behind tells "
				 "`ploop repair-descriptor --dry-run %s`",
				 device->device, path, d->nsnapshots, path);
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Single delta, nothing to merge");
}

static int check_levels(const struct ploop_merge_levels *merge, const struct ploop_device *device, uint32_t *ret_high,
			struct ploop_error *err)
{
	uint32_t top = (uint32_t)device->nimages - 1;
	uint32_t high = merge->high == PLOOP_MERGE_TOP ? top : merge->high;

	if (!top)
		return single_delta(device, err);
	if (high > top)
		return error_set(err, -EINVAL, PLOOP_EXIT_SYSFS, "Illegal top level");
	if (merge->low >= high)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there is nothing from level %u to %u to merge",
				 merge->low, high);
	*ret_high = high;
	return 0;
}

/* It failed or was stopped, perhaps when the levels below the top were gone already: the descriptor forgets these. */
static void settle_names(struct merge_names *names, const struct ploop_device *device)
{
	struct ploop_device now = { 0 };
	struct ploop_error err;
	int r = find_running(device->device, &now, &err);

	if (r == 0 && now.nimages < device->nimages)
		r = merge_names_commit(names, (unsigned)(device->nimages - now.nimages) + 1, NULL, &err);
	if (r < 0)
		log_warning("%s", err.text);
	ploop_device_clear(&now);
}

static int merge_device(const struct ploop_merge_levels *merge, const struct ploop_device *device,
			const char *descriptor, struct ploop_error *err)
{
	_merge_names_end_ struct merge_names names = { 0 };
	_client_ struct control_client *client = NULL;
	struct ploop_merge_status status;
	uint32_t high = 0;
	int r = check_levels(merge, device, &high, err);

	if (r < 0)
		return r;
	names.remove = descriptor != NULL;
	r = merge_names_begin(&names, descriptor ? descriptor : device->descriptor,
			      (const char *const *)device->images + merge->low, high - merge->low + 1, NULL, err);
	if (r == 0)
		r = control_connect(device->name, CONTROL_TIMEOUT_MS, &client, err);
	if (r == 0)
		r = merge_names_mark(&names, err);
	if (r < 0)
		return r;
	r = start(client, merge, device, high, err);
	if (r < 0) {
		if (r == -EBUSY || r == -EINVAL || r == -ESTALE || r == -EFBIG || r == -EOPNOTSUPP || r == -EROFS ||
		    r == -EACCES)
			merge_names_unmark(&names); /* else nobody knows */
		return r;
	}
	merge_names_pause(&names);
	merge_names_tell((const char *const *)device->images + merge->low, high - merge->low + 1, NULL);
	r = wait_for_end(client, merge, &status, err);
	if (r < 0)
		return r;
	if (status.state == PLOOP_MERGE_FAILED) {
		settle_names(&names, device);
		return error_set(err, status.error.code, status.error.status, "%s", status.error.text);
	}
	return merge_names_commit(&names, names.n, NULL, err);
}

int merge_levels(const struct ploop_merge_levels *merge, const char *descriptor, struct ploop_error *err)
{
	struct ploop_device device;
	int r = find_running(merge->device, &device, err);

	if (r < 0)
		return r;
	r = merge_device(merge, &device, descriptor, err);
	ploop_device_clear(&device);
	return r;
}

int ploop_merge_levels(const struct ploop_merge_levels *merge, struct ploop_error *err)
{
	return merge_levels(merge, NULL, err);
}

int ploop_merge_status(const char *device, struct ploop_merge_status *ret, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	int r = connect_to(device, &client, err);

	return r < 0 ? r : ask_status(client, ret, err);
}

int ploop_merge_pause(const char *device, bool paused, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	struct json_object *arguments = json_object_new_object();
	int r = connect_to(device, &client, err);

	if (r < 0) {
		json_object_put(arguments);
		return r;
	}
	message_add_bool(arguments, "paused", paused);
	return control_call(client, "merge-pause", arguments, NULL, err);
}

int ploop_merge_stop(const char *device, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	struct ploop_merge_status status;
	int r = connect_to(device, &client, err);

	if (r == 0)
		r = control_call(client, "merge-stop", NULL, NULL, err);
	return r < 0 ? r : wait_for_end(client, NULL, &status, err);
}
