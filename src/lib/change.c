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

bool change_same_file(const char *a, const char *b)
{
	struct stat one, other;

	return stat(a, &one) == 0 && stat(b, &other) == 0 && one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/*
 * Devices whose ploopd is dead use nothing any more. Who may not see devices has the locks of the files between himself and
 * them: a disk that one of them writes to is not changed.
 */
static int list_devices(struct change *change, struct ploop_error *err)
{
	size_t n, used = 0;
	int r = ploop_list(&change->devices, &n, err);

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

/* The place in the chain of the file that a device writes to; -1 when it is not in it. */
static int place_in_chain(const struct change *change, const struct ploop_device *device,
			  const struct snapshot *const *chain, int n)
{
	for (int i = n - 1; i >= 0; i--) {
		_free_ char *file = descriptor_file(change->descriptor, chain[i]);

		if (file && change_same_file(file, device->images[device->nimages - 1]))
			return i;
	}
	return -1;
}

static int diverged(const struct change *change, const struct ploop_device *device, struct ploop_error *err)
{
	return error_set(err, -EUCLEAN, PLOOP_EXIT_DISKDESCR,
			 "%s and %s, which runs on it, do not agree on the images: the device writes to %s; unmount it, then "
			 "look with `ploop snapshot-list` and `ploop gc`",
			 change->path, device->device, device->images[device->nimages - 1]);
}

/*
 * Who died after the descriptor named a new delta and before the device had it left the device one behind. The delta is
 * empty, so that giving it to the device now makes a snapshot of what is there now.
 */
static int catch_up(struct change *change, const struct ploop_device *device, const struct snapshot *top,
		    struct ploop_error *err)
{
	_free_ char *file = descriptor_file(change->descriptor, top);
	int r;

	if (!file)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	log_warning("%s is one snapshot behind its descriptor, as somebody was interrupted: %s becomes its top",
		    device->device, file);
	r = push_delta(device, file, err);
	if (r < 0)
		return r;
	ploop_list_free(change->devices, change->ndevices);
	change->devices = NULL;
	change->ndevices = 0;
	return list_devices(change, err);
}

static int find_writer(struct change *change, bool *ret_behind, struct ploop_error *err)
{
	const struct snapshot *chain[TREE_MAX_DEPTH], *top = descriptor_top(change->descriptor);
	int n = tree_chain(change->descriptor, top, chain, err);

	*ret_behind = false;
	if (n < 0)
		return n;
	for (size_t i = 0; i < change->ndevices; i++) {
		const struct ploop_device *device = &change->devices[i];
		int place = device->read_only ? -1 : place_in_chain(change, device, chain, n);

		if (place < 0)
			continue;
		if (place + 1 == (int)device->nimages && place == n - 1) {
			change->writer = device;
			continue;
		}
		/* One that was opened by file names may be meant to write to a snapshot, however wrong that is. */
		if (place + 1 != (int)device->nimages || place < n - 2 || !device->descriptor)
			return diverged(change, device, err);
		*ret_behind = true;
		return catch_up(change, device, top, err);
	}
	return 0;
}

int change_begin(struct change *change, const char *disk, struct ploop_error *err)
{
	bool behind = false;
	int r;

	change->lock = -EBADF;
	r = descriptor_find_file(disk, &change->path, err);
	if (r == 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is no DiskDescriptor.xml", disk);
	if (r < 0)
		return r;
	r = journal_lock_disk(change->path, LOCK_WAIT_MS, &change->lock, err);
	if (r == 0)
		r = dir_open_parent(NULL, change->path, &change->dir, &change->name, err);
	if (r == 0)
		r = descriptor_read(change->dir, change->name, &change->descriptor, err);
	if (r == 0) {
		r = dir_read(change->dir, change->name, DESCRIPTOR_MAX_TEXT, &change->old_text, &change->old_len);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", change->path);
	}
	if (r == 0)
		r = list_devices(change, err);
	if (r == 0)
		r = find_writer(change, &behind, err);
	return r == 0 && behind ? find_writer(change, &behind, err) : r;
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
			 "Snapshot is in old format: the top of %s is %s and not " GUID_TOP, d->path, d->top.text);
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
