/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock.h - who may use the files of a disk at the same time.
 *
 * Image files: many readers or one writer. The locks are byte-range locks of the open file (OFD), placed on the bytes
 * by which qemu tells what it does (100 + n) and what it bears from others (200 + n), so that the two respect each
 * other: qemu-img refuses an image that is mounted for writing, and may read one that is mounted read-only. All are
 * shared locks: they need no more than a file opened for reading, and a conflict shows when somebody asks who else
 * holds the opposite byte. They go with the last copy of the descriptor, so that no crash leaves one behind.
 *
 * A disk: one change of the descriptor at a time, by an flock on DESCRIPTOR.lck, as the original has it. That file
 * stays.
 */
#ifndef IMAGE_LOCK_H
#define IMAGE_LOCK_H

#include <sys/types.h>

struct ploop_error;

enum file_lock {
	FILE_LOCK_NONE,
	FILE_LOCK_READ,
	FILE_LOCK_WRITE,
};

/*
 * Goes from one mode to another; what was held stays held when it fails. -EBUSY and status 37 when somebody else is
 * in the way, named in the text where that can be found out. A file system without locks is warned about, once a
 * file, and used.
 */
int lock_file(int fd, enum file_lock from, enum file_lock to, const char *path, struct ploop_error *err);

#define LOCK_WAIT_MS 60000u

/*
 * Waits for its turn at most `wait_ms`, then fails with status 23, `The %s is locked`. *ret_fd holds the lock until it
 * is closed; it is -1 where nobody has ever locked and the caller cannot make the file, as on a read-only file system.
 */
int lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err);

/* The process that has a lock on the file that is open as `fd`; 0 when it cannot be seen (another host, another
 * user). */
pid_t lock_holder(int fd);

#endif
