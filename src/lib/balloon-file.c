/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon-file.c - see balloon-file.h. The file system belongs to somebody who may mean us harm: the name can lead anywhere, or
 * to something that waits when it is opened. So it is first opened without being opened (O_PATH, which follows nothing), looked
 * at, and then opened for good.
 *
 * Its blocks are allocated and never written. On a kernel without OpenVZ's patches only one thing keeps whoever is root inside
 * from using it, or from removing it: the immutable attribute, which a container cannot take away.
 *
 * Order of a change of its size:
 *  1. The attribute is taken away.
 *  2. Growing: the blocks are allocated behind the end of the file, then its end is moved. Whoever cuts us off leaves the old
 *     size, or the new one, and blocks behind the end, which the next change gives back.
 *     Shrinking: the end is moved.
 *  3. All of it is made durable.
 *  4. The attribute comes back, unless the file is empty.
 *
 * Sealing: the attribute keeps everybody from opening it for writing, and a read lease is given only when nobody has it open so.
 * Together: its blocks stay where they are for as long as the lease is held.
 */
#include "lib/balloon-file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "lib/balloon-name.h"
#include "lib/inside.h"

#define BLOCKS_UNIT 512u /* of st_blocks */

static const char *device_of(const struct inside *inside)
{
	return inside->entry.device.device;
}

/* Is what stands there a balloon, and nobody else's file? */
static int check(const struct inside *inside, int fd, struct stat *ret, struct ploop_error *err)
{
	const char *what = NULL;
	struct stat root;

	if (fstat(fd, ret) < 0 || fstat(inside->root, &root) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", BALLOON_NAME);
	if (!S_ISREG(ret->st_mode) || ret->st_dev != root.st_dev)
		what = "is no file";
	else if (ret->st_uid != 0)
		what = "does not belong to root";
	else if (ret->st_nlink != 1)
		what = "has another name besides";
	if (!what)
		return 0;
	return error_set(
		err, -EINVAL, PLOOP_EXIT_OPEN,
		"%s: %s in the root of its file system %s; remove it, and the next change of the balloon makes a "
		"new one",
		device_of(inside), BALLOON_NAME, what);
}

static int reopen(int fd, int flags)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	fd = open(path, flags | O_NONBLOCK | O_NOCTTY | O_NOATIME | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* What is behind the end. Metadata is counted too where the file system does so: a few blocks are no sign of anything. */
static uint64_t blocks_beyond(const struct stat *st)
{
	uint64_t held = (uint64_t)st->st_blocks * BLOCKS_UNIT, size = (uint64_t)st->st_size;
	uint64_t metadata = size / 1024 + (uint64_t)st->st_blksize * 8;

	return held > size + metadata ? held - size : 0;
}

int balloon_file_open(const struct inside *inside, struct balloon_file *ret, struct ploop_error *err)
{
	_close_ int path = openat(inside->root, BALLOON_NAME, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	struct balloon_file balloon = BALLOON_FILE_NONE;
	struct stat st;
	int r;

	if (path < 0 && errno == ENOENT) {
		*ret = balloon;
		return 0;
	}
	if (path < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s: Can't open %s", device_of(inside), BALLOON_NAME);
	r = check(inside, path, &st, err);
	if (r < 0)
		return r;
	balloon.fd = reopen(path, O_RDONLY);
	if (balloon.fd < 0)
		return error_sys(err, balloon.fd, PLOOP_EXIT_OPEN, "%s: Can't open %s", device_of(inside),
				 BALLOON_NAME);
	balloon.size = (uint64_t)st.st_size;
	balloon.beyond = blocks_beyond(&st);
	balloon.block = (uint32_t)st.st_blksize;
	*ret = balloon;
	return 0;
}

static int make(const struct inside *inside, struct ploop_error *err)
{
	_close_ int fd = openat(inside->root, BALLOON_NAME, O_RDONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

	if (fd < 0 && errno != EEXIST)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "%s: Can't create %s", device_of(inside), BALLOON_NAME);
	return 0;
}

static int in_use(struct ploop_error *err)
{
	return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "Hidden balloon is in use by someone else!");
}

/* Where extents are what they say, and a file can have blocks that nobody wrote. */
static int check_fs(const struct inside *inside, struct ploop_error *err)
{
	struct statfs fs;

	if (fstatfs(inside->root, &fs) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", inside->path);
	if (inside->read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_PARAM, "%s: its file system is mounted read-only",
				 device_of(inside));
	if (fs.f_type != EXT4_SUPER_MAGIC && fs.f_type != XFS_SUPER_MAGIC)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
				 "%s: its file system can have no balloon; ext4 and XFS can", device_of(inside));
	return 0;
}

int balloon_file_lock(const struct inside *inside, struct balloon_file *ret, struct ploop_error *err)
{
	struct balloon_file balloon = BALLOON_FILE_NONE;
	int r = check_fs(inside, err);

	if (r == 0)
		r = balloon_file_open(inside, &balloon, err);
	if (r == 0 && balloon.fd < 0) {
		r = make(inside, err);
		if (r == 0)
			r = balloon_file_open(inside, &balloon, err);
		if (r == 0 && balloon.fd < 0)
			r = in_use(err); /* made, and gone again */
	}
	if (r == 0 && flock(balloon.fd, LOCK_EX | LOCK_NB) < 0)
		r = errno == EWOULDBLOCK ? in_use(err)
					 : error_sys(err, -errno, PLOOP_EXIT_FLOCK, "%s: Can't lock %s",
						     device_of(inside), BALLOON_NAME);
	if (r < 0) {
		balloon_file_close(&balloon);
		return r;
	}
	*ret = balloon;
	return 0;
}

/* Other attributes stay as they are. */
static int set_immutable(int fd, bool wanted)
{
	int flags, wish;

	if (ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0)
		return -errno;
	wish = wanted ? flags | FS_IMMUTABLE_FL : flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL);
	return wish != flags && ioctl(fd, FS_IOC_SETFLAGS, &wish) < 0 ? -errno : 0;
}

static int cannot_protect(int code, struct ploop_error *err)
{
	return error_sys(err, code, PLOOP_EXIT_SYS, "%s cannot be protected against those who use the file system",
			 BALLOON_NAME);
}

static int grow(const struct inside *inside, int fd, uint64_t from, uint64_t size, struct ploop_error *err)
{
	struct statvfs fs = { 0 };
	int r;

	if (fallocate(fd, FALLOC_FL_KEEP_SIZE, (off_t)from, (off_t)(size - from)) == 0)
		return ftruncate(fd, (off_t)size) < 0 ? error_sys(err, -errno, PLOOP_EXIT_FTRUNCATE, "%s", BALLOON_NAME)
						      : 0;
	r = -errno;
	(void)ftruncate(fd, (off_t)from);
	if (r == -EOPNOTSUPP)
		return error_set(
			err, r, PLOOP_EXIT_FALLOCATE,
			"%s: its file system cannot keep space without writing to it, so it can have no balloon; "
			"ext4 and XFS can",
			device_of(inside));
	if (r != -ENOSPC || fstatvfs(fd, &fs) < 0)
		return error_sys(err, r, PLOOP_EXIT_FALLOCATE, "%s: Can't fallocate %s", device_of(inside),
				 BALLOON_NAME);
	return error_set(
		err, r, PLOOP_EXIT_FALLOCATE,
		"%s: a balloon of %llu bytes does not fit: it has %llu bytes, and %llu are free in the file system",
		device_of(inside), (unsigned long long)size, (unsigned long long)from,
		(unsigned long long)(fs.f_bfree * fs.f_frsize));
}

static int change(const struct inside *inside, const struct balloon_file *balloon, uint64_t size,
		  struct ploop_error *err)
{
	_close_ int fd = reopen(balloon->fd, O_RDWR);
	int r = 0;

	if (fd == -EWOULDBLOCK)
		return in_use(err);
	if (fd < 0)
		return error_sys(err, fd, PLOOP_EXIT_OPEN, "%s: Can't open %s", device_of(inside), BALLOON_NAME);
	if (ftruncate(fd, (off_t)min_u64(size, balloon->size)) < 0) /* also gives back what is behind the end */
		return error_sys(err, -errno, PLOOP_EXIT_FTRUNCATE, "%s: Can't truncate %s", device_of(inside),
				 BALLOON_NAME);
	if (size > balloon->size)
		r = grow(inside, fd, balloon->size, size, err);
	if (fsync(fd) < 0 && r == 0)
		r = error_sys(err, -errno, PLOOP_EXIT_FSYNC, "%s: %s", device_of(inside), BALLOON_NAME);
	return r;
}

int balloon_file_resize(const struct inside *inside, struct balloon_file *balloon, uint64_t size,
			struct ploop_error *err)
{
	struct stat st;
	int r, sealed;

	r = set_immutable(balloon->fd, false);
	if (r < 0)
		return cannot_protect(r, err);
	r = change(inside, balloon, size, err);
	if (fstat(balloon->fd, &st) == 0) {
		balloon->size = (uint64_t)st.st_size;
		balloon->beyond = 0;
	}
	sealed = balloon->size ? set_immutable(balloon->fd, true) : 0;
	if (r == 0 && sealed < 0)
		r = cannot_protect(sealed, err);
	return r;
}

int balloon_file_seal(struct balloon_file *balloon, struct ploop_error *err)
{
	int r = set_immutable(balloon->fd, true);

	if (r < 0)
		return cannot_protect(r, err);
	/* Who waits for the lease announces himself by a signal: one that is ignored by default. */
	if (fcntl(balloon->fd, F_SETSIG, SIGURG) == 0 && fcntl(balloon->fd, F_SETLEASE, F_RDLCK) == 0)
		return 0;
	if (errno == EAGAIN)
		return in_use(err);
	return cannot_protect(-errno, err);
}

void balloon_file_close(struct balloon_file *balloon)
{
	if (balloon->fd >= 0)
		close(balloon->fd);
	*balloon = (struct balloon_file)BALLOON_FILE_NONE;
}
