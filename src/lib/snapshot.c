/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * snapshot.c - the disk as it is gets a name, and what is written from now on goes to a new delta.
 *
 * Between 2 and 3 the device settles (device_settle()): that may take a while, in which nothing stands still, and the old top is an
 * ordinary image when the descriptor names another one above it. From then until 4 small writes over lower levels are slow, so that
 * little is left to do.
 *
 * Order of writes, of a disk with a descriptor:
 *  1. The journal names the new delta, durably, before the delta is made.
 *  2. The delta is made, empty, complete and durable, its name too.
 *  3. The descriptor names it as the top, durably. Nothing is lost or changed by a crash here or later: what is empty
 *     shows what lies below.
 *  4. The file systems on the device stand still; the device takes the delta as its top (device/push.c, which first makes
 *     all that was written before durable in the old top); they go on.
 *  5. The journal goes.
 * So no byte is ever written to a file that the descriptor does not know. When 4 is refused the old descriptor comes back
 * before the delta goes. When whoever does this dies after 3, the device is one delta behind the descriptor: the next
 * change of the disk sees it and lets the device catch up (change.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/journal.h"
#include "image/stack.h"
#include "image/tree.h"
#include "lib/change.h"
#include "lib/freeze.h"
#include "lib/settle.h"
#include "lib/tidy.h"

#define SNAPSHOT_MAX_IMAGES 126 /* a chain of more gets no snapshot: the limit of the original */

/* A snapshot that is being taken. */
struct taking {
	struct change *change;
	struct guid guid;  /* of the snapshot */
	const char *delta; /* the new file, in the descriptor's folder */
	const char *shown; /* its name as the user gave it; NULL: he did not */
	unsigned flags;    /* enum ploop_snapshot_flags */
};

static int choose_guid(const char *uuid, struct guid *ret, struct ploop_error *err)
{
	if (!uuid) {
		guid_generate(ret);
		return 0;
	}
	if (!guid_parse(uuid, ret))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", uuid);
	if (guid_is_top(ret) || guid_is_none(ret))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect guid %s", uuid);
	return 0;
}

static int check_descriptor(const struct taking *taking, struct ploop_error *err)
{
	const struct descriptor *d = taking->change->descriptor;
	const struct snapshot *chain[TREE_MAX_DEPTH];
	int n = tree_chain(d, descriptor_top(d), chain, err);

	if (n < 0)
		return n;
	if (descriptor_find(d, &taking->guid))
		return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "The snapshot %s already exist", taking->guid.text);
	if (n > SNAPSHOT_MAX_IMAGES)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM,
				 "Unable to create a snapshot. The maximum number of snapshots (%d) has been reached",
				 n - 1);
	return change_check_format(taking->change, err);
}

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

static int edit(struct taking *taking, struct ploop_error *err)
{
	struct descriptor *d = taking->change->descriptor;
	struct guid top;
	int r;

	guid_parse(GUID_TOP, &top);
	r = descriptor_rename(d, &d->top, &taking->guid);
	if (r == 0)
		r = descriptor_add(d, &top, &taking->guid, taking->delta);
	if (r == 0)
		r = descriptor_set_top(d, &top);
	if (r == 0 && taking->flags & PLOOP_SNAPSHOT_TEMPORARY)
		r = descriptor_set_temporary(d, &taking->guid, SNAPSHOT_TEMPORARY);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot name %s", d->path, taking->delta) : 0;
}

/* Steps 1 and 2. */
static int make_delta(struct taking *taking, const struct geometry *top, struct ploop_error *err)
{
	struct change *change = taking->change;
	int r;

	/* First, so that no file of another is taken for ours, and removed. */
	if (dir_exists(change->dir, taking->delta))
		return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "Can't create %s/%s: File exists", change->dir->path,
				 taking->delta);
	r = change_journal(change, "snapshot", &taking->delta, 1, err);
	return r < 0 ? r : change_new_delta(change->dir, taking->delta, top, err);
}

/* Step 3. */
static int name_delta(struct taking *taking, struct ploop_error *err)
{
	int r = edit(taking, err);

	return r < 0 ? r : change_commit(taking->change, err);
}

/* A delta ends with a cluster; only a raw base may end anywhere. `what` is how `ploop grow` is told the disk. */
static int check_end(const struct geometry *top, const char *option, const char *what, struct ploop_error *err)
{
	uint64_t end = round_up(top->size, top->cluster);

	if (end == top->size)
		return 0;
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			 "the base is %llu sectors long, and a delta has whole clusters of %u: grow the base first, by "
			 "`ploop grow -s %llu %s%s`",
			 (unsigned long long)(top->size / SECTOR), top->cluster / SECTOR,
			 (unsigned long long)(end / SECTOR), option, what);
}

/* Step 4, with or without a file system to freeze. */
static int switch_top(const struct ploop_device *device, const char *image, const char *folder, bool freezing,
		      const char *shown, struct ploop_error *err)
{
	struct freeze *freeze = NULL;
	int r = freezing ? freeze_start(device, folder, &freeze, err) : 0;

	if (r < 0)
		return r;
	log_write(LOG_LEVEL_RESULT, "Creating snapshot dev=%s img=%s", device->device, shown ? shown : image);
	r = push_delta(device, image, err);
	if (freeze_end(freeze) == -ETIMEDOUT && r == 0)
		log_warning("%s: its file system was thawed before the snapshot was taken, as that took too long; it is as "
			    "after a crash in the snapshot",
			    device->device);
	return r;
}

static int take_online(struct taking *taking, struct ploop_error *err)
{
	struct change *change = taking->change;
	_free_ char *image = dir_path(change->dir, taking->delta);
	struct geometry top;
	int r;

	if (!image)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", taking->delta);
	r = push_check(change->writer, err);
	if (r == 0)
		r = change_look(change, descriptor_top(change->descriptor), &top, NULL, err);
	if (r == 0)
		r = check_end(&top, "", change->path, err);
	if (r == 0)
		r = make_delta(taking, &top, err);
	if (r == 0)
		r = settle_device(change->writer->name, err);
	if (r == 0)
		r = name_delta(taking, err);
	if (r < 0)
		return r;
	r = switch_top(change->writer, image, change->dir->path, !(taking->flags & PLOOP_SNAPSHOT_NO_FREEZE),
		       taking->shown, err);
	/* When nobody knows, it stays: the delta may be the top already, and hold what was written since. */
	if (r == -EINPROGRESS)
		error_prefix(err, r, "%s names the snapshot %s, but nobody knows whether its device does", change->path,
			     taking->guid.text);
	else if (r < 0)
		change_undo(change);
	return r;
}

/* The files are locked meanwhile, so that nobody begins to write to what shall be the old top. */
static int take_offline(struct taking *taking, struct ploop_error *err)
{
	struct change *change = taking->change;
	const struct snapshot *top = descriptor_top(change->descriptor);
	_cleanup_(cleanup_stack) struct stack *stack = NULL;
	struct geometry geometry;
	int r = change_look(change, top, &geometry, &stack, err);

	if (r == 0 && geometry.state == FORMAT_IN_USE) {
		stack_close(take_ptr(stack));
		log_info("%s was not closed properly: its top is recovered first", change->path);
		r = change_recover_top(change, err);
		if (r == 0)
			r = change_look(change, top, &geometry, &stack, err);
	}
	if (r == 0)
		r = check_end(&geometry, "", change->path, err);
	if (r == 0)
		r = make_delta(taking, &geometry, err);
	return r < 0 ? r : name_delta(taking, err);
}

static int take(struct taking *taking, struct ploop_error *err)
{
	int r = check_descriptor(taking, err);

	if (r < 0)
		return r;
	return taking->change->writer ? take_online(taking, err) : take_offline(taking, err);
}

int ploop_snapshot(const char *disk, const char *uuid, unsigned flags, char ret_uuid[PLOOP_UUID], struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	struct taking taking = { .change = &change, .flags = flags };
	_free_ char *delta = NULL;
	int r = choose_guid(uuid, &taking.guid, err);

	if (r == 0)
		tidy_disk(disk);
	if (r == 0)
		r = change_begin(&change, disk, err);
	if (r < 0)
		return r;
	delta = change_new_name(&change);
	if (!delta)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", disk);
	taking.delta = delta;
	r = take(&taking, err);
	if (r < 0)
		return r;
	if (ret_uuid)
		memcpy(ret_uuid, taking.guid.text, PLOOP_UUID);
	log_write(LOG_LEVEL_RESULT, "ploop %s %s has been successfully created",
		  flags & PLOOP_SNAPSHOT_TEMPORARY ? "temporary snapshot" : "snapshot", taking.guid.text);
	return 0;
}

/* ---- By device and file name ---- */

/* Does a descriptor in the folder of the top, or the one that the device was opened by, name the top? */
static int find_descriptor(const struct ploop_device *device, char **ret, struct ploop_error *err)
{
	const char *top = device->images[device->nimages - 1];
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *path = NULL;
	int r;

	*ret = NULL;
	if (device->descriptor)
		path = strdup(device->descriptor);
	else if (asprintf(&path, "%.*s/" DESCRIPTOR_NAME, (int)(strrchr(top, '/') - top), top) < 0)
		path = NULL;
	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", top);
	if (!device->descriptor && access(path, F_OK) < 0 && errno == ENOENT)
		return 0;
	r = descriptor_open(path, &d, err);
	if (r < 0)
		return error_prefix(err, r, "what becomes of the descriptor beside %s cannot be told", top);
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		_free_ char *file = d->snapshots[i].file ? descriptor_file(d, &d->snapshots[i]) : NULL;

		if (file && change_same_file(file, top)) {
			*ret = take_ptr(path);
			return 0;
		}
	}
	return 0;
}

/* The descriptor beside the image learns of the new delta, as if it had been asked. */
static int take_in_step(const struct ploop_device *device, const char *descriptor, struct dir *folder, const char *name,
			const char *shown, unsigned flags, struct ploop_error *err)
{
	_change_end_ struct change change = { .lock = -EBADF };
	struct taking taking = { .change = &change, .delta = name, .shown = shown, .flags = flags };
	int r;

	guid_generate(&taking.guid);
	r = change_begin(&change, descriptor, err);
	if (r < 0)
		return r;
	if (!change.writer || strcmp(change.writer->name, device->name))
		return error_set(err, -EUCLEAN, PLOOP_EXIT_DISKDESCR,
				 "%s does not write to the top that %s names; use the descriptor, or move it away",
				 device->device, descriptor);
	if (!change_same_file(folder->path, change.dir->path))
		return error_set(err, -EXDEV, PLOOP_EXIT_PARAM,
				 "%s describes the disk, so the delta must lie beside it, in %s", descriptor,
				 change.dir->path);
	return take(&taking, err);
}

/* The version of the image that the device writes to; a raw one has none, and any will do. */
static uint32_t version_of(const char *image)
{
	const struct stack_request request = {
		.operands = &image, .noperands = 1, .read_only = true, .unlocked = true, .outside = true
	};
	struct stack *stack;
	uint32_t version;

	if (stack_open(NULL, &request, &stack, NULL) < 0)
		return 0;
	version = stack->levels[0].geometry.version;
	stack_close(stack);
	return version;
}

/* No descriptor knows of the disk: a file, and the device. */
static int take_alone(const struct ploop_device *device, struct dir *folder, const char *name, bool freezing,
		      const char *shown, struct ploop_error *err)
{
	const struct geometry like = {
		.version = version_of(device->images[device->nimages - 1]),
		.size = device->size,
		.cluster = device->cluster,
	};
	_free_ char *image = dir_path(folder, name);
	int r;

	if (!image)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	r = check_end(&like, "-d ", device->device, err);
	if (r == 0)
		r = push_check(device, err);
	if (r == 0)
		r = settle_device(device->name, err);
	if (r == 0)
		r = change_new_delta(folder, name, &like, err);
	if (r < 0)
		return r;
	r = switch_top(device, image, folder->path, freezing, shown, err);
	if (r < 0 && r != -EINPROGRESS && dir_unlink(folder, name) == 0)
		(void)dir_sync(folder);
	return r;
}

/* A delta on the device's own file system could never be written: the device would wait for itself. */
static int check_folder(const struct ploop_device *device, const struct dir *folder, struct ploop_error *err)
{
	for (size_t i = 0; i < device->nmounts; i++) {
		struct stat mounted, st;

		if (stat(device->mounts[i], &mounted) == 0 && stat(folder->path, &st) == 0 &&
		    mounted.st_dev == st.st_dev)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s lies on %s itself, which is mounted at %s; the delta must lie elsewhere",
					 folder->path, device->device, device->mounts[i]);
	}
	return 0;
}

static int take_of_device(const struct ploop_device *device, const char *delta, unsigned flags, struct ploop_error *err)
{
	_dir_close_ struct dir *folder = NULL;
	_free_ char *descriptor = NULL;
	const char *name;
	int r;

	if (!device->alive || !device->nimages)
		return error_set(err, -ENODEV, PLOOP_EXIT_DEVICE, "%s is dead; clear it with `ploop umount -d %s`",
				 device->device, device->device);
	if (device->read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_DEVIOC, "%s is read-only: nothing can be written above it",
				 device->device);
	r = dir_open_parent(NULL, delta, &folder, &name, err);
	if (r == 0)
		r = check_folder(device, folder, err);
	if (r == 0)
		r = find_descriptor(device, &descriptor, err);
	if (r < 0)
		return r;
	return descriptor ? take_in_step(device, descriptor, folder, name, delta, flags, err)
			  : take_alone(device, folder, name, !(flags & PLOOP_SNAPSHOT_NO_FREEZE), delta, err);
}

int ploop_snapshot_device(const char *device, const char *delta, unsigned flags, struct ploop_error *err)
{
	const struct ploop_which which = { .device = device };
	struct ploop_device found;
	int r = ploop_find(&which, &found, err);

	if (r < 0)
		return r;
	r = take_of_device(&found, delta, flags, err);
	ploop_device_clear(&found);
	return r;
}
