/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-part.c - see copy-part.h. */
#include "lib/copy-part.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/dir.h"

static int take_names(struct copy_part *part, const char *target, struct ploop_error *err)
{
	const char *name;
	int r = dir_open_parent(NULL, target, &part->dir, &name, err);

	if (r < 0)
		return r;
	part->lock = -EBADF;
	part->target = strdup(target);
	part->name = strdup(name);
	if (asprintf(&part->part, "%s%s", name, COPY_PART) < 0)
		part->part = NULL;
	part->path = part->part ? dir_path(part->dir, part->part) : NULL;
	if (!part->target || !part->name || !part->path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", target);
	return 0;
}

int copy_part_open(struct copy_part *part, const char *target, bool resume, struct ploop_error *err)
{
	int r;

	*part = (struct copy_part){ .lock = -EBADF };
	r = take_names(part, target, err);
	if (r == 0 && dir_exists(part->dir, part->name))
		r = error_sys(err, -EEXIST, PLOOP_EXIT_CREAT, "Can't open %s", target);
	if (r == 0 && !resume && dir_exists(part->dir, part->part))
		r = error_set(err, -EEXIST, PLOOP_EXIT_CREAT,
			      "%s is there, of a copy that broke off or is under way: --resume goes on with it, or remove it",
			      part->path);
	if (r < 0)
		copy_part_close(part);
	return r;
}

int copy_part_make_folder(struct copy_part *part, struct ploop_error *err)
{
	part->folder = true;
	if (mkdir(part->path, 0700) < 0 && errno != EEXIST)
		return error_sys(err, -errno, PLOOP_EXIT_MKDIR, "Can't create %s", part->path);
	return 0;
}

int copy_part_lock(struct copy_part *part, struct ploop_error *err)
{
	part->lock = open(part->path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (part->lock < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", part->path);
	if (flock(part->lock, LOCK_EX | LOCK_NB) < 0)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s: another copy writes to it", part->path);
	return 0;
}

int copy_part_publish(struct copy_part *part, struct ploop_error *err)
{
	int r = dir_rename(part->dir, part->part, part->name);

	if (r < 0)
		return error_sys(err, r, r == -EEXIST ? PLOOP_EXIT_CREAT : PLOOP_EXIT_RENAME, "Can't rename %s to %s",
				 part->path, part->target);
	r = dir_sync(part->dir);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_FSYNC, "%s", part->target) : 0;
}

static int remove_file(void *data, const char *name)
{
	struct dir *dir = data;

	if (strcmp(name, ".") && strcmp(name, ".."))
		dir_unlink(dir, name);
	return 0;
}

static int remove_part(const char *path, bool folder)
{
	_dir_close_ struct dir *inside = NULL;

	if (folder && dir_open(NULL, path, &inside, NULL) == 0)
		dir_list(inside, remove_file, inside);
	return (folder ? rmdir(path) : unlink(path)) < 0 && errno != ENOENT ? -errno : 0;
}

void copy_part_remove(struct copy_part *part)
{
	int r = remove_part(part->path, part->folder);

	if (r < 0)
		log_warning("%s: cannot be removed: %s", part->path, strerror(-r));
}

int copy_part_discard(const char *path)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) < 0)
		return -EBUSY;
	return remove_part(path, S_ISDIR(st.st_mode));
}

void copy_part_close(struct copy_part *part)
{
	cleanup_close(&part->lock);
	part->lock = -EBADF;
	dir_close(part->dir);
	part->dir = NULL;
	free(take_ptr(part->target));
	free(take_ptr(part->name));
	free(take_ptr(part->part));
	free(take_ptr(part->path));
}
