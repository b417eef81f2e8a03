/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* undo.c - see undo.h. */
#include "job/undo.h"

#include <errno.h>
#include <md5.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/le.h"
#include "io/io.h"

#define MAGIC "ploop undo file\n"
#define HEAD 32u
#define RECORD 48u
#define SECTOR 512u /* the longest block */
#define LENGTH_RECORD UINT64_MAX

struct undo {
	struct io_file *file;
	uint64_t end;
};

/* One record in memory, with its block behind it. */
struct record {
	uint64_t offset;
	uint32_t length;
	uint8_t head[RECORD];
	uint8_t before[];
};

static void md5(const void *a, size_t len_a, const void *b, size_t len_b, uint8_t ret[16])
{
	MD5_CTX ctx;

	MD5Init(&ctx);
	MD5Update(&ctx, a, len_a);
	MD5Update(&ctx, b, len_b);
	MD5Final(ret, &ctx);
}

int undo_new(struct io_file *file, uint64_t image_size, struct undo **ret)
{
	uint8_t head[HEAD] = MAGIC;
	struct undo *undo;
	int r;

	le64_put(head + 16, image_size);
	r = io_pwrite(file, head, HEAD, 0);
	if (r)
		return r;
	undo = malloc(sizeof(*undo));
	if (!undo)
		return -ENOMEM;
	*undo = (struct undo){ .file = file, .end = HEAD };
	*ret = undo;
	return 0;
}

void undo_free(struct undo *undo)
{
	free(undo);
}

static int save_block(struct undo *undo, uint64_t offset, const void *before, const void *after, uint32_t len)
{
	uint8_t head[RECORD] = { 0 };
	int r;

	le64_put(head, offset);
	le32_put(head + 8, len);
	if (offset != LENGTH_RECORD)
		md5(after, len, NULL, 0, head + 16);
	md5(head, 32, before, len, head + 32);
	r = io_pwrite(undo->file, head, RECORD, undo->end);
	if (!r)
		r = io_pwrite(undo->file, before, len, undo->end + RECORD);
	if (!r)
		undo->end += RECORD + len;
	return r;
}

int undo_save(struct undo *undo, uint64_t offset, const void *before, const void *after, uint32_t len)
{
	const uint8_t *b = before, *a = after;
	uint32_t n;
	int r = 0;

	for (uint32_t at = 0; !r && at < len; at += n) {
		n = (uint32_t)min_u64(SECTOR - (offset + at) % SECTOR, len - at);
		if (memcmp(b + at, a + at, n))
			r = save_block(undo, offset + at, b + at, a + at, n);
	}
	return r;
}

int undo_plan_length(struct undo *undo, uint64_t length)
{
	uint8_t planned[8];

	le64_put(planned, length);
	return save_block(undo, LENGTH_RECORD, planned, "", sizeof(planned));
}

int undo_sync(struct undo *undo)
{
	return io_sync(undo->file);
}

/* Reads the record at `at`. 1 when it is whole, 0 when it is not one. */
static int read_record(struct io_file *file, uint64_t at, struct record **ret)
{
	uint8_t head[RECORD], sum[16];
	_free_
	struct record *record = NULL;
	uint32_t length;
	int r;

	r = io_pread(file, head, RECORD, at);
	if (r)
		return r;
	length = le32_get(head + 8);
	if (!length || length > SECTOR)
		return 0;
	record = malloc(sizeof(*record) + length);
	if (!record)
		return -ENOMEM;
	record->offset = le64_get(head);
	record->length = length;
	memcpy(record->head, head, RECORD);
	r = io_pread(file, record->before, length, at + RECORD);
	if (r)
		return r;
	md5(head, 32, record->before, length, sum);
	if (memcmp(sum, head + 32, 16))
		return 0;
	*ret = take_ptr(record);
	return 1;
}

/* Whether the block in the image is as the repair left it, or as it was. */
static int same_block(struct io_file *image, const struct record *record)
{
	_free_
	uint8_t *now = malloc(record->length);
	uint8_t sum[16];
	int r;

	if (!now)
		return -ENOMEM;
	r = io_pread(image, now, record->length, record->offset);
	if (r)
		return r;
	md5(now, record->length, NULL, 0, sum);
	return !memcmp(sum, record->head + 16, 16) || !memcmp(now, record->before, record->length);
}

/* Where the records are in the undo file, oldest first, and where in the image their blocks. */
struct place {
	uint64_t at, offset;
};

struct survey {
	struct place *places;
	size_t count, room;
	uint64_t before, longest; /* lengths of the image: as it was, and at most after the repair */
};

static int survey_add(struct survey *survey, struct place place)
{
	if (survey->count == survey->room) {
		size_t room = survey->room ? 2 * survey->room : 64;
		struct place *grown = realloc(survey->places, room * sizeof(*grown));

		if (!grown)
			return -ENOMEM;
		survey->places = grown;
		survey->room = room;
	}
	survey->places[survey->count++] = place;
	return 0;
}

static int survey_records(struct io_file *file, struct survey *survey)
{
	uint64_t at = HEAD;
	int r;

	for (;;) {
		_free_
		struct record *record = NULL;

		r = read_record(file, at, &record);
		if (r <= 0)
			return r;
		if (record->offset == LENGTH_RECORD)
			survey->longest = max_u64(survey->longest, le64_get(record->before));
		else
			r = survey_add(survey, (struct place){ at, record->offset });
		if (r < 0)
			return r;
		at += RECORD + record->length;
	}
}

static int compare_places(const void *a, const void *b)
{
	const struct place *p = a, *q = b;

	if (p->offset != q->offset)
		return p->offset < q->offset ? -1 : 1;
	return p->at < q->at ? -1 : p->at > q->at;
}

/* -ESTALE when a block, or the length, is as no step of the repair, or of going back, left it. */
static int survey_image(struct io_file *file, struct io_file *image, struct survey *survey, uint64_t size)
{
	bool known = true;
	int r;

	if (size > survey->longest)
		return -ESTALE;
	if (!survey->count)
		return 0;
	qsort(survey->places, survey->count, sizeof(*survey->places), compare_places);
	for (size_t i = 0; i < survey->count; i++) {
		_free_
		struct record *record = NULL;

		if (!i || survey->places[i].offset != survey->places[i - 1].offset) {
			if (!known)
				return -ESTALE;
			known = false;
		}
		if (known)
			continue;
		r = read_record(file, survey->places[i].at, &record);
		if (r > 0)
			r = same_block(image, record);
		if (r < 0)
			return r;
		known = r;
	}
	return known ? 0 : -ESTALE;
}

/* Of the changes to one block the first has what was there before all of them. */
static int put_back(struct io_file *file, struct io_file *image, const struct survey *survey)
{
	int r = 0;

	for (size_t i = 0; !r && i < survey->count; i++) {
		_free_
		struct record *record = NULL;

		if (i && survey->places[i].offset == survey->places[i - 1].offset)
			continue;
		r = read_record(file, survey->places[i].at, &record);
		if (r <= 0)
			return r ? r : -EIO;
		r = io_pwrite(image, record->before, record->length, record->offset);
	}
	return r ? r : io_sync(image);
}

/* What the repair appended goes before an entry that points behind the end of the file comes back. */
static int put_length_back(struct io_file *image, const struct survey *survey, uint64_t size)
{
	int r;

	if (size == survey->before || size > survey->longest)
		return 0;
	r = io_truncate(image, survey->before);
	return r ? r : io_sync(image);
}

static int go_back(struct io_file *file, struct io_file *image, struct survey *survey, bool force)
{
	uint64_t size;
	int r;

	r = survey_records(file, survey);
	if (!r)
		r = io_size(image, &size);
	if (!r)
		r = survey_image(file, image, survey, size);
	if (r == -ESTALE && force)
		r = 0;
	if (r)
		return r;
	if (size < survey->before)
		r = io_truncate(image, survey->before);
	if (!r)
		r = put_back(file, image, survey);
	return r ? r : put_length_back(image, survey, size);
}

int undo_apply(struct io_file *file, struct io_file *image, bool force, struct ploop_error *err)
{
	struct survey survey = { 0 };
	uint8_t head[HEAD];
	int r;

	r = io_pread(file, head, HEAD, 0);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_READ, "cannot read %s", file->path);
	if (memcmp(head, MAGIC, 16))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s: not an undo file of ploop check", file->path);
	survey.before = survey.longest = le64_get(head + 16);
	r = go_back(file, image, &survey, force);
	free(survey.places);
	if (r == -ESTALE)
		return error_set(err, r, PLOOP_EXIT_BUSY,
				 "%s: changed since %s was made, so that going back would do harm; nothing was written",
				 image->path, file->path);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot go back with %s", image->path, file->path);
	return 0;
}
