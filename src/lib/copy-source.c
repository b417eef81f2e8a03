/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-source.c - see copy-source.h; the other half is daemon/track.h. */
#include "lib/copy-source.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "control/client.h"
#include "control/message.h"
#include "device/device.h"
#include "lib/bitmap-id.h"
#include "lib/bitmaps.h"

#define RUN_NUMBERS 4

static int take_shape(struct copy_source *source, struct json_object *answer, struct ploop_error *err)
{
	uint64_t cluster, version;
	int r = message_number(answer, "size", INT64_MAX, &source->size, err);

	if (r == 0)
		r = message_number(answer, "cluster", UINT32_MAX, &cluster, err);
	if (r == 0)
		r = message_number(answer, "version", 2, &version, err);
	if (r == 0)
		r = message_bool(answer, "raw", &source->raw, err);
	if (r == 0)
		r = message_number(answer, "dirty", INT64_MAX, &source->dirty, err);
	if (r < 0)
		return r;
	source->cluster = (uint32_t)cluster;
	source->version = (uint32_t)version;
	if (!source->cluster || !source->size)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: a disk of no size");
	return 0;
}

static int start(struct copy_source *source, const struct copy_since *since, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct json_object *arguments = json_object_new_object();
	int r;

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", source->device.device);
	message_add_bool(arguments, "flat", source->flat);
	if (since && since->only)
		bitmap_id_add(arguments, "since", since->id);
	r = control_call(source->client, "track", arguments, &answer, err);
	return r < 0 ? r : take_shape(source, answer, err);
}

static int open_source(struct copy_source *source, const char *device, bool flat, const struct copy_since *since,
		       struct ploop_error *err)
{
	const struct ploop_which which = { .device = device };
	int r;

	*source = (struct copy_source){ .flat = flat };
	r = ploop_find(&which, &source->device, err);
	if (r < 0)
		return r;
	if (!source->device.alive || !source->device.nimages)
		r = error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`", device,
			      device);
	if (r == 0)
		r = control_connect(source->device.name, CONTROL_TIMEOUT_MS, &source->client, err);
	if (r == 0)
		r = start(source, since, err);
	if (r == -ENOENT && since && since->only)
		r = bitmaps_missing(device, since->id, err);
	if (r == 0)
		r = copy_reader_new(source->device.images, source->device.nimages, &source->reader, err);
	if (r < 0)
		copy_source_close(source);
	else
		copy_reader_share(source->reader, source->device.nimages - !source->device.read_only);
	return r;
}

int copy_source_open(struct copy_source *source, const char *device, bool flat, struct ploop_error *err)
{
	return open_source(source, device, flat, NULL, err);
}

int copy_source_open_since(struct copy_source *source, const char *device, const struct copy_since *since,
			   struct ploop_error *err)
{
	return open_source(source, device, true, since, err);
}

void copy_source_close(struct copy_source *source)
{
	/* The daemon forgets all about the copy when the connection ends. */
	control_close(source->client);
	source->client = NULL;
	copy_reader_free(source->reader);
	source->reader = NULL;
	ploop_device_clear(&source->device);
	memset(&source->device, 0, sizeof(source->device));
}

static int64_t number_at(struct json_object *runs, size_t i)
{
	return json_object_get_int64(json_object_array_get_idx(runs, i));
}

static int take_run(const struct copy_source *source, struct json_object *runs, size_t i, struct copy_run *ret,
		    struct ploop_error *err)
{
	int64_t offset = number_at(runs, i), length = number_at(runs, i + 1), level = number_at(runs, i + 2);
	int64_t file_offset = number_at(runs, i + 3);

	if (offset < 0 || length <= 0 || file_offset < 0 || level < COPY_NOWHERE ||
	    level >= (int64_t)source->device.nimages || (uint64_t)offset >= source->size ||
	    (uint64_t)length > source->size - (uint64_t)offset || file_offset > INT64_MAX - length ||
	    (offset | length | file_offset) % 512)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: %" PRId64 "+%" PRId64 " in level %" PRId64,
				 offset, length, level);
	*ret = (struct copy_run){ (uint64_t)offset, (uint64_t)length, (int)level, (uint64_t)file_offset };
	return 0;
}

static int take_runs(const struct copy_source *source, struct json_object *answer, struct copy_run *ret, size_t *ret_n,
		     struct ploop_error *err)
{
	struct json_object *runs;
	size_t n;
	int r = 0;

	if (!json_object_object_get_ex(answer, "runs", &runs) || !json_object_is_type(runs, json_type_array))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"runs\" is missing");
	n = json_object_array_length(runs);
	if (n % RUN_NUMBERS || n / RUN_NUMBERS > COPY_RUNS)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: %zu numbers in \"runs\"", n);
	for (size_t i = 0; r == 0 && i < n / RUN_NUMBERS; i++)
		r = take_run(source, runs, i * RUN_NUMBERS, &ret[i], err);
	*ret_n = n / RUN_NUMBERS;
	return r;
}

int copy_source_take(struct copy_source *source, uint64_t *from, struct copy_run *runs, size_t *ret_n,
		     struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	struct json_object *arguments = json_object_new_object(), *next;
	uint64_t at = *from;
	int r;

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", source->device.device);
	message_add_number(arguments, "from", at);
	r = control_call(source->client, "track-take", arguments, &answer, err);
	if (r == 0)
		r = message_number(answer, "dirty", INT64_MAX, &source->dirty, err);
	if (r == 0)
		r = take_runs(source, answer, runs, ret_n, err);
	if (r < 0)
		return r;
	if (!json_object_object_get_ex(answer, "next", &next)) {
		*from = UINT64_MAX;
		return 0;
	}
	r = message_number(answer, "next", source->size, from, err);
	if (r == 0 && *from <= at)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"next\" does not go on");
	return r;
}

int copy_source_ask(struct copy_source *source, struct ploop_error *err)
{
	uint64_t from = source->size; /* nothing is taken there */
	struct copy_run none;
	size_t n;

	return copy_source_take(source, &from, &none, &n, err);
}

int copy_source_mark(struct copy_source *source, const uint64_t *offsets, size_t n, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object(), *list = json_object_new_array();

	if (!arguments || !list) {
		json_object_put(arguments);
		json_object_put(list);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", source->device.device);
	}
	for (size_t i = 0; i < n; i++)
		json_object_array_add(list, json_object_new_int64((int64_t)offsets[i]));
	json_object_object_add(arguments, "clusters", list);
	return control_call(source->client, "track-mark", arguments, NULL, err);
}

int copy_source_hold(struct copy_source *source, unsigned seconds, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", source->device.device);
	message_add_number(arguments, "seconds", seconds);
	return control_call(source->client, "track-hold", arguments, NULL, err);
}

int copy_source_release(struct copy_source *source, struct ploop_error *err)
{
	_message_ struct json_object *answer = NULL;
	bool late = false;
	int r = control_call(source->client, "track-release", NULL, &answer, err);

	if (r == 0)
		r = message_bool(answer, "late", &late, err);
	if (r == 0 && late)
		r = error_set(err, -ETIMEDOUT, PLOOP_EXIT_LOOP,
			      "%s: the last pass took too long, and the device went on: the copy is not complete",
			      source->device.device);
	return r;
}
