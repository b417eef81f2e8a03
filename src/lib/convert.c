/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * convert.c - images of a disk take another form where they are: version, preallocated or not, raw or not.
 *
 * Each image that must change is written anew under a new name, and in the end has its old one again. Order of writes:
 *  1. The journal names all old and all new files.
 *  2. The new files are whole, durable and compared with the old ones.
 *  3. The descriptor names the new files: all images have changed in this moment, or none has.
 *  4. Old file by old file: it goes, and its name becomes a second name of the new file.
 *  5. The descriptor has the old names again. The journal's end removes the new ones.
 * Whatever is cut off, the descriptor names complete files; the next change of the disk removes those that it does not name.
 * Between 3 and 5 that leaves the new images under their new names: a disk like any other.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/journal.h"
#include "image/stack.h"
#include "image/tree.h"
#include "io/io.h"
#include "io/loop.h"
#include "lib/change.h"
#include "lib/convert.h"

#define LOOP_DEPTH 64
#define VERSION_DEFAULT 2u
#define IMAGES_MAX (JOURNAL_FILES / 2)

/* One image that is written anew. */
struct item {
	uint32_t snapshot; /* its number in the descriptor; GUIDs change when one of the old format is stored */
	char *old, *new;   /* names in the folder */
	char *path;        /* of the old one */
	struct stack *stack;
	struct image_params to;
	bool keep_zeros; /* something lies below */
	struct stat st;
};

struct convert {
	const struct ploop_convert *what;
	struct change change;
	struct loop *loop;
	enum image_mode mode; /* of the disk afterwards */
	unsigned version;     /* of images that have none yet: all of a stack have the same */
	struct item items[IMAGES_MAX];
	unsigned nitems;
};

static void close_stacks(struct convert *convert)
{
	for (unsigned i = 0; i < convert->nitems; i++) {
		stack_close(convert->items[i].stack);
		convert->items[i].stack = NULL;
	}
}

static void cleanup_convert(struct convert **at)
{
	struct convert *convert = *at;

	if (!convert)
		return;
	close_stacks(convert);
	for (unsigned i = 0; i < convert->nitems; i++) {
		free(convert->items[i].old);
		free(convert->items[i].new);
		free(convert->items[i].path);
	}
	if (convert->loop)
		loop_free(convert->loop);
	change_end(&convert->change);
	free(convert);
}

static int plan_mode(struct convert *convert, struct ploop_error *err)
{
	const struct descriptor *d = convert->change.descriptor;
	const char *format = convert->what->format;

	convert->mode = d->mode;
	if (!format)
		return d->mode != IMAGE_RAW || d->nsnapshots > 1
			       ? 0
			       : error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					   "%s: a raw image has no version; convert it with -f expanded", d->path);
	if (!strcmp(format, "expanded") || !strcmp(format, "ploop1"))
		convert->mode = IMAGE_EXPANDED;
	else if (!strcmp(format, "raw"))
		convert->mode = IMAGE_RAW;
	else if (!strcmp(format, "preallocated"))
		convert->mode = IMAGE_PREALLOCATED;
	else
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Bad -f argument: %s", format);
	if (convert->mode == IMAGE_PREALLOCATED && d->mode != IMAGE_PREALLOCATED && d->nsnapshots > 1)
		return error_set(
			err, -EINVAL, PLOOP_EXIT_PARAM,
			"%s has %u snapshots, and a preallocated image would hide what they hold: merge them first "
			"(`ploop snapshot-merge -A`), or write a new disk with --output",
			d->path, d->nsnapshots - 1);
	return 0;
}

static bool is_raw(const struct item *item)
{
	return !item->stack->levels[0].format->has_index;
}

/* The form that the image shall have; false when it has it already. */
static bool plan_item(struct convert *convert, struct item *item)
{
	const struct geometry *g = &item->stack->levels[0].geometry;
	unsigned version = convert->what->version;
	bool format = convert->what->format != NULL, base = !item->keep_zeros;
	enum image_mode mode = convert->mode, now = convert->change.descriptor->mode;

	item->to = (struct image_params){ .sparse = true, .size = g->size, .cluster = g->cluster };
	item->to.version = version ? version : g->version ? g->version : convert->version;
	item->to.mode = base && (mode == IMAGE_RAW ? format || is_raw(item) : true) ? mode : IMAGE_EXPANDED;
	if (item->to.mode == IMAGE_RAW)
		return !is_raw(item);
	/* A raw disk that shall only have another version, with nothing but raw images, has none to change. */
	if (is_raw(item))
		return format;
	return g->version != item->to.version || (g->read_only && !g->extension) || (base && format && mode != now);
}

static int open_item(struct convert *convert, const struct snapshot *s, struct item *item, struct ploop_error *err)
{
	const struct descriptor *d = convert->change.descriptor;
	const char *path;
	struct stack_request request = { .noperands = 1, .operands = &path, .read_only = true };

	item->snapshot = (uint32_t)(s - d->snapshots);
	item->keep_zeros = !tree_is_base(s);
	item->old = strdup(s->file ? s->file : "");
	item->new = change_new_name(&convert->change);
	item->path = descriptor_file(d, s);
	if (!item->old || !item->new || !item->path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", d->path);
	path = item->path;
	request.base_format = descriptor_raw(s) ? "raw" : "ploop1";
	request.cluster = descriptor_raw(s) ? d->cluster : 0;
	return stack_open(convert->loop, &request, &item->stack, err);
}

/* The new files come beside the descriptor, and the journal takes names there only. */
static int check_item(struct convert *convert, const struct snapshot *s, struct item *item, struct ploop_error *err)
{
	size_t from = 0;
	const struct ploop_device *device = change_user(&convert->change, s, &from);

	if (device)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is used by %s: unmount it first", item->path,
				 device->device);
	if (strchr(item->old, '/') || lstat(item->path, &item->st) < 0 || !S_ISREG(item->st.st_mode))
		return error_set(
			err, -EXDEV, PLOOP_EXIT_PARAM,
			"%s is not a plain file in the folder of its descriptor: write a new disk with --output",
			item->path);
	return 0;
}

static int plan_items(struct convert *convert, struct ploop_error *err)
{
	const struct descriptor *d = convert->change.descriptor;
	int r = 0;

	for (uint32_t i = 0; i < d->nsnapshots && !r; i++) {
		struct item *item = &convert->items[convert->nitems];

		if (convert->nitems == IMAGES_MAX)
			return error_set(err, -E2BIG, PLOOP_EXIT_PARAM,
					 "%s: at most %u images can be converted: merge some snapshots first", d->path,
					 IMAGES_MAX - 1);
		convert->nitems++;
		r = open_item(convert, &d->snapshots[i], item, err);
		if (!r && plan_item(convert, item)) {
			r = check_item(convert, &d->snapshots[i], item, err);
			continue;
		}
		stack_close(item->stack);
		free(item->old);
		free(item->new);
		free(item->path);
		*item = (struct item){ 0 };
		convert->nitems--;
	}
	return r;
}

/* A raw disk need not end with a whole cluster, others do. Those above it would not fit it any more. */
static int plan_sizes(struct convert *convert, struct ploop_error *err)
{
	struct geometry ignored;
	int r = 0;

	for (unsigned i = 0; i < convert->nitems && !r; i++) {
		struct image_params *to = &convert->items[i].to;

		if (to->mode == IMAGE_RAW || to->size % to->cluster == 0)
			continue;
		if (convert->change.descriptor->nsnapshots > 1)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s: its size is not a multiple of %u bytes, as it must be with snapshots",
					 convert->items[i].path, to->cluster);
		to->size = round_up(to->size, to->cluster);
		r = descriptor_set_size(convert->change.descriptor, to->size);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s", convert->change.path);
	}
	for (unsigned i = 0; i < convert->nitems && !r; i++)
		r = image_plan(&convert->items[i].to, &ignored, err);
	return r;
}

static int check_room(const struct convert *convert, struct ploop_error *err)
{
	uint64_t bytes = 0;

	for (unsigned i = 0; i < convert->nitems; i++) {
		const struct item *item = &convert->items[i];
		uint64_t allocated = 0;

		if (item->to.mode == IMAGE_PREALLOCATED) {
			bytes += item->to.size;
			continue;
		}
		if (convert_shares(convert->change.dir, item->path))
			continue;
		(void)io_allocated(item->stack->levels[0].file, &allocated);
		bytes += min_u64(allocated, item->to.size);
	}
	return convert_check_room(convert->change.dir, bytes, err);
}

static int begin_journal(struct convert *convert, struct ploop_error *err)
{
	const char *files[JOURNAL_FILES];

	for (unsigned i = 0; i < convert->nitems; i++) {
		files[2 * i] = convert->items[i].old;
		files[2 * i + 1] = convert->items[i].new;
	}
	return change_journal(&convert->change, "convert", files, 2 * convert->nitems, err);
}

static int write_items(struct convert *convert, struct ploop_error *err)
{
	int r = 0;

	for (unsigned i = 0; i < convert->nitems && !r; i++) {
		const struct item *item = &convert->items[i];
		const struct convert_write write = {
			.loop = convert->loop,
			.dir = convert->change.dir,
			.name = item->new,
			.levels = item->stack->levels,
			.nlevels = 1,
			.form = convert_form(item->to.mode),
			.params = item->to,
			.keep_zeros = item->keep_zeros,
			.no_verify = convert->what->no_verify,
			.like = &item->st,
			.progress = convert->what->progress,
			.progress_data = convert->what->progress_data,
		};

		r = convert_write(&write, err);
	}
	return r;
}

/* The descriptor names the files `new`, or `old` again. */
static int name_files(struct convert *convert, bool new, struct ploop_error *err)
{
	struct descriptor *d = convert->change.descriptor;
	int r = 0;

	for (unsigned i = 0; i < convert->nitems && !r; i++) {
		const struct item *item = &convert->items[i];

		r = descriptor_set_file(d, &d->snapshots[item->snapshot].guid, new ? item->new : item->old);
	}
	if (!r && d->mode != convert->mode)
		r = descriptor_set_mode(d, convert->mode);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", convert->change.path) : 0;
}

/* The disk is converted already. A file system without hard links leaves the new names. */
static void restore_names(struct convert *convert)
{
	struct dir *dir = convert->change.dir;
	struct ploop_error err;
	int r = 0;

	for (unsigned i = 0; i < convert->nitems && !r; i++) {
		r = dir_unlink(dir, convert->items[i].old);
		if (!r)
			r = dir_link(dir, convert->items[i].new, convert->items[i].old);
	}
	if (!r)
		r = dir_sync(dir);
	if (!r)
		r = name_files(convert, false, &err);
	if (!r)
		r = descriptor_store(convert->change.descriptor, dir, convert->change.name, &err);
	if (r < 0)
		log_warning("%s: images keep the names that they were converted under: %s", convert->change.path,
			    strerror(-r));
}

static int convert_disk(struct convert *convert, struct ploop_error *err)
{
	int r = plan_sizes(convert, err);

	if (!r)
		r = check_room(convert, err);
	if (!r)
		r = begin_journal(convert, err);
	if (!r)
		r = write_items(convert, err);
	if (!r)
		r = name_files(convert, true, err);
	if (!r)
		r = change_commit(&convert->change, err);
	close_stacks(convert);
	if (!r)
		restore_names(convert);
	return r;
}

static int plan_version(struct convert *convert, struct ploop_error *err)
{
	struct geometry top;
	int r = change_look(&convert->change, descriptor_top(convert->change.descriptor), &top, NULL, err);

	if (!r)
		convert->version = top.version ? top.version : VERSION_DEFAULT;
	return r;
}

static int plan(struct convert *convert, struct ploop_error *err)
{
	int r = change_begin(&convert->change, convert->what->disk, err);

	if (!r)
		r = loop_new(NULL, LOOP_DEPTH, &convert->loop, err);
	if (!r)
		r = plan_mode(convert, err);
	if (!r)
		r = plan_version(convert, err);
	return r ? r : plan_items(convert, err);
}

int ploop_convert(const struct ploop_convert *what, struct ploop_error *err)
{
	_cleanup_(cleanup_convert) struct convert *convert = calloc(1, sizeof(*convert));
	int r;

	if (!convert)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "convert");
	convert->what = what;
	convert->change.lock = -EBADF;
	if (what->version > 2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unknown ploop image version: %u", what->version);
	r = plan(convert, err);
	if (r < 0)
		return r;
	if (!convert->nitems && convert->mode == convert->change.descriptor->mode) {
		log_info("Nothing to convert: %s is as it shall be", convert->change.path);
		return 0;
	}
	return convert_disk(convert, err);
}
