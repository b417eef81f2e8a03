/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cbt-dump.c - see cbt-dump.h. */
#include "cli/cbt-dump.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "cli/json.h"

struct dump {
	char uuid[PLOOP_UUID];
	uint64_t size, granularity;
	struct ploop_stretch *dirty;
	size_t n;
};

static void dump_clear(struct dump *dump)
{
	free(dump->dirty);
}
#define _dump_clear_ __attribute__((cleanup(dump_clear)))

/* ---- Write ---- */

static struct json_object *print(const struct dump *dump)
{
	struct json_object *object = json_object_new_object(), *list;

	json_add_text(object, "uuid", dump->uuid);
	json_add_number(object, "size", dump->size);
	json_add_number(object, "granularity", dump->granularity);
	list = json_add_list(object, "dirty");
	for (size_t i = 0; i < dump->n; i++) {
		struct json_object *one = json_list_add(list);

		json_add_number(one, "offset", dump->dirty[i].offset);
		json_add_number(one, "length", dump->dirty[i].length);
	}
	return object;
}

/* `object` is used up. */
static int store(struct json_object *object, const char *file, struct ploop_error *err)
{
	const char *text = json_object_to_json_string_ext(object, JSON_C_TO_STRING_PLAIN);
	FILE *out = file ? fopen(file, "we") : stdout;
	int r = out && text ? 0 : -errno;

	if (r == 0 && fprintf(out, "%s\n", text) < 0)
		r = -EIO;
	if (out && (file ? fclose(out) : fflush(out)) != 0 && r == 0)
		r = -errno;
	json_object_put(object);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write %s", file ? file : "standard output") : 0;
}

/* ---- Read ---- */

static uint64_t number(struct json_object *object, const char *key)
{
	struct json_object *value;

	return json_object_object_get_ex(object, key, &value) ? (uint64_t)json_object_get_int64(value) : 0;
}

/* Stretches are in order and inside the disk. */
static int take(struct json_object *object, struct dump *ret)
{
	struct json_object *list, *uuid;
	uint64_t end = 0;

	ret->size = number(object, "size");
	ret->granularity = number(object, "granularity");
	if (!json_object_object_get_ex(object, "dirty", &list) || !json_object_is_type(list, json_type_array) ||
	    !json_object_object_get_ex(object, "uuid", &uuid) || ret->size > INT64_MAX)
		return -EINVAL;
	snprintf(ret->uuid, sizeof(ret->uuid), "%s", json_object_get_string(uuid));
	ret->dirty = calloc(json_object_array_length(list) + 1, sizeof(*ret->dirty));
	if (!ret->dirty)
		return -ENOMEM;
	for (; ret->n < json_object_array_length(list); ret->n++) {
		struct json_object *one = json_object_array_get_idx(list, ret->n);
		struct ploop_stretch *stretch = &ret->dirty[ret->n];

		*stretch = (struct ploop_stretch){ number(one, "offset"), number(one, "length") };
		if (stretch->offset < end || stretch->offset > ret->size || !stretch->length ||
		    stretch->length > ret->size - stretch->offset)
			return -EINVAL;
		end = stretch->offset + stretch->length;
	}
	return 0;
}

/* 0: it is a dump; 1: it is something else. */
static int load(const char *file, struct dump *ret, struct ploop_error *err)
{
	FILE *in = fopen(file, "re");
	int first = in ? getc(in) : EOF, r;
	struct json_object *object;

	if (in)
		fclose(in);
	if (first != '{')
		return 1;
	object = json_object_from_file(file);
	r = object ? take(object, ret) : -EINVAL;
	json_object_put(object);
	if (r == -EINVAL)
		return error_set(err, r, PLOOP_EXIT_PARAM, "%s: is no dump of a dirty bitmap", file);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", file) : 0;
}

/* Which bitmap of the disk. */
static int choose(const char *disk, const char *uuid, struct dump *ret, struct ploop_error *err)
{
	_free_ struct ploop_bitmap *bitmaps = NULL;
	size_t n, i = 0;
	int r = ploop_bitmaps(disk, &bitmaps, &n, &ret->size, err);

	if (r < 0)
		return r;
	if (!uuid && n != 1)
		return error_set(err, -EINVAL, n ? PLOOP_EXIT_PARAM : PLOOP_EXIT_NO_CBT,
				 n ? "%s has several dirty bitmaps: say which (-u)" : "%s has no dirty bitmap", disk);
	while (uuid && i < n && strncasecmp(bitmaps[i].uuid + (*uuid != '{'), uuid, 36))
		i++;
	if (i == n)
		return error_set(err, -ENOENT, PLOOP_EXIT_NO_CBT, "%s has no dirty bitmap %s", disk, uuid);
	memcpy(ret->uuid, bitmaps[i].uuid, sizeof(ret->uuid));
	ret->granularity = bitmaps[i].granularity;
	return ploop_bitmap_read(disk, ret->uuid, &ret->dirty, &ret->n, err);
}

int cbt_dump(const char *disk, const char *uuid, const char *file, struct ploop_error *err)
{
	_dump_clear_ struct dump dump = { 0 };
	int r = load(disk, &dump, err);

	if (r == 1)
		r = choose(disk, uuid, &dump, err);
	return r < 0 ? r : store(print(&dump), file, err);
}

/* ---- Compare ---- */

static int by_offset(const void *a, const void *b)
{
	const uint64_t *x = a, *y = b;

	return *x < *y ? -1 : *x > *y;
}

static bool has(const struct dump *dump, uint64_t offset, size_t *at)
{
	while (*at < dump->n && dump->dirty[*at].offset + dump->dirty[*at].length <= offset)
		(*at)++;
	return *at < dump->n && dump->dirty[*at].offset <= offset;
}

/* All places where one of the two begins or ends, in order. */
static uint64_t *borders(const struct dump *dumps, size_t *ret_n)
{
	uint64_t *list = calloc(2 * (dumps[0].n + dumps[1].n) + 1, sizeof(*list));
	size_t n = 0;

	for (unsigned d = 0; list && d < 2; d++) {
		for (size_t i = 0; i < dumps[d].n; i++) {
			list[n++] = dumps[d].dirty[i].offset;
			list[n++] = dumps[d].dirty[i].offset + dumps[d].dirty[i].length;
		}
	}
	if (list)
		qsort(list, n, sizeof(*list), by_offset);
	*ret_n = n;
	return list;
}

static struct json_object *compare(const struct dump *dumps, const uint64_t *border, size_t n)
{
	struct json_object *object = json_object_new_object(), *list = json_add_list(object, "differences");
	size_t at[2] = { 0 };

	for (size_t i = 0; i + 1 < n; i++) {
		bool one = has(&dumps[0], border[i], &at[0]), two = has(&dumps[1], border[i], &at[1]);
		struct json_object *entry;

		if (one == two || border[i] == border[i + 1])
			continue;
		entry = json_list_add(list);
		json_add_number(entry, "offset", border[i]);
		json_add_number(entry, "length", border[i + 1] - border[i]);
		json_add_number(entry, "in", one ? 1 : 2);
	}
	return object;
}

static int store_text(struct json_object *object, const char *file, struct ploop_error *err)
{
	struct json_object *list;
	FILE *out = file ? fopen(file, "we") : stdout;
	int r = out ? 0 : -errno;

	json_object_object_get_ex(object, "differences", &list);
	for (size_t i = 0; r == 0 && i < json_object_array_length(list); i++) {
		struct json_object *one = json_object_array_get_idx(list, i);

		fprintf(out, "%c %" PRIu64 " %" PRIu64 "\n", number(one, "in") == 1 ? '-' : '+', number(one, "offset"),
			number(one, "length"));
	}
	if (out && (file ? fclose(out) : fflush(out)) != 0)
		r = -errno;
	json_object_put(object);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write %s", file ? file : "standard output") : 0;
}

static void dumps_clear(struct dump (*dumps)[2])
{
	dump_clear(&(*dumps)[0]);
	dump_clear(&(*dumps)[1]);
}

int cbt_diff(const char *first, const char *second, const char *file, bool json, struct ploop_error *err)
{
	__attribute__((cleanup(dumps_clear))) struct dump dumps[2] = { 0 };
	const char *const names[] = { first, second };
	_free_ uint64_t *list = NULL;
	struct json_object *object;
	size_t n;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < 2; i++) {
		r = load(names[i], &dumps[i], err);
		if (r == 1)
			r = error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: is no dump of a dirty bitmap", names[i]);
	}
	if (r < 0)
		return r;
	list = borders(dumps, &n);
	if (!list)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "diff");
	object = compare(dumps, list, n);
	return json ? store(object, file, err) : store_text(object, file, err);
}
