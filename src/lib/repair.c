/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * repair.c - what a descriptor says, the files, and the devices that run on them are compared; what is behind is told, and put
 * right. Nothing is changed that needs a decision: data is never dropped here.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "format/format.h"
#include "image/journal.h"
#include "lib/reconcile.h"

struct repair {
	struct change *change;
	bool dry_run;
	struct ploop_repair *items;
	size_t n;
};

static const char *const side_names[] = {
	[PLOOP_REPAIR_DESCRIPTOR] = "descriptor",
	[PLOOP_REPAIR_FILES] = "files",
	[PLOOP_REPAIR_DEVICE] = "device",
};

const char *ploop_repair_side_name(enum ploop_repair_side side)
{
	return (size_t)side < ARRAY_SIZE(side_names) ? side_names[side] : "unknown";
}

void ploop_repair_free(struct ploop_repair *items, size_t n)
{
	for (size_t i = 0; items && i < n; i++) {
		free(items[i].text);
		free(items[i].remedy);
	}
	free(items);
}

/* Takes the texts over; NULL texts are lack of memory. */
static struct ploop_repair *add(struct repair *repair, enum ploop_repair_side behind, char *text, char *remedy)
{
	struct ploop_repair *items = reallocarray(repair->items, repair->n + 1, sizeof(*items));

	if (!items || !text || !remedy) {
		free(text);
		free(remedy);
		repair->items = items ? items : repair->items;
		return NULL;
	}
	repair->items = items;
	items[repair->n] = (struct ploop_repair){ .behind = behind, .text = text, .remedy = remedy, .possible = true };
	return &items[repair->n++];
}

__attribute__((format(printf, 1, 2))) static char *text_of(const char *format, ...)
{
	va_list arguments;
	char *text;
	int r;

	va_start(arguments, format);
	r = vasprintf(&text, format, arguments);
	va_end(arguments);
	return r < 0 ? NULL : text;
}

static int no_memory(const struct repair *repair, struct ploop_error *err)
{
	return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", repair->change->path);
}

/* What became of an item; that one cannot be put right is told with it, and is not the end. */
static void settle(struct ploop_repair *item, int r)
{
	item->done = r == 0;
}

/* ---- Descriptor and files ---- */

static int look_at_journal(struct repair *repair, struct ploop_error *err)
{
	struct change *change = repair->change;
	_free_ char *journal = text_of("%s" JOURNAL_SUFFIX, change->name);
	struct ploop_repair *item;

	if (!journal)
		return no_memory(repair, err);
	if (!dir_exists(change->dir, journal))
		return 0;
	item = add(repair, PLOOP_REPAIR_FILES,
		   text_of("%s/%s tells of a change that was interrupted", change->dir->path, journal),
		   strdup("of its files those go that the descriptor does not name"));
	if (!item)
		return no_memory(repair, err);
	if (!repair->dry_run)
		settle(item, journal_settle(change->dir, change->name, &item->error));
	return 0;
}

static int look_at_format(struct repair *repair, struct ploop_error *err)
{
	struct change *change = repair->change;
	const struct descriptor *d = change->descriptor;
	struct ploop_repair *item;

	if (guid_is_top(&d->top))
		return 0;
	item = add(repair, PLOOP_REPAIR_DESCRIPTOR,
		   text_of("%s is in old format: its top is %s", change->path, d->top.text),
		   strdup("the top gets the name " GUID_TOP));
	if (!item)
		return no_memory(repair, err);
	if (!repair->dry_run)
		settle(item, change_commit(change, &item->error));
	return 0;
}

/* Of a file that is not there. */
static int add_missing(struct repair *repair, const struct snapshot *s, const char *file, struct ploop_error *err)
{
	bool leaf = !s->children && !guid_equal(&s->guid, &repair->change->descriptor->top);
	struct ploop_repair *item = add(
		repair, PLOOP_REPAIR_FILES, text_of("%s, which snapshot %s needs, is not there", file, s->guid.text),
		leaf ? text_of("put it back, or give the snapshot up: `ploop snapshot-delete -u %s`", s->guid.text)
		     : strdup("put it back: all that is made on it needs it"));

	if (!item)
		return no_memory(repair, err);
	item->possible = false;
	return 0;
}

static int look_at_files(struct repair *repair, struct ploop_error *err)
{
	const struct descriptor *d = repair->change->descriptor;
	int r = 0;

	for (uint32_t i = 0; i < d->nsnapshots && r == 0; i++) {
		_free_ char *file = d->snapshots[i].file ? descriptor_file(d, &d->snapshots[i]) : NULL;
		struct stat st;

		if (file && stat(file, &st) < 0 && errno == ENOENT)
			r = add_missing(repair, &d->snapshots[i], file, err);
	}
	return r;
}

/* What the image of the top says is what a device has. One that cannot be looked at is somebody else's to tell. */
static int look_at_size(struct repair *repair, struct ploop_error *err)
{
	struct change *change = repair->change;
	struct descriptor *d = change->descriptor;
	struct geometry top;
	struct ploop_repair *item;
	int r;

	if (change_look(change, descriptor_top(d), &top, NULL, NULL) < 0 || top.size == d->size)
		return 0;
	item = add(repair, PLOOP_REPAIR_DESCRIPTOR,
		   text_of("%s says %llu sectors, and the disk has %llu", change->path,
			   (unsigned long long)(d->size / SECTOR), (unsigned long long)(top.size / SECTOR)),
		   strdup("it takes the size of the disk"));
	if (!item)
		return no_memory(repair, err);
	if (repair->dry_run)
		return 0;
	r = descriptor_set_size(d, top.size);
	if (r < 0)
		error_sys(&item->error, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path);
	settle(item, r < 0 ? r : change_commit(change, &item->error));
	return 0;
}

/* ---- Devices ---- */

static char *missing_images(const struct change *change, const struct comparison *c)
{
	char *text = strdup(""), *more;

	for (unsigned i = 0; i < c->n && text; i++) {
		if (!c->missing[i])
			continue;
		more = text_of("%s%s%s/%s", text, *text ? ", " : "", change->dir->path, c->chain[i]->file);
		free(text);
		text = more;
	}
	return text;
}

static struct ploop_repair *add_device(struct repair *repair, const struct comparison *c)
{
	const struct ploop_device *device = c->device;
	const char *path = repair->change->path;
	_free_ char *missing = missing_images(repair->change, c);
	struct ploop_repair *item;

	switch (c->standing) {
	case STANDING_BEHIND:
		return add(repair, PLOOP_REPAIR_DEVICE,
			   text_of("%s lacks %s, the new top of %s", device->device, missing, path),
			   strdup("the device takes it as its top"));
	case STANDING_MERGED:
		return add(repair, PLOOP_REPAIR_DESCRIPTOR,
			   text_of("%s names %s, which %s has merged", path, missing, device->device),
			   strdup("the descriptor forgets it, and the file goes"));
	case STANDING_AHEAD:
		return add(repair, PLOOP_REPAIR_DESCRIPTOR,
			   text_of("%s does not know %s, which %s writes to", path, device->images[device->nimages - 1],
				   device->device),
			   strdup("the descriptor takes the images of the device over"));
	default:
		item = add(repair, PLOOP_REPAIR_DEVICE,
			   text_of("%s writes to %s, with other images below it than %s says", device->device,
				   device->images[device->nimages - 1], path),
			   text_of("nobody can tell which is right: `ploop umount -d %s`, and mount what shall be",
				   device->device));
		if (item)
			item->possible = false;
		return item;
	}
}

static int put_right(struct change *change, const struct comparison *c, struct ploop_error *err)
{
	switch (c->standing) {
	case STANDING_BEHIND:
		return catch_up(change, c, err);
	case STANDING_MERGED:
		return forget_merged(change, c, err);
	default:
		return learn_images(change, c, err);
	}
}

/* 1: something was changed, so that the list of devices is another. */
static int look_at_device(struct repair *repair, const struct ploop_device *device, struct ploop_error *err)
{
	struct comparison c;
	struct ploop_repair *item;
	int r = compare_device(repair->change, device, &c, err);

	if (r < 0 || c.standing == STANDING_NONE || c.standing == STANDING_SAME)
		return r;
	item = add_device(repair, &c);
	if (!item)
		return no_memory(repair, err);
	if (repair->dry_run || !item->possible)
		return 0;
	settle(item, put_right(repair->change, &c, &item->error));
	return item->done;
}

static int look_at_devices(struct repair *repair, struct ploop_error *err)
{
	size_t turns = 2 * repair->change->ndevices;
	int r = 0;

	for (size_t i = 0; i < repair->change->ndevices && r >= 0; i++) {
		r = look_at_device(repair, &repair->change->devices[i], err);
		if (r > 0 && turns--)
			i = (size_t)-1;
	}
	return r < 0 ? r : 0;
}

int ploop_repair_descriptor(const char *disk, bool dry_run, struct ploop_repair **ret, size_t *ret_n,
			    struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF, .leave = true };
	struct repair repair = { .change = &change, .dry_run = dry_run };
	int r = change_open(&change, disk, err);

	if (r == 0)
		r = look_at_journal(&repair, err);
	if (r == 0)
		r = look_at_format(&repair, err);
	if (r == 0)
		r = look_at_devices(&repair, err);
	if (r == 0)
		r = look_at_files(&repair, err);
	if (r == 0)
		r = look_at_size(&repair, err);
	if (r < 0) {
		ploop_repair_free(repair.items, repair.n);
		return r;
	}
	*ret = repair.items;
	*ret_n = repair.n;
	return 0;
}
