/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cbt.c - see cbt.h. */
#include "daemon/cbt.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/list.h"
#include "control/message.h"
#include "daemon/daemon.h"

#define RUNS_MOST 8192u /* in one answer */

/* Somebody waits until the bitmaps are in the image. */
struct planting {
	struct cbt_plant plant;
	struct daemon *daemon;
	struct server_peer *peer; /* NULL: nobody listens */
};

static void print_id(const uint8_t id[CBT_ID], char ret[2 * CBT_ID + 1])
{
	for (unsigned i = 0; i < CBT_ID; i++)
		snprintf(ret + (size_t)(2 * i), 3, "%02x", id[i]);
}

static int digit(char c)
{
	static const char digits[] = "0123456789abcdef";
	const char *at = c ? strchr(digits, c) : NULL;

	return at ? (int)(at - digits) : -1;
}

int cbt_take_id(struct json_object *arguments, const char *key, uint8_t ret[CBT_ID], struct ploop_error *err)
{
	const char *text;
	int r = message_need_text(arguments, key, &text, err);

	if (r < 0)
		return r;
	if (strlen(text) != (size_t)(2 * CBT_ID) || strspn(text, "0123456789abcdef") != (size_t)(2 * CBT_ID))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"%s\" is no UUID", key);
	for (unsigned i = 0; i < CBT_ID; i++)
		ret[i] = (uint8_t)(digit(text[2 * i]) << 4 | digit(text[2 * i + 1]));
	return 0;
}

static struct json_object *print_map(const struct daemon *daemon, const struct cbt_map *map)
{
	struct json_object *entry = json_object_new_object();
	char id[2 * CBT_ID + 1];

	print_id(map->id, id);
	message_add_text(entry, "uuid", id);
	message_add_number(entry, "granularity", map->tracker.unit);
	message_add_number(entry, "dirty", min_u64(tracker_dirty(&map->tracker), device_size(daemon->device)));
	return entry;
}

void daemon_cbt(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct json_object *result = json_object_new_object(), *list = json_object_new_array();

	(void)arguments;
	for (unsigned i = 0; i < device_cbt_count(daemon->device); i++)
		json_object_array_add(list, print_map(daemon, device_cbt_get(daemon->device, i)));
	json_object_object_add(result, "bitmaps", list);
	message_add_number(result, "size", device_size(daemon->device));
	server_answer(peer, result);
}

/* Whether there is such a bitmap; refuses the peer, if not. */
static const struct cbt_map *find_map(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	const struct cbt_map *map = NULL;
	struct ploop_error err;
	uint8_t id[CBT_ID];
	int r = cbt_take_id(arguments, "uuid", id, &err);

	if (r == 0)
		map = device_cbt_find(daemon->device, id);
	if (r == 0 && !map)
		r = error_set(&err, -ENOENT, PLOOP_EXIT_NO_CBT, "%s has no dirty bitmap of that UUID", daemon->name);
	if (r < 0)
		server_refuse(peer, &err);
	return map;
}

void daemon_cbt_runs(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	const struct cbt_map *map = find_map(daemon, peer, arguments);
	uint64_t size = device_size(daemon->device), from;
	struct json_object *result, *runs;
	struct ploop_error err;
	unsigned n = 0;

	if (!map)
		return;
	if (message_number(arguments, "from", size, &from, &err) < 0) {
		server_refuse(peer, &err);
		return;
	}
	result = json_object_new_object();
	runs = json_object_new_array();
	for (; n < RUNS_MOST && from < size; n++) {
		const struct bitmap *dirty = &map->tracker.dirty;
		uint64_t first = bitmap_next_set(dirty, from / map->tracker.unit);
		uint64_t end = min_u64(size, bitmap_next_clear(dirty, first) * map->tracker.unit);

		from = first == dirty->bits ? size : end;
		if (first == dirty->bits)
			break;
		json_object_array_add(runs, json_object_new_int64((int64_t)(first * map->tracker.unit)));
		json_object_array_add(runs, json_object_new_int64((int64_t)(end - first * map->tracker.unit)));
	}
	json_object_object_add(result, "runs", runs);
	if (from < size)
		message_add_number(result, "next", from);
	server_answer(peer, result);
}

static void planted(struct cbt_plant *plant, int result)
{
	struct planting *planting = container_of(plant, struct planting, plant);
	struct ploop_error err;

	if (planting->peer && result < 0) {
		error_sys(&err, result, PLOOP_EXIT_WRITE, "%s: the dirty bitmaps cannot be written",
			  planting->daemon->name);
		server_refuse(planting->peer, &err);
	} else if (planting->peer) {
		server_answer(planting->peer, NULL);
	}
	free(planting);
}

static void plant(struct daemon *daemon, struct server_peer *peer)
{
	struct planting *planting = calloc(1, sizeof(*planting));
	struct ploop_error err;

	if (!planting) {
		error_sys(&err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", daemon->name);
		if (peer)
			server_refuse(peer, &err);
		return;
	}
	*planting = (struct planting){ .plant.done = planted, .daemon = daemon, .peer = peer };
	device_cbt_plant(daemon->device, &planting->plant);
}

void daemon_cbt_start(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	uint8_t id[CBT_ID];
	int r = cbt_take_id(arguments, "uuid", id, &err);

	if (r == 0)
		r = device_cbt_start(daemon->device, id, &err);
	if (r < 0)
		server_refuse(peer, &err);
	else
		plant(daemon, peer);
}

void daemon_cbt_drop(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	const struct cbt_map *map = find_map(daemon, peer, arguments);
	uint8_t id[CBT_ID];

	if (!map)
		return;
	memcpy(id, map->id, sizeof(id));
	device_cbt_drop(daemon->device, id);
	plant(daemon, peer);
}

/* ---- Backup ---- */

void daemon_track_period(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct track_job *job = &daemon->track;
	struct ploop_error err;
	int r = 0;

	if (!track_check_owner(daemon, peer))
		return;
	/* Else what is written now might be in neither backup. */
	if (!job->timer.armed || job->late || job->period)
		r = error_set(&err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s does not stand still", daemon->name);
	if (r == 0)
		r = cbt_take_id(arguments, "uuid", job->id, &err);
	if (r == 0)
		r = device_cbt_start(daemon->device, job->id, &err);
	job->period = r == 0;
	if (r < 0)
		server_refuse(peer, &err);
	else
		server_answer(peer, NULL);
}

void daemon_track_plant(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	(void)arguments;
	if (track_check_owner(daemon, peer))
		plant(daemon, peer);
}

void daemon_track_commit(struct daemon *daemon, struct server_peer *peer, struct json_object *arguments)
{
	struct ploop_error err;
	uint8_t since[CBT_ID];
	const char *text = NULL;
	int r;

	if (!track_check_owner(daemon, peer))
		return;
	r = message_text(arguments, "since", &text, &err);
	if (r == 0 && text)
		r = cbt_take_id(arguments, "since", since, &err);
	if (r < 0) {
		server_refuse(peer, &err);
		return;
	}
	daemon->track.period = false;
	if (text)
		device_cbt_drop(daemon->device, since);
	plant(daemon, peer);
}

void cbt_forget_period(struct daemon *daemon)
{
	struct track_job *job = &daemon->track;

	if (!job->period)
		return;
	job->period = false;
	device_cbt_drop(daemon->device, job->id);
	plant(daemon, NULL);
}
