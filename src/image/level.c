/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * level.c - see level.h.
 *
 * Order of level_clear_mark(), of an image that a process left which died:
 *  1. What is in the host's cache of the file is durable: the index that is read next is the one that a power cut leaves.
 *  2. What no entry names is cut off the end of the file.
 *  3. The mark goes, durably.
 */
#include "image/level.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/dir.h"
#include "image/extension.h"
#include "io/io.h"

/* The name by which an open file can be opened again. */
static void reopen_name(int fd, char name[32])
{
	snprintf(name, 32, "/proc/self/fd/%d", fd);
}

/* Finds the file and opens it for reading: the descriptor that will hold the lock. */
static int open_lock(const struct level_request *request, const char *path, int *ret, struct ploop_error *err)
{
	_close_
	int place = -EBADF;
	_close_
	int fd = -EBADF;
	struct stat st;
	char name[32];
	int r = request->dir->ops->locate(request->dir, request->name, request->beneath, &place);

	if (r == -EXDEV)
		return r;
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", path);
	if (fstat(place, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", path);
	if (!S_ISREG(st.st_mode))
		return error_set(err, -EINVAL, PLOOP_EXIT_OPEN, "Can't open %s: it is not a regular file", path);
	reopen_name(place, name);
	fd = open(name, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", path);
	*ret = take_fd(&fd);
	return 0;
}

/* Opens the very file that is locked, and gives it its own name for messages. */
static int open_again(const struct level_request *request, int lock, const char *path, struct io_file **ret,
		      struct ploop_error *err)
{
	_free_
	char *copy = strdup(path);
	struct io_file *file;
	char name[32];
	int r;

	if (!copy)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	reopen_name(lock, name);
	r = io_open(request->loop, request->module, name, request->write ? IO_RDWR : IO_RDONLY, &file, NULL);
	if (r == -EROFS || (r == -EACCES && request->write))
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s for writing (-r opens it for reading)", path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", path);
	free(file->path);
	file->path = take_ptr(copy);
	*ret = file;
	return 0;
}

int level_open(const struct level_request *request, struct delta *delta, int *ret_lock, struct ploop_error *err)
{
	_free_
	char *path = dir_path(request->dir, request->name);
	_close_
	int lock = -EBADF;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", request->name);
	if (!request->dir->ops->locate) {
		*ret_lock = -1;
		return io_open(request->loop, request->module, path, request->write ? IO_RDWR : IO_RDONLY, &delta->file,
			       err);
	}
	r = open_lock(request, path, &lock, err);
	if (!r && !request->unlocked)
		r = lock_file(lock, FILE_LOCK_NONE, request->write ? FILE_LOCK_WRITE : FILE_LOCK_READ, path, err);
	if (!r)
		r = open_again(request, lock, path, &delta->file, err);
	if (!r)
		*ret_lock = take_fd(&lock);
	return r;
}

int level_adopt(const struct level_request *request, int lock, const char *path, struct io_file **ret,
		struct ploop_error *err)
{
	int r;

	if (lock < 0)
		return io_open(request->loop, request->module, path, request->write ? IO_RDWR : IO_RDONLY, ret, err);
	/* Whichever of the two it was: what is wanted is held, and what is not is given back. */
	r = lock_file(lock, FILE_LOCK_NONE, request->write ? FILE_LOCK_WRITE : FILE_LOCK_READ, path, err);
	if (r == 0 && !request->write)
		r = lock_file(lock, FILE_LOCK_WRITE, FILE_LOCK_READ, path, err);
	return r < 0 ? r : open_again(request, lock, path, ret, err);
}

int level_parse(struct delta *delta, uint32_t cluster, struct ploop_error *err)
{
	const char *path = delta->file->path;
	_free_
	void *head = calloc(1, FORMAT_HEAD);
	uint64_t size;
	size_t len;
	int r = io_size(delta->file, &size);

	if (!head)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s", path);
	len = min_u64(size, FORMAT_HEAD);
	r = io_pread(delta->file, head, len, 0);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "Can't read %s", path);
	r = delta->format->parse(head, len, size, cluster, &delta->geometry, err);
	return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

/* One sector is replaced: the header and the index entries beside it, which stay as they are. */
static int write_clean(struct io_file *file, const struct delta *delta)
{
	struct geometry g = delta->geometry;
	uint8_t sector[SECTOR];
	int r = io_pread(file, sector, sizeof(sector), 0);

	if (r < 0)
		return r;
	g.state = FORMAT_CLEAN;
	delta->format->build(&g, sector);
	r = io_pwrite(file, sector, sizeof(sector), 0);
	return r < 0 ? r : io_sync(file);
}

static int open_writable(struct loop *loop, const struct delta *delta, int lock, struct io_file **ret)
{
	const struct io_ops *module = loop ? delta->file->ops : NULL;
	char name[32];

	if (lock < 0)
		return io_open(loop, module, delta->file->path, IO_RDWR, ret, NULL);
	reopen_name(lock, name);
	return io_open(loop, module, name, IO_RDWR, ret, NULL);
}

int level_reopen(struct loop *loop, const struct delta *delta, int lock, struct io_file **ret, struct ploop_error *err)
{
	_free_
	char *path = strdup(delta->file->path);
	struct io_file *file;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", delta->file->path);
	r = open_writable(loop, delta, lock, &file);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s for writing", path);
	free(file->path);
	file->path = take_ptr(path);
	*ret = file;
	return 0;
}

int level_clear_mark(struct loop *loop, struct delta *delta, int lock, struct ploop_error *err)
{
	const char *path = delta->file->path;
	struct io_file *file;
	int r = image_settle_extension(delta, err);

	if (r < 0 || delta->geometry.read_only || delta->geometry.partial)
		return r;
	if (lock >= 0 && lock_file(lock, FILE_LOCK_READ, FILE_LOCK_WRITE, path, NULL) < 0) {
		log_info("%s is marked as in use, and others read it: the mark stays", path);
		return 0;
	}
	r = open_writable(loop, delta, lock, &file);
	if (r < 0) {
		log_info("%s is marked as in use and cannot be written (%s): the mark stays", path, strerror(-r));
		r = 0;
	} else {
		r = io_sync(file);
		if (!r)
			r = level_cut_tail(file, delta);
		if (!r)
			r = write_clean(file, delta);
		io_close(file);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_WRITE, "Can't clear the in-use mark of %s", path);
		else
			delta->geometry.state = FORMAT_CLEAN;
	}
	if (lock >= 0)
		lock_file(lock, FILE_LOCK_WRITE, FILE_LOCK_READ, path, NULL);
	return r;
}
