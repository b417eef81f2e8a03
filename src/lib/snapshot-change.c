/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot-change.c - going back to a snapshot, deleting one, and mounting a temporary one.
 *
 * Order of writes, of both changes: journal, new files, descriptor, then the files go that it does not name any more (see
 * image/journal.h). A crash before the descriptor leaves the old disk, one after it the new one.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/stack.h"
#include "image/lock.h"
#include "image/tree.h"
#include "lib/branch.h"
#include "lib/change.h"
#include "lib/tidy.h"

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

static int edit_failed(const struct change *change, int r, struct ploop_error *err)
{
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path) : 0;
}

/* "/dev/ploop0, /dev/ploop1" */
static bool users_of(const struct change *change, const struct snapshot *snapshot, char *text, size_t size)
{
	const struct ploop_device *device;
	size_t from = 0, used = 0;

	while ((device = change_user(change, snapshot, &from)) && used < size)
		used += (size_t)snprintf(text + used, size - used, "%s%s", used ? ", " : "", device->device);
	return used;
}

/* ---- Switch ---- */

static int check_switch(const struct change *change, const struct snapshot *to, struct ploop_error *err)
{
	const struct descriptor *d = change->descriptor;
	const struct snapshot *top = descriptor_top(d);
	char users[256];

	if (to == top)
		return error_set(err, -EALREADY, PLOOP_EXIT_PARAM, "Nothing to do, already on %s snapshot",
				 to->guid.text);
	if (to->temporary != SNAPSHOT_KEPT)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Snapshot %s is temporary", to->guid.text);
	if (top->children)
		return error_set(err, -EINVAL, PLOOP_EXIT_DISKDESCR, "%s: the top has children", d->path);
	if (users_of(change, top, users, sizeof(users)))
		return error_set(err, -EBUSY, PLOOP_EXIT_PARAM,
				 "Unable to perform switch to snapshot operation on running device (%s)", users);
	return change_check_format(change, err);
}

/* The old top keeps its file under the name `kept`, or goes. */
static int edit_switch(struct change *change, const struct guid *to, const char *delta, const struct guid *kept,
		       bool keep)
{
	struct descriptor *d = change->descriptor;
	struct guid top;
	int r;

	guid_parse(GUID_TOP, &top);
	r = descriptor_rename(d, &d->top, kept);
	if (r == 0)
		r = descriptor_add(d, &top, to, delta);
	if (r == 0)
		r = descriptor_set_top(d, &top);
	return r == 0 && !keep ? descriptor_remove(d, kept) : r;
}

static int make_switch(struct change *change, const struct snapshot *snapshot, const struct guid *kept, bool keep,
		       struct ploop_error *err)
{
	const struct guid to = snapshot->guid; /* edits move the structs */
	_free_ char *delta = change_new_name(change), *old = strdup(descriptor_top(change->descriptor)->file);
	const char *files[] = { delta, old };
	_cleanup_(cleanup_stack) struct stack *stack = NULL, *top = NULL;
	struct geometry geometry, ignored;
	int r;

	if (!delta || !old)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	r = change_look(change, snapshot, &geometry, &stack, err);
	if (r == 0) /* nobody else may write to what is thrown away */
		r = change_look(change, descriptor_top(change->descriptor), &ignored, &top, err);
	if (r == 0)
		r = change_journal(change, "snapshot-switch", files, 2, err);
	if (r == 0)
		r = change_new_delta(change->dir, delta, &geometry, err);
	if (r == 0)
		r = edit_failed(change, edit_switch(change, &to, delta, kept, keep), err);
	if (r == 0)
		r = change_commit(change, err);
	/* What the original noted of the file system when it was unmounted, see mount.c. */
	if (r == 0)
		(void)dir_unlink(change->dir, ".statfs");
	return r;
}

int ploop_snapshot_switch(const char *disk, const char *uuid, unsigned flags, char ret_kept[PLOOP_UUID],
			  struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	bool keep = flags & PLOOP_SNAPSHOT_KEEP_TOP;
	const struct snapshot *to;
	struct guid kept;
	int r = change_begin(&change, disk, err);

	if (r == 0)
		r = change_find(&change, uuid, &to, err);
	if (r == -ENOENT && err)
		err->status = PLOOP_EXIT_PARAM; /* as the original has it */
	if (r == 0)
		r = check_switch(&change, to, err);
	if (r < 0)
		return r;
	guid_generate(&kept);
	r = make_switch(&change, to, &kept, keep, err);
	if (r < 0)
		return r;
	(void)dir_unlink(change.dir, ".statfs"); /* the original's cache of how full the disk was */
	if (keep)
		log_write(LOG_LEVEL_RESULT, "What was the top is the snapshot %s now", kept.text);
	if (keep && ret_kept)
		memcpy(ret_kept, kept.text, PLOOP_UUID);
	log_write(LOG_LEVEL_RESULT, "ploop snapshot has been successfully switched");
	return 0;
}

/* ---- Delete ---- */

static int check_delete(const struct change *change, const struct snapshot *snapshot, struct ploop_error *err)
{
	bool top = guid_equal(&snapshot->guid, &change->descriptor->top);
	char users[256];
	bool used = users_of(change, snapshot, users, sizeof(users));

	if (top && used)
		return error_set(err, -EBUSY, PLOOP_EXIT_PARAM, "Unable to delete active snapshot %s",
				 snapshot->guid.text);
	if (used)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Snapshot %s is busy by device(s): %s",
				 snapshot->guid.text, users);
	if (tree_is_base(snapshot))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unable to delete base image");
	return 0;
}

/* Of the top: its parent becomes what is written. That would be the end of the parent's other children. */
static int check_new_top(const struct change *change, const struct snapshot *parent, struct ploop_error *err)
{
	char users[256];

	if (!parent)
		return error_set(err, -ENOENT, PLOOP_EXIT_DISKDESCR, "%s: the parent of the top is missing",
				 change->path);
	if (parent->temporary != SNAPSHOT_KEPT)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unable to delete the top: its parent %s is temporary",
				 parent->guid.text);
	if (parent->children > 1)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Unable to delete the top: its parent %s has %u children, which writing to it would "
				 "break; switch to a snapshot instead",
				 parent->guid.text, parent->children);
	if (users_of(change, parent, users, sizeof(users)))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Snapshot %s is busy by device(s): %s",
				 parent->guid.text, users);
	return 0;
}

static int edit_delete(struct change *change, const struct guid *guid, const struct guid *parent)
{
	struct descriptor *d = change->descriptor;
	struct guid top;
	int r;

	if (!guid_equal(guid, &d->top))
		return descriptor_remove(d, guid);
	top = d->top;
	r = descriptor_set_top(d, parent);
	if (r == 0)
		r = descriptor_remove(d, &top);
	return r == 0 ? descriptor_rename(d, parent, &top) : r;
}

/* Keeps writers that we do not know of away meanwhile. A file that is broken or missing can be deleted all the same. */
static int lock_leaf(struct change *change, const struct snapshot *snapshot, struct stack **ret,
		     struct ploop_error *err)
{
	struct geometry geometry;
	int r = change_look(change, snapshot, &geometry, ret, err);

	return r == -EBUSY || r == -ENOMEM ? r : 0;
}

static int delete_leaf(struct change *change, const struct snapshot *snapshot, struct ploop_error *err)
{
	const struct snapshot *parent = tree_parent(change->descriptor, snapshot);
	_free_ char *file = snapshot->file ? strdup(snapshot->file) : NULL;
	const char *files[] = { file };
	_cleanup_(cleanup_stack) struct stack *stack = NULL;
	struct guid guid = snapshot->guid, up;
	int r = 0;

	guid_parse(GUID_NONE, &up);
	if (parent)
		up = parent->guid;
	if (!file)
		return error_set(err, -ENOENT, PLOOP_EXIT_DISKDESCR, "%s: snapshot %s has no image", change->path,
				 guid.text);
	if (guid_equal(&guid, &change->descriptor->top))
		r = check_new_top(change, parent, err);
	if (r == 0)
		r = lock_leaf(change, snapshot, &stack, err);
	if (r == 0)
		r = change_journal(change, "snapshot-delete", files, 1, err);
	if (r == 0)
		r = edit_failed(change, edit_delete(change, &guid, &up), err);
	if (r == 0)
		r = change_commit(change, err);
	if (r == 0 && strchr(file, '/'))
		log_warning("%s is not needed any more; it lies outside the folder of %s and stays", file,
			    change->path);
	return r;
}

/* What the original does with every snapshot that has several children: it goes when it has one. */
static int mark_temporary(struct change *change, const struct snapshot *snapshot, const char *why,
			  struct ploop_error *err)
{
	int r;

	log_warning(
		"Unable to delete snapshot %s as there are %u references to it; marking it as temporary instead (%s)",
		snapshot->guid.text, snapshot->children, why);
	if (snapshot->temporary != SNAPSHOT_KEPT)
		return 0;
	r = descriptor_set_temporary(change->descriptor, &snapshot->guid, SNAPSHOT_TEMPORARY);
	r = edit_failed(change, r, err);
	return r < 0 ? r : change_commit(change, err);
}

static int delete_without_children(struct change *change, const struct snapshot *snapshot, struct ploop_error *err)
{
	char uuid[PLOOP_UUID];
	int r;

	memcpy(uuid, snapshot->guid.text, sizeof(uuid));
	r = check_delete(change, snapshot, err);
	if (r == 0)
		r = delete_leaf(change, snapshot, err);
	if (r == 0)
		log_write(LOG_LEVEL_RESULT, "ploop snapshot %s has been successfully deleted", uuid);
	return r;
}

/* A child takes its place: the two are merged, and others get what they need. That takes the disk's lock itself. */
static int delete_inner(struct change *change, const struct snapshot *snapshot, struct ploop_error *err)
{
	struct ploop_error why;
	const struct snapshot *heir = branch_heir(change, snapshot, &why);
	_free_ char *disk = strdup(change->path);
	struct ploop_snapshot_merge merge = { .disk = disk };
	struct guid uuid;

	if (!heir)
		return mark_temporary(change, snapshot, why.text, err);
	uuid = heir->guid;
	merge.uuid = uuid.text;
	change_end(change);
	if (!disk)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "snapshot-delete");
	return ploop_snapshot_merge(&merge, err);
}

int delete_one(const char *disk, const char *uuid, struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	const struct snapshot *snapshot;
	int r = change_begin(&change, disk, err);

	if (r == 0)
		r = change_find(&change, uuid, &snapshot, err);
	if (r == 0)
		r = change_check_format(&change, err);
	if (r < 0)
		return r;
	return snapshot->children ? delete_inner(&change, snapshot, err)
				  : delete_without_children(&change, snapshot, err);
}

int ploop_snapshot_delete(const char *disk, const char *uuid, struct ploop_error *err)
{
	int r = delete_one(disk, uuid, err);

	if (r == 0)
		tidy_disk(disk);
	return r;
}

/* ---- Temporary ---- */

/* It is owned from before it is taken until its device lives, so that nobody merges it in between. */
int ploop_snapshot_hold(const char *disk, const char *uuid, int *ret_fd, struct ploop_error *err)
{
	_free_ char *path = NULL;
	struct guid guid;
	int r;

	if (!guid_parse(uuid, &guid))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", uuid);
	r = descriptor_find_file(disk, &path, err);
	if (r == 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is no DiskDescriptor.xml", disk);
	return r < 0 ? r : lock_owner(path, guid_hash(&guid), ret_fd, err);
}

static int take_and_mount(const char *uuid, const struct ploop_mount *what, struct ploop_mounted *ret,
			  struct ploop_error *err)
{
	struct ploop_mount mount = *what;
	char taken[PLOOP_UUID];
	int r = ploop_snapshot(what->operands[0], uuid, PLOOP_SNAPSHOT_TEMPORARY, taken, err);

	if (r < 0)
		return r;
	mount.snapshot = taken;
	mount.read_only = true;
	r = ploop_mount(&mount, ret, err);
	if (r < 0 && delete_one(what->operands[0], taken, NULL) < 0)
		log_warning("temporary snapshot %s was taken and is not mounted: snapshot-delete takes it away", taken);
	return r;
}

int ploop_snapshot_mount(const char *uuid, const struct ploop_mount *what, struct ploop_mounted *ret,
			 struct ploop_error *err)
{
	_close_ int owner = -EBADF;
	struct guid guid;
	int r;

	if (!what->component || what->noperands != 1)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "a temporary snapshot needs one descriptor, and a component that owns it");
	if (!uuid) {
		guid_generate(&guid);
		uuid = guid.text;
	}
	r = ploop_snapshot_hold(what->operands[0], uuid, &owner, err);
	return r < 0 ? r : take_and_mount(uuid, what, ret, err);
}
