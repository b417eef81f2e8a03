/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* change.c - see change.h. */
#include "lib/change.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/create.h"
#include "image/journal.h"
#include "image/lock.h"
#include "image/stack.h"
#include "image/tree.h"
#include "lib/reconcile.h"
#include "lib/recover.h"

bool change_same_file(const char *a, const char *b)
{
	struct stat one, other;

	return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/*
 * Devices whose ploopd is dead use nothing any more. Who may not see devices has the locks of the files between himself and
 * them: a disk that one of them writes to is not changed.
 */
int change_list_devices(struct change *change, struct ploop_error *err)
{
	size_t n, used = 0;
	int r;

	ploop_list_free(change->devices, change->ndevices);
	change->devices = NULL;
	change->ndevices = 0;
	change->writer = NULL;
	r = ploop_list(&change->devices, &n, err);
	if (r == -EACCES || r == -EPERM)
		return 0;
	if (r < 0)
		return r;
	for (size_t i = 0; i < n; i++) {
		if (change->devices[i].alive && change->devices[i].nimages)
			change->devices[used++] = change->devices[i];
		else
			ploop_device_clear(&change->devices[i]);
	}
	change->ndevices = used;
	return 0;
}

int change_read(struct change *change, struct ploop_error *err)
{
	int r;

	descriptor_free(take_ptr(change->descriptor));
	free(take_ptr(change->old_text));
	r = descriptor_read(change->dir, change->name, &change->descriptor, err);
	if (r < 0)
		return r;
	r = dir_read(change->dir, change->name, DESCRIPTOR_MAX_TEXT, &change->old_text, &change->old_len);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", change->path) : 0;
}

/* Locked, read, and what devices there are: not yet brought in line. */
int change_open(struct change *change, const char *disk, struct ploop_error *err)
{
	int r;

	change->lock = -EBADF;
	r = descriptor_find_file(disk, &change->path, err);
	if (r == 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is no DiskDescriptor.xml", disk);
	if (r < 0)
		return r;
	r = change->leave ? lock_disk(change->path, LOCK_WAIT_MS, &change->lock, err)
			  : journal_lock_disk(change->path, LOCK_WAIT_MS, &change->lock, err);
	if (r == 0)
		r = lock_work_check(change->path, change->lock, err);
	if (r == 0)
		r = dir_open_parent(NULL, change->path, &change->dir, &change->name, err);
	if (r == 0)
		r = change_read(change, err);
	return r < 0 ? r : change_list_devices(change, err);
}

int change_begin(struct change *change, const char *disk, struct ploop_error *err)
{
	int r = change_open(change, disk, err);

	return r < 0 ? r : reconcile(change, err);
}

void change_pause(struct change *change)
{
	if (!change->paused)
		lock_work_begin(change->lock);
	change->paused = true;
}

int change_resume(struct change *change, struct ploop_error *err)
{
	int r;

	if (!change->paused)
		return 0;
	change->paused = false;
	r = lock_work_end(change->path, change->lock, err);
	if (r == 0)
		r = change_read(change, err);
	return r < 0 ? r : change_list_devices(change, err);
}

int change_journal(struct change *change, const char *operation, const char *const *files, unsigned nfiles,
		   struct ploop_error *err)
{
	int r = journal_begin(change->dir, change->name, operation, files, nfiles, err);

	change->journal = r == 0;
	return r;
}

int change_commit(struct change *change, struct ploop_error *err)
{
	int r = descriptor_store(change->descriptor, change->dir, change->name, err);

	/* It may have been replaced, and only not be durable yet. */
	if (r < 0)
		change_undo(change);
	return r;
}

void change_undo(struct change *change)
{
	int r = dir_replace(change->dir, change->name, change->old_text, change->old_len);

	if (r < 0)
		log_error("%s cannot be put back as it was: %s; the next change of the disk settles it", change->path,
			  strerror(-r));
}

void change_end(struct change *change)
{
	struct ploop_error why;

	if (change->paused && lock_work_end(change->path, change->lock, &why) < 0) {
		log_warning("%s", why.text);
		change->journal = false; /* whoever has the lock settles it */
	}
	if (change->journal && journal_settle(change->dir, change->name, &why) < 0)
		log_warning("%s", why.text);
	ploop_list_free(change->devices, change->ndevices);
	descriptor_free(change->descriptor);
	free(change->old_text);
	dir_close(change->dir);
	free(change->path);
	if (change->lock >= 0)
		close(change->lock);
	*change = (struct change){ .lock = -EBADF };
}

int change_find(const struct change *change, const char *uuid, const struct snapshot **ret, struct ploop_error *err)
{
	struct guid guid;

	if (!guid_parse(uuid, &guid))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", uuid);
	*ret = descriptor_find(change->descriptor, &guid);
	if (!*ret)
		return error_set(err, -ENOENT, PLOOP_EXIT_NO_SNAPSHOT, "Can't find snapshot by uuid %s", guid.text);
	return 0;
}

int change_check_format(const struct change *change, struct ploop_error *err)
{
	const struct descriptor *d = change->descriptor;

	if (guid_is_top(&d->top))
		return 0;
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			 "Snapshot is in old format: the top of %s is %s and not " GUID_TOP
			 "; `ploop repair-descriptor` gives it that name",
			 d->path, d->top.text);
}

const struct ploop_device *change_user(const struct change *change, const struct snapshot *snapshot, size_t *from)
{
	_free_ char *file = descriptor_file(change->descriptor, snapshot);

	while (file && *from < change->ndevices) {
		const struct ploop_device *device = &change->devices[(*from)++];

		for (size_t i = 0; i < device->nimages; i++)
			if (change_same_file(device->images[i], file))
				return device;
	}
	return NULL;
}

int change_look(const struct change *change, const struct snapshot *snapshot, struct geometry *ret,
		struct stack **ret_stack, struct ploop_error *err)
{
	const char *operand = change->path;
	const struct stack_request request = {
		.operands = &operand,
		.noperands = 1,
		.snapshot = snapshot->guid.text,
		.read_only = true,
		.unlocked = !ret_stack,
		.outside = true, /* only headers are read */
	};
	struct stack *stack;
	int r = stack_open(NULL, &request, &stack, err);

	if (r < 0)
		return r;
	*ret = stack->levels[stack->nlevels - 1].geometry;
	if (ret_stack)
		*ret_stack = stack;
	else
		stack_close(stack);
	return 0;
}

int change_recover_top(const struct change *change, struct ploop_error *err)
{
	const struct descriptor *d = change->descriptor;

	return recover_images(change->path, d, descriptor_top(d), false, err);
}

char *change_new_name(const struct change *change)
{
	const struct snapshot *base = descriptor_top(change->descriptor), *up;
	const char *file, *slash, *brace;
	struct guid guid;
	size_t len;
	char *name;

	while ((up = tree_parent(change->descriptor, base)))
		base = up;
	slash = strrchr(base->file, '/');
	file = slash ? slash + 1 : base->file;
	/* The base may have been a delta once. */
	len = strlen(file);
	brace = strrchr(file, '{');
	if (brace && brace > file + 1 && brace[-1] == '.' && guid_parse(brace, &guid))
		len = (size_t)(brace - 1 - file);
	guid_generate(&guid);
	return asprintf(&name, "%.*s.%s", (int)len, file, guid.text) < 0 ? NULL : name;
}

int change_new_delta(struct dir *dir, const char *name, const struct geometry *top, struct ploop_error *err)
{
	const struct image_params params = {
		.mode = IMAGE_EXPANDED,
		.version = top->version ? top->version : 2,
		.size = top->size,
		.cluster = top->cluster,
	};

	return image_create(NULL, dir, name, &params, err);
}

int change_fuse(struct descriptor *d, const struct guid *guids, unsigned n)
{
	const struct guid *low = &guids[0], *high = &guids[n - 1];
	enum snapshot_temporary temporary = descriptor_find(d, high)->temporary;
	int r = descriptor_set_temporary(d, low, temporary);

	if (!r && descriptor_top(d) == descriptor_find(d, high))
		r = descriptor_set_top(d, low);
	for (unsigned i = n - 1; i > 0 && !r; i--)
		r = descriptor_remove(d, &guids[i]);
	return r ? r : descriptor_rename(d, low, high);
}
