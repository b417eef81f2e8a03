/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * replace.c - an image of a disk gives way to another one that holds the same.
 *
 * Both files are complete and durable before anything changes, and neither changes. What changes is one name, in one step: the new
 * file gets the name of the old one, or a descriptor that names the new file takes the place of the old one. So there is nothing to
 * undo or to finish after a crash, wherever it comes.
 *
 * Order:
 *  1. Both images are opened and locked against writers, checked and compared. That may take long: no lock of the disk meanwhile.
 *  2. The new file is durable, its name included.
 *  3. Without -k: the journal names the new descriptor's temporary file, which is then written.
 *  4. The name changes: by ourselves, or by the device that uses the image, when it does (daemon/replace.c).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"
#include "image/dir.h"
#include "image/tree.h"
#include "io/io.h"
#include "io/loop.h"
#include "lib/beside.h"
#include "lib/change.h"
#include "lib/device-find.h"
#include "lib/merge-names.h"
#include "lib/recover.h"
#include "lib/replace-private.h"

#define NEW_DESCRIPTOR ".replace"

struct replace {
	const struct ploop_replace *what;
	struct loop *loop;
	struct ploop_device found; /* the device that was asked for by name */
	struct change change;
	bool named; /* a descriptor names the image: `change` has its lock, `guid` is the snapshot */
	struct guid guid;
	char *old, *image; /* absolute paths */
	unsigned level;    /* of the device */
	bool base, raw;
	struct replace_image images[2]; /* the old one and the new one */
};

static void cleanup_replace(struct replace *replace)
{
	replace_image_close(&replace->images[0]);
	replace_image_close(&replace->images[1]);
	change_end(&replace->change);
	ploop_device_clear(&replace->found);
	if (replace->loop)
		loop_free(replace->loop);
	free(replace->old);
	free(replace->image);
}

static bool is_raw(const char *format)
{
	return format && !strcmp(format, "raw");
}

static const char *disk_name(const struct replace *replace)
{
	return replace->named ? replace->change.path : replace->found.device;
}

static int bad_level(unsigned level, size_t nlevels, struct ploop_error *err)
{
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Invalid level %u specified, allowed values are 0 to %zu",
			 level, nlevels - 1);
}

static int not_there(const struct replace *replace, struct ploop_error *err)
{
	return error_set(err, -ENOENT, PLOOP_EXIT_PARAM, "Can't find image %s: it is none of %s",
			 replace->what->current, disk_name(replace));
}

/* The level of a device that has this file; nimages when none has. */
static unsigned find_level(const struct ploop_device *device, const char *file)
{
	unsigned level = 0;

	while (level < device->nimages && !change_same_file(device->images[level], file))
		level++;
	return level;
}

/* ---- Which image ---- */

static int choose_on_device(struct replace *replace, const struct ploop_device *device, struct ploop_error *err)
{
	const struct ploop_replace *what = replace->what;
	unsigned level = what->level;

	if (what->current)
		level = find_level(device, what->current);
	if (level >= device->nimages)
		return what->current ? not_there(replace, err) : bad_level(level, device->nimages, err);
	replace->old = strdup(device->images[level]);
	return replace->old ? 0 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
}

/* Of a disk that is not said to be on a device. */
static int choose_in_descriptor(struct replace *replace, struct ploop_error *err)
{
	const struct ploop_replace *what = replace->what;
	const struct change *change = &replace->change;
	const struct snapshot *snapshot = NULL;
	int r = 0;

	if (what->uuid)
		r = change_find(change, what->uuid, &snapshot, err);
	else if (what->current && !(snapshot = beside_snapshot(change->descriptor, what->current)))
		r = not_there(replace, err);
	else if (!what->current && !change->writer)
		r = error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			      "Can't specify level for offline replace; name the image by -u or -o");
	if (r < 0)
		return r;
	if (!snapshot)
		return choose_on_device(replace, change->writer, err);
	replace->old = descriptor_file(change->descriptor, snapshot);
	return replace->old ? 0 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
}

static int find_device(struct replace *replace, char **ret_descriptor, struct ploop_error *err)
{
	const struct ploop_which *which = &replace->what->which;
	int r = ploop_find(which, &replace->found, err);

	if (r < 0)
		return r;
	if (!replace->found.alive || !replace->found.nimages)
		return error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`",
				 replace->found.device, replace->found.device);
	merge_names_find(replace->found.descriptor, replace->found.images[0], ret_descriptor);
	return 0;
}

/* The snapshot that the descriptor knows the image as. */
static int find_snapshot(struct replace *replace, struct ploop_error *err)
{
	const struct snapshot *snapshot = beside_snapshot(replace->change.descriptor, replace->old);

	if (!snapshot)
		return error_set(err, -ENOENT, PLOOP_EXIT_PARAM, "%s is none of the images of %s", replace->old,
				 replace->change.path);
	replace->guid = snapshot->guid;
	replace->base = !tree_parent(replace->change.descriptor, snapshot);
	replace->raw = descriptor_raw(snapshot);
	return 0;
}

static int choose(struct replace *replace, struct ploop_error *err)
{
	const struct ploop_which *which = &replace->what->which;
	_free_ char *descriptor = NULL;
	int r = which->device || which->target ? find_device(replace, &descriptor, err) : 0;

	if (r < 0)
		return r;
	if (which->image || descriptor) {
		r = change_begin(&replace->change, which->image ? which->image : descriptor, err);
		replace->named = r == 0;
	}
	if (r < 0)
		return r;
	r = replace->found.nimages ? choose_on_device(replace, &replace->found, err)
				   : choose_in_descriptor(replace, err);
	if (r == 0 && replace->named)
		return find_snapshot(replace, err);
	replace->base = r == 0 && find_level(&replace->found, replace->old) == 0;
	replace->raw = is_raw(replace->what->format);
	return r;
}

/* ---- Who uses it ---- */

/* The one device that uses the image, as it is now; NULL: nobody does. */
static int find_user(struct replace *replace, const struct ploop_device **ret, struct ploop_error *err)
{
	const struct ploop_device *user = NULL;
	int r = replace->named ? 0 : change_list_devices(&replace->change, err);

	*ret = NULL;
	if (r < 0)
		return r;
	for (size_t i = 0; i < replace->change.ndevices; i++) {
		const struct ploop_device *device = &replace->change.devices[i];
		unsigned level = find_level(device, replace->old);

		if (level == device->nimages)
			continue;
		if (user)
			return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
					 "%s is used by %s and by %s; unmount one of them", replace->old, user->device,
					 device->device);
		user = device;
		replace->level = level;
	}
	if (user && !user->read_only && replace->level + 1 == user->nimages)
		return error_set(
			err, -EBUSY, PLOOP_EXIT_PARAM,
			"%s is the top of %s, which writes to it: only what lies below can be replaced while the "
			"disk is mounted",
			replace->old, user->device);
	*ret = user;
	return 0;
}

/* ---- Are they the same ---- */

static int check_new(const struct replace *replace, struct ploop_error *err)
{
	const struct ploop_check_options options = { .read_only = true };
	enum ploop_exit status = PLOOP_EXIT_OK;
	int r = replace->raw ? 0 : ploop_check(replace->image, &options, &status, err);

	/* PLOOP_EXIT_WRITE: it is only untidy. */
	if (r == 0 && status != PLOOP_EXIT_OK && status != PLOOP_EXIT_WRITE)
		r = error_set(err, -EUCLEAN, status, "%s is not sound; `ploop check %s` tells why", replace->image,
			      replace->image);
	return r;
}

static int check_names(const struct replace *replace, struct ploop_error *err)
{
	const struct ploop_replace *what = replace->what;
	struct stat old, new;

	if (what->format && is_raw(what->format) != replace->raw)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Images %s and %s are not identical: %s is %s",
				 replace->old, replace->image, replace->old, replace->raw ? "raw" : "not raw");
	if (stat(replace->old, &old) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", replace->old);
	if (stat(replace->image, &new) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", replace->image);
	if (old.st_dev == new.st_dev && old.st_ino == new.st_ino)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is the image itself", replace->image);
	if (what->keep_name && old.st_dev != new.st_dev)
		return error_set(err, -EXDEV, PLOOP_EXIT_RENAME,
				 "%s cannot get the name %s: they are on two file systems; copy it there first",
				 replace->image, replace->old);
	if (replace->named && beside_snapshot(replace->change.descriptor, replace->image))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is an image of the disk already", replace->image);
	return 0;
}

/* A descriptor names only what lies beneath its folder. */
static int check_place(const struct replace *replace, struct ploop_error *err)
{
	const char *path = replace->change.path;
	size_t folder = (size_t)(strrchr(path, '/') - path) + 1;

	if (!replace->named || replace->what->keep_name || !strncmp(path, replace->image, folder))
		return 0;
	return error_set(err, -EXDEV, PLOOP_EXIT_PARAM, "%s is not in the folder of %s; move it there first",
			 replace->image, path);
}

static int open_both(struct replace *replace, struct ploop_error *err)
{
	uint32_t cluster = !replace->raw    ? 0
			   : replace->named ? replace->change.descriptor->cluster
					    : replace->found.cluster;
	int r = replace_image_open(replace->loop, replace->old, cluster, &replace->images[0], err);

	return r < 0 ? r : replace_image_open(replace->loop, replace->image, cluster, &replace->images[1], err);
}

/* A disk that was not closed is brought in order first. */
static int recover(const struct replace *replace, struct ploop_error *err)
{
	const struct descriptor *d = replace->change.descriptor;
	const struct snapshot *snapshot = descriptor_find(d, &replace->guid);

	if (!recover_is_needed(d, snapshot, true))
		return 0;
	log_info("%s was not closed: its images are completed first", d->path);
	return recover_images(d->path, d, snapshot, true, err);
}

static int compare(struct replace *replace, struct ploop_error *err)
{
	int r = open_both(replace, err);

	if (r == 0)
		r = check_new(replace, err);
	if (r < 0)
		return r;
	if (!replace->what->no_compare)
		log_info("Comparing %s and %s", replace->old, replace->image);
	if (replace->named)
		change_pause(&replace->change);
	r = replace_compare(replace->loop, &replace->images[0], &replace->images[1], replace->base, replace->what, err);
	if (r == 0 && replace->named)
		r = change_resume(&replace->change, err);
	if (r == 0 && replace->named && !beside_snapshot(replace->change.descriptor, replace->old))
		r = error_set(err, -ESTALE, PLOOP_EXIT_BUSY, "%s has changed meanwhile; try again",
			      replace->change.path);
	return r;
}

/* ---- The change ---- */

static int make_durable(const struct replace *replace, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	const char *name;
	int r = io_sync(replace->images[1].delta.file);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_FSYNC, "%s", replace->image);
	r = dir_open_parent(NULL, replace->image, &dir, &name, err);
	if (r == 0 && (r = dir_sync(dir)) < 0)
		error_sys(err, r, PLOOP_EXIT_FSYNC, "%s", dir->path);
	return r;
}

/* The descriptor as it will be, in a file beside it. *ret: its path; the caller frees. */
static int stage_descriptor(struct replace *replace, char **ret, struct ploop_error *err)
{
	struct change *change = &replace->change;
	_free_ char *name = NULL, *path = NULL;
	const char *files[1];
	int r;

	if (asprintf(&name, "%s" NEW_DESCRIPTOR, change->name) < 0 || !(path = dir_path(change->dir, name)))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	files[0] = name;
	r = descriptor_set_file(change->descriptor, &replace->guid, replace->image);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path);
	r = change_journal(change, "replace", files, 1, err);
	if (r == 0)
		r = descriptor_stage(change->descriptor, change->dir, change->name, name, err);
	if (r == 0)
		*ret = take_ptr(path);
	return r;
}

/* What gets which name, if something does. */
static int choose_rename(struct replace *replace, char **ret_from, char **ret_to, struct ploop_error *err)
{
	if (!replace->what->keep_name && !replace->named)
		return 0;
	*ret_to = strdup(replace->what->keep_name ? replace->old : replace->change.path);
	if (replace->what->keep_name)
		*ret_from = strdup(replace->image);
	if (!*ret_to || (replace->what->keep_name && !*ret_from))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", replace->image);
	return replace->what->keep_name ? 0 : stage_descriptor(replace, ret_from, err);
}

static int ask_device(const struct replace *replace, const struct ploop_device *device, const char *from,
		      const char *to, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();

	if (!arguments)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	message_add_number(arguments, "level", replace->level);
	message_add_text(arguments, "old", device->images[replace->level]);
	message_add_text(arguments, "image", replace->image);
	message_add_text(arguments, "from", from);
	message_add_text(arguments, "to", to);
	return control_ask(device->name, "replace", arguments, NULL, err);
}

static int rename_durably(const char *from, const char *to, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	const char *name;
	int r = dir_open_parent(NULL, to, &dir, &name, err);

	if (r < 0)
		return r;
	r = dir_rename(dir, from, name);
	if (r == 0)
		r = dir_sync(dir);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_RENAME, "%s cannot get the name %s", from, to) : 0;
}

static int turn(struct replace *replace, struct ploop_error *err)
{
	const struct ploop_device *device;
	_free_ char *from = NULL, *to = NULL;
	int r = find_user(replace, &device, err);

	if (r == 0)
		r = make_durable(replace, err);
	if (r == 0)
		r = choose_rename(replace, &from, &to, err);
	if (r < 0)
		return r;
	r = device ? ask_device(replace, device, from, to, err) : rename_durably(from, to, err);
	if (r == 0)
		log_info("%s takes the place of %s", replace->image, replace->old);
	return r;
}

static int run(struct replace *replace, struct ploop_error *err)
{
	const struct ploop_device *device;
	int r = loop_new(NULL, 16, &replace->loop, err);

	if (r == 0)
		r = choose(replace, err);
	if (r == 0)
		r = find_user(replace, &device, err);
	if (r == 0)
		r = check_names(replace, err);
	if (r == 0)
		r = check_place(replace, err);
	if (r == 0 && !device)
		r = recover(replace, err);
	if (r == 0)
		r = compare(replace, err);
	return r < 0 ? r : turn(replace, err);
}

int ploop_replace(const struct ploop_replace *what, struct ploop_error *err)
{
	struct replace replace = { .what = what, .change.lock = -EBADF, .images = { { .lock = -1 }, { .lock = -1 } } };
	int r;

	replace.image = realpath(what->image, NULL);
	if (!replace.image)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", what->image);
	r = run(&replace, err);
	cleanup_replace(&replace);
	return r;
}
