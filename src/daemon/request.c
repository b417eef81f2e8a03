/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* request.c - what clients may ask of a running device: a table of verbs. */
#include <errno.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/message.h"
#include "daemon/cbt.h"
#include "daemon/daemon.h"
#include "daemon/self.h"
#include "daemon/succeed.h"
#include "device/device.h"

static uint64_t *counters(struct daemon *daemon)
{
	return (uint64_t *)device_get_stats(daemon->device);
}

static struct json_object *print_counters(struct daemon *daemon)
{
	struct json_object *result = json_object_new_object(), *list = json_object_new_object();
	const uint64_t *values = counters(daemon);

	if (!result || !list) {
		json_object_put(result);
		json_object_put(list);
		return NULL;
	}
	for (unsigned i = 0; device_stats_names[i]; i++)
		message_add_number(list, device_stats_names[i], values[i]);
	json_object_object_add(result, "counters", list);
	return result;
}

static int set_counter(struct daemon *daemon, const char *name, struct json_object *values, struct ploop_error *err)
{
	for (unsigned i = 0; device_stats_names[i]; i++)
		if (!strcmp(device_stats_names[i], name))
			return message_number(values, name, INT64_MAX, &counters(daemon)[i], err);
	return error_set(err, -ENOENT, PLOOP_EXIT_PARAM, "Variable \"%s\" is missing", name);
}

/* {"clear":true} or {"set":{"bio_in":5}}; answers with the values after it. */
static void request_stat(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct json_object *values = NULL;
	struct ploop_error err;
	bool clear;
	int r;

	r = message_bool(arguments, "clear", &clear, &err);
	json_object_object_get_ex(arguments, "set", &values);
	if (r == 0 && values && !json_object_is_type(values, json_type_object))
		r = error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"set\" is not an object");
	if (r == 0 && clear)
		memset(counters(daemon), 0, sizeof(struct device_stats));
	if (r == 0 && values) {
		json_object_object_foreach(values, name, value)
		{
			(void)value;
			if (r == 0)
				r = set_counter(daemon, name, values, &err);
		}
	}
	if (r < 0)
		server_refuse(peer, &err);
	else
		server_answer(peer, print_counters(daemon));
}

/* What state.json says, and what only the running device knows. */
static void request_status(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct device_usage usage;
	struct json_object *result = NULL;

	(void)arguments;
	if (state_print(&daemon->state, &result) == 0) {
		device_get_usage(daemon->device, &usage);
		message_add_bool(result, "full", device_full(daemon->device));
		message_add_bool(result, "pushing", daemon->pusher != NULL);
		message_add_bool(result, "aborted", device_aborted(daemon->device));
		message_add_number(result, "mapped", usage.mapped);
		message_add_number(result, "top_used", usage.top_used);
		message_add_number(result, "top_free", usage.top_free);
	}
	server_answer(peer, result);
}

/* {"force":true}: though it is in use; {"lazy":true}: answer at once, stop when nobody uses it. */
static void request_stop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	bool force, lazy;
	int r;

	r = message_bool(arguments, "force", &force, &err);
	if (r == 0)
		r = message_bool(arguments, "lazy", &lazy, &err);
	if (r < 0) {
		server_refuse(peer, &err);
	} else if (lazy) {
		server_answer(peer, NULL);
		daemon_stop_when_idle(daemon);
	} else {
		daemon_stop(daemon, force, peer);
	}
}

/* Requests that wait for space on the host are tried now. */
static void request_resume(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	(void)arguments;
	device_resume(daemon->device);
	server_answer(peer, NULL);
}

static const struct {
	const char *verb;
	void (*run)(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments);
} requests[] = {
	{ "balloon", daemon_balloon },
	{ "balloon-count", daemon_balloon_count },
	{ "balloon-release", daemon_balloon_release },
	{ "cbt", daemon_cbt },
	{ "cbt-drop", daemon_cbt_drop },
	{ "cbt-runs", daemon_cbt_runs },
	{ "cbt-start", daemon_cbt_start },
	{ "compact", daemon_compact },
	{ "compact-status", daemon_compact_status },
	{ "compact-stop", daemon_compact_stop },
	{ "maintenance", daemon_maintenance },
	{ "grow", daemon_grow },
	{ "merge", daemon_merge },
	{ "merge-pause", daemon_merge_pause },
	{ "merge-status", daemon_merge_status },
	{ "merge-stop", daemon_merge_stop },
	{ "push", daemon_push },
	{ "push-check", daemon_push_check },
	{ "replace", daemon_replace },
	{ "resume", request_resume },
	{ "settle", daemon_settle },
	{ "stat", request_stat },
	{ "status", request_status },
	{ "stop", request_stop },
	{ "track", daemon_track },
	{ "track-commit", daemon_track_commit },
	{ "track-end", daemon_track_end },
	{ "track-hold", daemon_track_hold },
	{ "track-mark", daemon_track_mark },
	{ "track-period", daemon_track_period },
	{ "track-plant", daemon_track_plant },
	{ "track-release", daemon_track_release },
	{ "track-take", daemon_track_take },
	{ "upgrade", daemon_upgrade },
};

void daemon_request(void *data, struct server_peer *peer, const char *verb, struct json_object *arguments)
{
	struct daemon *daemon = data;
	struct ploop_error err;

	self_find_root(daemon->refuge);
	for (unsigned i = 0; i < ARRAY_SIZE(requests); i++) {
		if (!strcmp(requests[i].verb, verb)) {
			requests[i].run(daemon, peer, arguments);
			return;
		}
	}
	error_set(&err, -EOPNOTSUPP, PLOOP_EXIT_PROTOCOL, "this ploopd does not know \"%s\"", verb);
	server_refuse(peer, &err);
}
