/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert-write.c - see convert.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/dir.h"
#include "image/stack.h"
#include "io/io.h"
#include "job/qcow2.h"
#include "lib/convert.h"

enum rewrite_form convert_form(enum image_mode mode)
{
	static const enum rewrite_form forms[] = { [IMAGE_EXPANDED] = REWRITE_PLOOP1,
						   [IMAGE_PREALLOCATED] = REWRITE_PREALLOCATED,
						   [IMAGE_RAW] = REWRITE_RAW };

	return forms[mode];
}

bool convert_shares(struct dir *dir, const char *file)
{
	struct file_clone_range range = { .src_length = 0 };
	_close_ int from = open(file, O_RDONLY | O_CLOEXEC);
	_close_ int to = open(dir->path, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	range.src_fd = from;
	return from >= 0 && to >= 0 && !ioctl(to, FICLONERANGE, &range);
}

int convert_check_room(struct dir *dir, uint64_t bytes, struct ploop_error *err)
{
	struct statvfs fs;
	uint64_t room;

	if (statvfs(dir->path, &fs) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", dir->path);
	room = (uint64_t)fs.f_bavail * fs.f_frsize;
	if (bytes <= room)
		return 0;
	return error_set(err, -ENOSPC, PLOOP_EXIT_WRITE,
			 "%s: the new image needs %llu MiB, and %llu MiB are free; make room, "
			 "or write it elsewhere with --output",
			 dir->path, (unsigned long long)(bytes >> 20), (unsigned long long)(room >> 20));
}

/* The file, with nothing in it yet, open for writing. */
static int make(const struct convert_write *what, const char *path, struct rewrite *rewrite, struct ploop_error *err)
{
	bool qcow2 = what->form == REWRITE_QCOW2;
	int r;

	if (qcow2) {
		r = qcow2_plan(what->params.size, what->params.cluster, &rewrite->to, err);
		return r < 0 ? r : io_open(what->loop, NULL, path, IO_RDWR | IO_CREATE, &rewrite->file, err);
	}
	r = image_plan(&what->params, &rewrite->to, err);
	if (!r)
		r = image_create(what->loop, what->dir, what->name, &what->params, err);
	return r < 0 ? r : io_open(what->loop, NULL, path, IO_RDWR, &rewrite->file, err);
}

static int verify_qcow2(const struct rewrite *rewrite, const char *path, struct ploop_error *err)
{
	struct delta delta = { .geometry = rewrite->to };
	int r = io_open(rewrite->loop, NULL, path, IO_RDONLY, &delta.file, err);

	if (r < 0)
		return r;
	r = rewrite_verify(rewrite, &delta, err);
	io_close(delta.file);
	return r;
}

static int verify(const struct convert_write *what, const struct rewrite *rewrite, const char *path,
		  struct ploop_error *err)
{
	const struct stack_request request = {
		.operands = &path,
		.noperands = 1,
		.base_format = what->form == REWRITE_RAW ? "raw" : "ploop1",
		.cluster = what->form == REWRITE_RAW ? what->params.cluster : 0,
		.read_only = true,
	};
	struct stack *stack;
	int r;

	if (what->form == REWRITE_QCOW2)
		return verify_qcow2(rewrite, path, err);
	r = stack_open(what->loop, &request, &stack, err);
	if (r < 0)
		return r;
	r = rewrite_verify(rewrite, &stack->levels[0], err);
	stack_close(stack);
	return r;
}

/* Only root can give a file away; anybody else keeps it as his own. */
static int make_alike(const char *path, const struct stat *like, struct ploop_error *err)
{
	if (!like)
		return 0;
	if ((chown(path, like->st_uid, like->st_gid) < 0 && errno != EPERM) || chmod(path, like->st_mode & 07777) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "%s: owner and mode", path);
	return 0;
}

int convert_write(const struct convert_write *what, struct ploop_error *err)
{
	_free_ char *path = dir_path(what->dir, what->name);
	struct rewrite rewrite = {
		.loop = what->loop,
		.levels = what->levels,
		.nlevels = what->nlevels,
		.form = what->form,
		.keep_zeros = what->keep_zeros,
		.backing = what->backing,
		.backing_format = what->backing_format,
		.progress = what->progress,
		.progress_data = what->progress_data,
	};
	int r = path ? make(what, path, &rewrite, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", what->name);

	if (r < 0) /* what was there before is not ours */
		return r;
	r = rewrite_image(&rewrite, err);
	if (!r && !what->no_verify)
		r = verify(what, &rewrite, path, err);
	io_close(rewrite.file);
	if (!r)
		r = make_alike(path, what->like, err);
	if (!r) {
		r = dir_sync(what->dir);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_FSYNC, "%s", what->dir->path);
	}
	if (r < 0)
		dir_unlink(what->dir, what->name);
	return r;
}
