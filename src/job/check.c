/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.c - examining and repairing one image file.
 *
 * One pass over the index, in file order, that reports and repairs as it goes, and another if there are duplicates:
 *
 *	extension -> header -> length -> index -> header written back -> space given back
 *
 * What is written keeps to these rules, so that a crash at any point leaves an image that is no worse than before, and that the
 * next check goes on with:
 *
 *  1. No block of metadata is overwritten before the undo file, if there is one, durably holds what was there.
 *  2. A copy of a cluster is durable before an entry points to it. The first entry that points to a shared cluster keeps it,
 *     every further one gets a copy of its own: no data is ever dropped for a duplicate.
 *  3. The file gets no further cluster while an entry points behind its end: that entry would show the new cluster's data.
 *     So entries that lead nowhere are durably cleared before the first copy, and if they are not to be, there is none.
 *  4. The file is never made shorter than the last cluster that an entry or the extension points to.
 *  5. All entries are durable before the header is written, and the header before any cluster is punched or cut off.
 *  6. Space is given back only by a run that neither found damage that is left nor repaired any: what a bad entry or an old
 *     extension pointed to is then still there for undo, and for a person.
 *  7. The in-use mark goes last, and only from an image without damage.
 *  8. Before an entry is cleared whose data is lost, the dirty bitmaps durably say that everything changed.
 *  9. Nothing at all is written to an image whose extension forbids it or whose layout is for reading only.
 */
#include "job/check.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "job/check-private.h"
#include "job/undo.h"

#define NEVER (-1)

const struct check_kind check_kinds[PLOOP_CHECK_KINDS] = {
	[PLOOP_CHECK_HEADER] = { "header", CHECK_ERROR, NEVER },
	[PLOOP_CHECK_CONVERTING] = { "converting", CHECK_ERROR, NEVER },
	[PLOOP_CHECK_IN_USE] = { "in-use", CHECK_NOTE, NEVER },
	[PLOOP_CHECK_FLAGS] = { "flags", CHECK_HINT, PLOOP_CHECK_REPAIR_LEAKS },
	[PLOOP_CHECK_SIZE_FIELD] = { "size-field", CHECK_HINT, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_ENTRIES] = { "entries", CHECK_NOTE, NEVER },
	[PLOOP_CHECK_DATA_OFFSET] = { "data-offset", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_SHORT] = { "short", CHECK_ERROR, PLOOP_CHECK_REPAIR_ALL },
	[PLOOP_CHECK_LENGTH] = { "length", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_PADDING] = { "padding", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_UNALIGNED] = { "unaligned", CHECK_ERROR, PLOOP_CHECK_REPAIR_ALL },
	[PLOOP_CHECK_BEFORE_DATA] = { "before-data", CHECK_ERROR, PLOOP_CHECK_REPAIR_ALL },
	[PLOOP_CHECK_BEYOND_FILE] = { "beyond-file", CHECK_ERROR, PLOOP_CHECK_REPAIR_ALL },
	[PLOOP_CHECK_BEYOND_DISK] = { "beyond-disk", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_DUPLICATE] = { "duplicate", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_EXTENSION_STALE] = { "extension-stale", CHECK_HINT, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_EXTENSION_KEPT] = { "extension-kept", CHECK_NOTE, NEVER },
	[PLOOP_CHECK_EXTENSION] = { "extension", CHECK_ERROR, PLOOP_CHECK_REPAIR_ALL },
	[PLOOP_CHECK_BITMAP] = { "bitmap", CHECK_ERROR, PLOOP_CHECK_REPAIR_SAFE },
	[PLOOP_CHECK_LEAK] = { "leak", CHECK_NOTE, PLOOP_CHECK_REPAIR_LEAKS },
	[PLOOP_CHECK_TAIL] = { "tail", CHECK_NOTE, PLOOP_CHECK_REPAIR_LEAKS },
};

int check_level(const struct check *check)
{
	return check->options->read_only || check->frozen ? PLOOP_CHECK_REPAIR_NONE : (int)check->options->repair;
}

static bool gives_space_back(enum ploop_check_kind kind)
{
	return kind == PLOOP_CHECK_LEAK || kind == PLOOP_CHECK_TAIL;
}

/* Entries that are left and point behind the end of the file. */
static bool leads_nowhere(const struct ploop_check_image *image)
{
	return image->found[PLOOP_CHECK_BEYOND_FILE] > image->fixed[PLOOP_CHECK_BEYOND_FILE];
}

static enum ploop_check_verdict judge(const struct check *check, enum ploop_check_kind kind)
{
	int needed = check_kinds[kind].repair;

	if (check->options->read_only || check->options->repair == PLOOP_CHECK_REPAIR_NONE)
		return PLOOP_CHECK_FOUND;
	if (needed == NEVER || check_level(check) < needed)
		return PLOOP_CHECK_SKIPPED;
	if (gives_space_back(kind) && (check->repaired || check->image->errors))
		return PLOOP_CHECK_SKIPPED;
	if (kind == PLOOP_CHECK_DUPLICATE && leads_nowhere(check->image))
		return PLOOP_CHECK_SKIPPED;
	return PLOOP_CHECK_FIXED;
}

static void count_error(struct check *check, int repair)
{
	struct ploop_check_image *image = check->image;

	if (repair == NEVER)
		image->needed = NEVER;
	else if (!image->errors || (image->needed != NEVER && repair > image->needed))
		image->needed = repair;
	image->errors++;
}

void check_report(struct check *check, enum ploop_check_verdict verdict, const struct ploop_check_finding *finding)
{
	struct ploop_check_finding f = *finding;

	f.path = check->file->path;
	f.verdict = verdict;
	check->image->found[f.kind]++;
	if (verdict == PLOOP_CHECK_FIXED) {
		check->image->fixed[f.kind]++;
		check->image->changed = true;
	} else if (check_kinds[f.kind].weight == CHECK_ERROR) {
		count_error(check, check_kinds[f.kind].repair);
	}
	if (check->options->finding)
		check->options->finding(check->options->data, &f);
}

bool check_found(struct check *check, enum ploop_check_kind kind, struct check_where where, const char *format, ...)
{
	enum ploop_check_verdict verdict = judge(check, kind);
	char text[PLOOP_ERROR_TEXT];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, sizeof(text), format, ap);
	va_end(ap);
	check_report(check, verdict,
		     &(struct ploop_check_finding){
			     .kind = kind,
			     .cluster = where.cluster,
			     .file_cluster = where.file_cluster,
			     .bytes = where.bytes,
			     .text = text,
		     });
	if (verdict != PLOOP_CHECK_FIXED)
		return false;
	/* To make the file longer forgets nothing. */
	if (check_kinds[kind].weight == CHECK_ERROR && kind != PLOOP_CHECK_LENGTH)
		check->repaired = true;
	return true;
}

/* File clusters in a file of that size; a cut last one counts. */
static uint64_t count_places(const struct geometry *g, uint64_t size)
{
	/* An entry cannot name more, so that what lies behind is a tail that nothing uses. */
	const uint64_t most = UINT64_C(1) << 32;
	uint64_t bytes = g->base < 0 ? size + (uint64_t)-g->base : size - min_u64(size, (uint64_t)g->base);

	return min_u64(div_round_up(bytes, g->cluster), most);
}

/* Damage comes before the mark, and the mark before what is merely untidy. */
static enum ploop_exit judge_status(const struct check *check)
{
	const struct ploop_check_image *image = check->image;

	if (image->found[PLOOP_CHECK_CONVERTING])
		return PLOOP_EXIT_BUSY;
	if (image->errors)
		return PLOOP_EXIT_FORMAT;
	if (image->in_use)
		return check->options->drop_in_use ? PLOOP_EXIT_WRITE : PLOOP_EXIT_IN_USE;
	if (check->options->read_only)
		for (unsigned kind = 0; kind < PLOOP_CHECK_KINDS; kind++)
			if (check_kinds[kind].weight == CHECK_HINT && image->found[kind] > image->fixed[kind])
				return PLOOP_EXIT_WRITE;
	return PLOOP_EXIT_OK;
}

int check_plan_length(struct check *check, uint64_t size)
{
	int r = check->undo ? undo_plan_length(check->undo, size) : 0;

	return !r && check->undo ? undo_sync(check->undo) : r;
}

int check_grown(struct check *check, uint64_t size)
{
	int r;

	check->size = size;
	check->places = count_places(&check->g, size);
	r = bitmap_grow(&check->used, check->places);
	if (!r)
		r = bitmap_grow(&check->extension, check->places);
	if (r)
		return error_set(check->err, r, PLOOP_EXIT_MALLOC, "%s: no memory to check it", check->file->path);
	return 0;
}

static int prepare(struct check *check)
{
	int r;

	check->places = count_places(&check->g, check->size);
	r = bitmap_init(&check->used, max_u64(check->places, 1));
	if (!r)
		r = bitmap_init(&check->extension, max_u64(check->places, 1));
	if (r)
		return error_set(check->err, r, PLOOP_EXIT_MALLOC, "%s: no memory to check it", check->file->path);
	return 0;
}

static int work(struct check *check)
{
	int r;

	r = check_header(check);
	if (!r)
		r = prepare(check);
	if (!r)
		r = check_extension(check);
	if (r)
		return r < 0 ? r : 0;
	check_fields(check);
	r = check_length(check);
	if (!r)
		r = check_index(check);
	if (!r)
		r = check_close_header(check);
	if (!r)
		r = check_space(check);
	return r;
}

static int file_size(struct check *check)
{
	int r = io_size(check->file, &check->size);

	return r ? error_sys(check->err, r, PLOOP_EXIT_FSTAT, "cannot read %s", check->file->path) : 0;
}

int check_image(struct io_file *file, const struct check_request *request, struct ploop_check_image *ret,
		struct ploop_error *err)
{
	struct ploop_check_image image = { .path = file->path, .format = "ploop1" };
	struct check check = {
		.file = file,
		.options = request->options,
		.undo = request->undo,
		.image = &image,
		.err = err,
		.chunk = io_buffer_new(CHECK_CHUNK),
		.before = io_buffer_new(CHECK_CHUNK),
	};
	int r;

	if (!check.chunk || !check.before)
		r = error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: no memory to check it", file->path);
	else
		r = file_size(&check);
	if (!r)
		r = work(&check);
	io_buffer_free(check.chunk, CHECK_CHUNK);
	io_buffer_free(check.before, CHECK_CHUNK);
	bitmap_fini(&check.used);
	bitmap_fini(&check.extension);
	if (r)
		return r;
	image.file_size = check.size;
	if (check.frozen || !image.errors)
		image.needed = NEVER;
	image.status = judge_status(&check);
	*ret = image;
	return 0;
}

int check_raw(struct io_file *file, const struct check_request *request, struct ploop_check_image *ret,
	      struct ploop_error *err)
{
	struct ploop_check_image image = { .path = file->path, .format = "raw" };
	struct check check = { .file = file, .options = request->options, .image = &image, .err = err };
	int r;

	r = file_size(&check);
	if (r)
		return r;
	r = format_raw.parse(NULL, 0, check.size, request->raw_cluster, &check.g, err);
	if (r)
		return error_prefix(err, r, "%s", file->path);
	if (check.size % SECTOR)
		check_report(&check, PLOOP_CHECK_FOUND,
			     &(struct ploop_check_finding){ .kind = PLOOP_CHECK_LENGTH,
							    .cluster = CHECK_NOWHERE,
							    .file_cluster = CHECK_NOWHERE,
							    .bytes = check.size % SECTOR,
							    .text = "the file ends inside a sector" });
	image.needed = NEVER;
	image.errors = 0; /* what is behind the last sector makes no difference to the disk */
	image.size = check.g.size;
	image.cluster = check.g.cluster;
	image.entries = image.mapped = check.g.clusters;
	image.file_size = check.size;
	image.status = judge_status(&check);
	*ret = image;
	return 0;
}
