/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* track.c - see track.h. */
#include "daemon/track.h"

#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/cbt.h"
#include "daemon/daemon.h"
#include "daemon/maintenance.h"
#include "device/device.h"
#include "image/stack.h"

#define TAKE_RUNS 4096u /* in one answer */
#define HOLD_SECONDS_MOST 3600u

static struct daemon *daemon_of(struct track_job *job)
{
	return container_of(job, struct daemon, track);
}

static void track_over(struct track_job *job)
{
	if (!job->track)
		return;
	if (job->timer.armed)
		loop_timer_cancel(daemon_of(job)->loop, &job->timer);
	cbt_forget_period(daemon_of(job));
	server_watch_peer(job->owner, NULL, NULL);
	device_track_end(job->track);
	tracker_fini(&job->tracker);
	job->track = NULL;
	job->owner = NULL;
}

static void owner_gone(void *data)
{
	struct daemon *daemon = data;

	log_warning("%s: who copied it is gone", daemon->name);
	track_over(&daemon->track);
}

/* The device closes. Who waits for it to stand still learns that it will not. */
static void device_stopped(void *data)
{
	struct daemon *daemon = data;
	struct server_peer *waiting = daemon->track.waiting ? daemon->track.owner : NULL;
	struct ploop_error err;

	daemon->track.waiting = false;
	track_over(&daemon->track);
	error_set(&err, -ESHUTDOWN, PLOOP_EXIT_BUSY, "%s is being stopped", daemon->name);
	if (waiting)
		server_refuse(waiting, &err);
}

/* What is to be copied first: all that is mapped. Mapped holes are, too: they hide what lies below. */
static void mark_all(struct daemon *daemon)
{
	const struct device *device = daemon->device;
	struct track_job *job = &daemon->track;
	uint64_t cluster = device_cluster(device), size = device_size(device);
	unsigned top = device_levels(device) - 1;

	for (uint64_t at = 0; at < size; at += cluster) {
		struct device_place place = device_lookup(device, (uint32_t)(at / cluster));

		if (place.cluster && (job->flat || place.level == top))
			tracker_mark(&job->tracker, at, min_u64(at + cluster, size));
	}
}

/* Of a backup: what has changed, be it mapped or not any more. */
static void mark_changed(struct daemon *daemon, const struct cbt_map *map)
{
	const struct bitmap *dirty = &map->tracker.dirty;
	uint64_t size = device_size(daemon->device);

	for (uint64_t bit = bitmap_next_set(dirty, 0); bit < dirty->bits; bit = bitmap_next_set(dirty, bit + 1))
		tracker_mark(&daemon->track.tracker, bit * map->tracker.unit,
			     min_u64((bit + 1) * map->tracker.unit, size));
}

/* {"since":".."}: *ret is that bitmap, NULL when none is asked for. */
static int take_since(struct daemon *daemon, struct json_object *arguments, const struct cbt_map **ret,
		      struct ploop_error *err)
{
	const char *text = NULL;
	uint8_t id[CBT_ID];
	int r = message_text(arguments, "since", &text, err);

	*ret = NULL;
	if (r < 0 || !text)
		return r;
	r = cbt_take_id(arguments, "since", id, err);
	if (r < 0)
		return r;
	*ret = device_cbt_find(daemon->device, id);
	return *ret ? 0 : error_set(err, -ENOENT, PLOOP_EXIT_NO_CBT, "%s has no dirty bitmap of that UUID", daemon->name);
}

static struct json_object *describe(const struct daemon *daemon)
{
	const struct delta *top = &daemon->stack->levels[daemon->stack->nlevels - 1];
	struct json_object *result = json_object_new_object();

	if (!result)
		return NULL;
	message_add_number(result, "size", device_size(daemon->device));
	message_add_number(result, "cluster", device_cluster(daemon->device));
	message_add_number(result, "levels", daemon->stack->nlevels);
	message_add_number(result, "version", top->geometry.version);
	message_add_bool(result, "raw", !top->format->has_index);
	message_add_number(result, "dirty", tracker_dirty(&daemon->track.tracker));
	return result;
}

void daemon_track(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct track_job *job = &daemon->track;
	const struct cbt_map *since = NULL;
	struct ploop_error err;
	int r = maintenance_check(daemon, &err);

	if (r == 0)
		r = message_bool(arguments, "flat", &job->flat, &err);
	if (r == 0)
		r = take_since(daemon, arguments, &since, &err);
	if (r == 0 && tracker_init(&job->tracker, device_size(daemon->device)) < 0)
		r = error_sys(&err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
	if (r == 0) {
		r = device_track(daemon->device, &job->tracker, device_stopped, daemon, &job->track, &err);
		if (r < 0)
			tracker_fini(&job->tracker);
	}
	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	job->owner = peer;
	job->late = false;
	server_watch_peer(peer, owner_gone, daemon);
	job->period = false;
	if (since)
		mark_changed(daemon, since);
	else
		mark_all(daemon);
	server_answer(peer, describe(daemon));
}

bool track_check_owner(struct daemon *daemon, struct server_peer *peer)
{
	struct ploop_error err;

	if (daemon->track.track && daemon->track.owner == peer)
		return true;
	error_set(&err, -ESHUTDOWN, PLOOP_EXIT_PROTOCOL, "%s: the copy was stopped", daemon->name);
	server_refuse(peer, &err);
	return false;
}

static void add_run(struct json_object *runs, uint64_t offset, uint64_t length, int level, uint64_t file_offset)
{
	json_object_array_add(runs, json_object_new_int64((int64_t)offset));
	json_object_array_add(runs, json_object_new_int64((int64_t)length));
	json_object_array_add(runs, json_object_new_int(level));
	json_object_array_add(runs, json_object_new_int64((int64_t)file_offset));
}

/* One stretch of notes inside one cluster. */
static void add_place(struct daemon *daemon, struct json_object *runs, uint64_t start, uint64_t end)
{
	const struct device *device = daemon->device;
	uint32_t cluster = device_cluster(device);
	struct device_place place = device_lookup(device, (uint32_t)(start / cluster));
	const struct geometry *g = &daemon->stack->levels[place.level].geometry;

	if (!place.cluster || (!daemon->track.flat && place.level != device_levels(device) - 1))
		add_run(runs, round_down(start, cluster), min_u64(cluster, device_size(device) - round_down(start, cluster)),
			-1, 0);
	else
		add_run(runs, start, end - start, (int)place.level, geometry_offset(g, place.cluster) + start % cluster);
}

void daemon_track_take(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	uint64_t size = device_size(daemon->device), cluster = device_cluster(daemon->device);
	struct json_object *result, *runs;
	struct ploop_error err;
	uint64_t from, start, end;
	unsigned n = 0;

	if (!track_check_owner(daemon, peer))
		return;
	if (message_number(arguments, "from", size, &from, &err) < 0) {
		server_refuse(peer, &err);
		return;
	}
	result = json_object_new_object();
	runs = json_object_new_array();
	while (n < TAKE_RUNS && from < size) {
		/* Up to the end of a cluster; where it starts inside one was found by the last turn. */
		uint64_t most = cluster - from % cluster;

		if (!tracker_take(&daemon->track.tracker, from, most, &start, &end)) {
			from = size;
			break;
		}
		from = end = min_u64(end, size);
		for (uint64_t at = start; at < end; n++) {
			uint64_t stop = min_u64(end, round_down(at, cluster) + cluster);

			add_place(daemon, runs, at, stop);
			at = stop;
		}
	}
	json_object_object_add(result, "runs", runs);
	if (from < size)
		message_add_number(result, "next", from);
	message_add_number(result, "dirty", tracker_dirty(&daemon->track.tracker));
	server_answer(peer, result);
}

void daemon_track_mark(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	uint64_t size = device_size(daemon->device), cluster = device_cluster(daemon->device);
	struct json_object *list;
	struct ploop_error err;

	if (!track_check_owner(daemon, peer))
		return;
	if (!json_object_object_get_ex(arguments, "clusters", &list) || !json_object_is_type(list, json_type_array)) {
		error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"clusters\" is missing");
		server_refuse(peer, &err);
		return;
	}
	for (size_t i = 0; i < json_object_array_length(list); i++) {
		uint64_t at = (uint64_t)json_object_get_int64(json_object_array_get_idx(list, i));

		if (at < size)
			tracker_mark(&daemon->track.tracker, round_down(at, cluster),
				     min_u64(round_down(at, cluster) + cluster, size));
	}
	server_answer(peer, NULL);
}

static void stands_still(void *data)
{
	struct daemon *daemon = data;
	struct track_job *job = &daemon->track;

	job->waiting = false;
	server_answer(job->owner, NULL);
}

static void held_too_long(struct loop_timer *timer)
{
	struct track_job *job = container_of(timer, struct track_job, timer);
	struct daemon *daemon = daemon_of(job);

	log_warning("%s: its copy takes too long, it goes on", daemon->name);
	job->late = true;
	device_track_release(job->track);
	if (job->waiting) {
		struct ploop_error err;

		job->waiting = false;
		error_set(&err, -ETIMEDOUT, PLOOP_EXIT_LOOP, "%s: requests under way did not end in time", daemon->name);
		server_refuse(job->owner, &err);
	}
}

void daemon_track_hold(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct track_job *job = &daemon->track;
	struct ploop_error err;
	uint64_t seconds;

	if (!track_check_owner(daemon, peer))
		return;
	if (message_number(arguments, "seconds", HOLD_SECONDS_MOST, &seconds, &err) < 0) {
		server_refuse(peer, &err);
		return;
	}
	job->timer.expired = held_too_long;
	if (!job->timer.armed)
		loop_timer_set(daemon->loop, &job->timer, seconds * 1000000000u);
	job->late = false;
	job->waiting = true;
	device_track_hold(job->track, stands_still);
}

void daemon_track_release(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct track_job *job = &daemon->track;
	struct json_object *result;

	(void)arguments;
	if (!track_check_owner(daemon, peer))
		return;
	if (job->timer.armed)
		loop_timer_cancel(daemon->loop, &job->timer);
	device_track_release(job->track);
	result = json_object_new_object();
	message_add_bool(result, "late", job->late);
	server_answer(peer, result);
}

void daemon_track_end(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	(void)arguments;
	if (!track_check_owner(daemon, peer))
		return;
	track_over(&daemon->track);
	server_answer(peer, NULL);
}
