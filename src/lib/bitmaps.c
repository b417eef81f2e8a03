/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmaps.c - the dirty bitmaps of a disk: listed, read, begun and dropped. A running device is asked; else the images are. */
#include "lib/bitmaps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "control/client.h"
#include "control/message.h"
#include "device/device.h"
#include "image/descriptor.h"
#include "image/journal.h"
#include "image/lock.h"
#include "image/stack.h"
#include "io/loop.h"
#include "lib/bitmap-id.h"
#include "lib/disk.h"

/* ---- A disk that nobody uses ---- */

struct settling {
	struct device_settle settle;
	struct loop *loop;
	bool done;
	int result;
};

static void settled(struct device_settle *settle, int result)
{
	struct settling *settling = container_of(settle, struct settling, settle);

	settling->done = true;
	settling->result = result;
	loop_stop(settling->loop);
}

static int settle(struct ploop_disk *disk, struct ploop_error *err)
{
	struct settling settling = { .settle.done = settled, .loop = disk->loop };
	int r = 0;

	device_settle(disk->device, &settling.settle);
	while (!settling.done && r == 0)
		r = loop_run(disk->loop);
	r = r < 0 ? r : settling.result;
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DEVIOC, "what was written cannot be completed from the images below") : 0;
}

int bitmaps_open_disk(const char *path, bool write, struct ploop_disk **ret, struct ploop_error *err)
{
	const struct ploop_files files = { .paths = &path, .npaths = 1, .outside = true };
	const struct disk_config config = { .files = &files, .write = write, .depth = 16 };
	_free_ char *descriptor = NULL;
	_close_ int lock = -EBADF;
	int r = descriptor_find_file(path, &descriptor, err);

	if (r < 0)
		return r;
	r = r && write ? journal_lock_disk(descriptor, LOCK_WAIT_MS, &lock, err) : 0;
	if (r == 0)
		r = disk_open(&config, ret, err);
	if (r < 0 || !write)
		return r;
	r = settle(*ret, err);
	if (r < 0)
		bitmaps_close_disk(*ret, NULL);
	return r;
}

int bitmaps_close_disk(struct ploop_disk *disk, struct ploop_error *err)
{
	if (!disk->stack->read_only)
		device_unsettle(disk->device);
	return disk_close(disk, err);
}

int bitmaps_missing(const char *disk, const uint8_t id[CBT_ID], struct ploop_error *err)
{
	char text[PLOOP_UUID];

	bitmap_id_print(id, text);
	return error_set(err, -ENOENT, PLOOP_EXIT_NO_CBT,
			 "%s has no dirty bitmap %s: make a full backup; `ploop cbt show` tells which there are", disk, text);
}

/* ---- Which of the two ---- */

struct target {
	const char *name;
	struct control_client *client; /* of a running device; else: */
	struct ploop_disk *disk;
};

int bitmaps_find_device(const char *name, struct ploop_device *ret, struct ploop_error *err)
{
	struct ploop_which which = { .image = name };
	struct stat st;
	int r;

	if (!strncmp(name, "/dev/", 5) || (stat(name, &st) == 0 && S_ISBLK(st.st_mode)))
		which = (struct ploop_which){ .device = name };
	r = ploop_find(&which, ret, err);
	if (r < 0)
		return r == -ENODEV && which.image ? 0 : r;
	if (ret->alive)
		return 1;
	r = error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`", ret->device,
		      ret->device);
	ploop_device_clear(ret);
	return r;
}

static int open_target(const char *name, bool write, struct target *ret, struct ploop_error *err)
{
	struct ploop_device device;
	int r = bitmaps_find_device(name, &device, err);

	*ret = (struct target){ .name = name };
	if (r <= 0)
		return r < 0 ? r : bitmaps_open_disk(name, write, &ret->disk, err);
	r = control_connect(device.name, CONTROL_TIMEOUT_MS, &ret->client, err);
	ploop_device_clear(&device);
	return r;
}

static int close_target(struct target *target, struct ploop_error *err)
{
	control_close(target->client);
	return target->disk ? bitmaps_close_disk(target->disk, err) : 0;
}

static int change_done(struct target *target, int result, struct ploop_error *err)
{
	struct ploop_error closing;
	int closed = close_target(target, &closing);

	if (result == 0 && closed < 0)
		return error_set(err, closed, closing.status, "%s", closing.text);
	return result;
}

static int ask(const struct target *target, const char *verb, const uint8_t id[CBT_ID], uint64_t from,
	       struct json_object **ret, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", target->name);
	if (id)
		bitmap_id_add(arguments, "uuid", id);
	message_add_number(arguments, "from", from);
	return control_call(target->client, verb, arguments, ret, err);
}

/* ---- List ---- */

static int list_running(const struct target *target, struct ploop_bitmap *ret, size_t *ret_n, uint64_t *ret_size,
			struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct json_object *list;
	uint8_t id[CBT_ID];
	int r = ask(target, "cbt", NULL, 0, &answer, err);

	if (r == 0)
		r = message_number(answer, "size", INT64_MAX, ret_size, err);
	if (r == 0 && (!json_object_object_get_ex(answer, "bitmaps", &list) ||
		       !json_object_is_type(list, json_type_array) || json_object_array_length(list) > CBT_MOST))
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"bitmaps\"");
	*ret_n = r == 0 ? json_object_array_length(list) : 0;
	for (size_t i = 0; r == 0 && i < *ret_n; i++) {
		struct json_object *entry = json_object_array_get_idx(list, i);

		r = bitmap_id_take(entry, "uuid", id, err);
		if (r == 0)
			r = message_number(entry, "granularity", INT64_MAX, &ret[i].granularity, err);
		if (r == 0)
			r = message_number(entry, "dirty", INT64_MAX, &ret[i].dirty, err);
		if (r == 0)
			bitmap_id_print(id, ret[i].uuid);
	}
	return r;
}

static void list_at_rest(const struct ploop_disk *disk, struct ploop_bitmap *ret, size_t *ret_n, uint64_t *ret_size)
{
	*ret_n = device_cbt_count(disk->device);
	*ret_size = device_size(disk->device);
	for (size_t i = 0; i < *ret_n; i++) {
		const struct cbt_map *map = device_cbt_get(disk->device, (unsigned)i);

		bitmap_id_print(map->id, ret[i].uuid);
		ret[i].granularity = map->tracker.unit;
		ret[i].dirty = min_u64(tracker_dirty(&map->tracker), *ret_size);
	}
}

int ploop_bitmaps(const char *name, struct ploop_bitmap **ret, size_t *ret_n, uint64_t *ret_size, struct ploop_error *err)
{
	struct ploop_bitmap *list = calloc(CBT_MOST, sizeof(*list));
	struct target target;
	uint64_t size = 0;
	size_t n = 0;
	int r = list ? open_target(name, false, &target, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);

	if (r < 0) {
		free(list);
		return r;
	}
	if (target.client)
		r = list_running(&target, list, &n, &size, err);
	else
		list_at_rest(target.disk, list, &n, &size);
	close_target(&target, NULL);
	if (r < 0) {
		free(list);
		return r;
	}
	*ret = list;
	*ret_n = n;
	*ret_size = size;
	return 0;
}

/* ---- What has changed ---- */

struct stretches {
	struct ploop_stretch *list;
	size_t n, room;
};

static int add_stretch(struct stretches *stretches, uint64_t offset, uint64_t length)
{
	if (stretches->n == stretches->room) {
		size_t room = stretches->room ? 2 * stretches->room : 256;
		struct ploop_stretch *list = reallocarray(stretches->list, room, sizeof(*list));

		if (!list)
			return -ENOMEM;
		stretches->list = list;
		stretches->room = room;
	}
	stretches->list[stretches->n++] = (struct ploop_stretch){ offset, length };
	return 0;
}

static int take_runs(struct json_object *answer, struct stretches *stretches, uint64_t *from, struct ploop_error *err)
{
	struct json_object *runs, *next;
	uint64_t before = *from;
	int r = 0;

	if (!json_object_object_get_ex(answer, "runs", &runs) || !json_object_is_type(runs, json_type_array))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"runs\" is missing");
	for (size_t i = 0; r == 0 && i + 1 < json_object_array_length(runs); i += 2)
		r = add_stretch(stretches, (uint64_t)json_object_get_int64(json_object_array_get_idx(runs, i)),
				(uint64_t)json_object_get_int64(json_object_array_get_idx(runs, i + 1)));
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "a dirty bitmap");
	*from = UINT64_MAX;
	if (json_object_object_get_ex(answer, "next", &next))
		r = message_number(answer, "next", INT64_MAX, from, err);
	if (r == 0 && *from <= before)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"next\" does not go on");
	return r;
}

static int read_running(const struct target *target, const uint8_t id[CBT_ID], struct stretches *stretches,
			struct ploop_error *err)
{
	uint64_t from = 0;
	int r = 0;

	while (r == 0 && from != UINT64_MAX) {
		_message_ struct json_object *answer = NULL;

		r = ask(target, "cbt-runs", id, from, &answer, err);
		if (r == -ENOENT)
			return bitmaps_missing(target->name, id, err);
		if (r == 0)
			r = take_runs(answer, stretches, &from, err);
	}
	return r;
}

static int read_at_rest(const struct target *target, const uint8_t id[CBT_ID], struct stretches *stretches,
			struct ploop_error *err)
{
	const struct cbt_map *map = device_cbt_find(target->disk->device, id);
	uint64_t size = device_size(target->disk->device);
	const struct bitmap *dirty;
	int r = 0;

	if (!map)
		return bitmaps_missing(target->name, id, err);
	dirty = &map->tracker.dirty;
	for (uint64_t bit = bitmap_next_set(dirty, 0), end; r == 0 && bit < dirty->bits; bit = bitmap_next_set(dirty, end)) {
		end = bitmap_next_clear(dirty, bit);
		r = add_stretch(stretches, bit * map->tracker.unit,
				min_u64(end * map->tracker.unit, size) - bit * map->tracker.unit);
	}
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MALLOC, "a dirty bitmap") : 0;
}

int ploop_bitmap_read(const char *name, const char *uuid, struct ploop_stretch **ret, size_t *ret_n,
		      struct ploop_error *err)
{
	struct stretches stretches = { 0 };
	struct target target;
	uint8_t id[CBT_ID];
	int r = bitmap_id_parse(uuid, id, err);

	if (r == 0)
		r = open_target(name, false, &target, err);
	if (r < 0)
		return r;
	r = target.client ? read_running(&target, id, &stretches, err) : read_at_rest(&target, id, &stretches, err);
	close_target(&target, NULL);
	if (r < 0) {
		free(stretches.list);
		return r;
	}
	*ret = stretches.list;
	*ret_n = stretches.n;
	return 0;
}

/* ---- Begin and drop ---- */

int ploop_bitmap_start(const char *name, const char *uuid, char ret[PLOOP_UUID], struct ploop_error *err)
{
	struct target target;
	uint8_t id[CBT_ID];
	int r = 0;

	if (uuid)
		r = bitmap_id_parse(uuid, id, err);
	else
		bitmap_id_new(id);
	if (r == 0)
		r = open_target(name, true, &target, err);
	if (r < 0)
		return r;
	if (target.client)
		r = ask(&target, "cbt-start", id, 0, NULL, err);
	else
		r = device_cbt_start(target.disk->device, id, err);
	r = change_done(&target, r, err);
	if (r == 0)
		bitmap_id_print(id, ret);
	return r;
}

static int drop_one(const struct target *target, const char *uuid, struct ploop_error *err)
{
	uint8_t id[CBT_ID];
	int r = bitmap_id_parse(uuid, id, err);

	if (r == 0 && target->client)
		r = ask(target, "cbt-drop", id, 0, NULL, err);
	else if (r == 0)
		r = device_cbt_drop(target->disk->device, id) ? 0 : -ENOENT;
	return r == -ENOENT ? bitmaps_missing(target->name, id, err) : r;
}

static int drop_all(const struct target *target, struct ploop_error *err)
{
	struct ploop_bitmap list[CBT_MOST];
	uint64_t size;
	size_t n = 0;
	int r = 0;

	if (target->client)
		r = list_running(target, list, &n, &size, err);
	else
		list_at_rest(target->disk, list, &n, &size);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = drop_one(target, list[i].uuid, err);
	return r;
}

int ploop_bitmap_drop(const char *name, const char *uuid, struct ploop_error *err)
{
	struct target target;
	int r = open_target(name, true, &target, err);

	if (r < 0)
		return r;
	r = uuid ? drop_one(&target, uuid, err) : drop_all(&target, err);
	return change_done(&target, r, err);
}
