/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock-disk.c - the lock of a disk as a whole, and what its file is used for besides: see lock.h.
 *
 * The flock and the bytes are locks of different kinds, which do not see one another. Where a file system makes the one of the
 * other (NFS does), giving the flock back ends the work's byte too: others are not told of the work then, and meet the locks
 * of the images.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/lock.h"

#define LOCK_STEP_MS 25

#define WORK_BYTE 100
#define OWNER_BYTES (UINT64_C(1) << 40) /* those of owners begin here */

static void pause_ms(void)
{
	struct timespec time = { .tv_nsec = LOCK_STEP_MS * 1000000L };

	nanosleep(&time, NULL);
}

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/*
 * Who may not write in the folder still waits for those who may, where they left the file. Where it is not and cannot
 * be made, there is nobody to wait for.
 */
static int open_disk_lock(const char *path, int *ret_fd)
{
	int fd = open(path, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0644);

	if (fd < 0 && errno != EROFS && errno != EACCES && errno != EPERM)
		return -errno;
	if (fd < 0)
		fd = open(path, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0 && errno != ENOENT && errno != EACCES)
		return -errno;
	*ret_fd = fd;
	return 0;
}

static int wait_for_turn(const char *descriptor, int fd, unsigned wait_ms, struct ploop_error *err)
{
	uint64_t start = now_ms();
	char holder[128];

	while (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		if (lock_unsupported(-errno)) {
			log_warning("%s: its file system has no locks: make sure that nobody else changes it",
				    descriptor);
			break;
		}
		if (errno != EWOULDBLOCK && errno != EINTR)
			return error_sys(err, -errno, PLOOP_EXIT_LOCK, "Can't lock %s.lck", descriptor);
		if (now_ms() - start >= wait_ms) {
			lock_describe_holder(fd, holder, sizeof(holder));
			return error_set(err, -EBUSY, PLOOP_EXIT_LOCK, "The %s is locked by %s", descriptor, holder);
		}
		pause_ms();
	}
	return 0;
}

static int open_lock_of(const char *descriptor, int *ret_fd, struct ploop_error *err)
{
	_free_ char *path = NULL;
	int r;

	if (asprintf(&path, "%s.lck", descriptor) < 0)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", descriptor);
	r = open_disk_lock(path, ret_fd);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_LOCK, "Can't open %s", path) : 0;
}

int lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err)
{
	_close_ int fd = -EBADF;
	int r = open_lock_of(descriptor, &fd, err);

	if (r == 0 && fd >= 0)
		r = wait_for_turn(descriptor, fd, wait_ms, err);
	if (r == 0)
		*ret_fd = fd >= 0 ? take_fd(&fd) : -1;
	return r;
}

static int set_byte(int fd, short type, uint64_t byte)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1 };

	return fcntl(fd, F_OFD_SETLK, &lock) < 0 ? -errno : 0;
}

/* Does somebody else have it? */
static bool test_byte(int fd, uint64_t byte)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1 };

	return fd >= 0 && fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

/* ---- Long work ---- */

void lock_work_begin(int fd)
{
	if (fd < 0)
		return;
	/* Where it cannot be had the work is as good, and only not announced. */
	(void)set_byte(fd, F_RDLCK, WORK_BYTE);
	(void)flock(fd, LOCK_UN);
}

int lock_work_end(const char *descriptor, int fd, struct ploop_error *err)
{
	int r = fd < 0 ? 0 : wait_for_turn(descriptor, fd, LOCK_WAIT_MS, err);

	if (fd >= 0)
		(void)set_byte(fd, F_UNLCK, WORK_BYTE);
	return r;
}

bool lock_work_goes_on(int fd)
{
	return test_byte(fd, WORK_BYTE);
}

int lock_work_check(const char *descriptor, int fd, struct ploop_error *err)
{
	char holder[128];

	if (!lock_work_goes_on(fd))
		return 0;
	lock_describe_holder(fd, holder, sizeof(holder));
	return error_set(
		err, -EBUSY, PLOOP_EXIT_BUSY,
		"a merge of %s is under way, by %s; `ploop merge -d DEVICE --status` tells how far that of a device is",
		descriptor, holder);
}

/* ---- Owners ---- */

static uint64_t owner_byte(uint64_t key)
{
	return OWNER_BYTES + key % OWNER_BYTES;
}

int lock_owner(const char *descriptor, uint64_t key, int *ret_fd, struct ploop_error *err)
{
	_close_ int fd = -EBADF;
	int r = open_lock_of(descriptor, &fd, err);

	if (r < 0)
		return r;
	if (fd >= 0)
		r = set_byte(fd, F_RDLCK, owner_byte(key));
	if (r < 0 && !lock_unsupported(r))
		return error_sys(err, r, PLOOP_EXIT_LOCK, "Can't lock %s.lck", descriptor);
	*ret_fd = fd >= 0 ? take_fd(&fd) : -1;
	return 0;
}

bool lock_owned(int fd, uint64_t key)
{
	return test_byte(fd, owner_byte(key));
}
