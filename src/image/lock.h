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

#include <stdbool.h>
#include <stdint.h>
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

/*
 * Long work on a disk, a merge say: the lock of the disk is given back meanwhile, so that others can look at it, and the work is
 * known by a lock on one byte of the same file, which goes with the process. `fd` is what lock_disk() gave; -1 is accepted.
 * lock_work_end() waits for the disk's lock again, and then the work is over.
 */
void lock_work_begin(int fd);
int lock_work_end(const char *descriptor, int fd, struct ploop_error *err);

/* With the disk's lock held: -EBUSY, status 17, when somebody else has such work under way. */
int lock_work_check(const char *descriptor, int fd, struct ploop_error *err);
bool lock_work_goes_on(int fd);

/*
 * Who owns a temporary snapshot that is not mounted yet, or never will be: a lock on a byte of that file too, which `key` (a hash
 * of its GUID) chooses. *ret_fd holds it until it is closed; -1 where there are no locks.
 */
int lock_owner(const char *descriptor, uint64_t key, int *ret_fd, struct ploop_error *err);
bool lock_owned(int fd, uint64_t key);

/* Does the error say that there are no locks there? */
bool lock_unsupported(int r);

/* The process that has a lock on the file that is open as `fd`, another one if possible; 0 when it cannot be seen (another host,
 * another user). */
pid_t lock_holder(int fd);
/* "process 12 (name)", or something that stands for it. */
void lock_describe_holder(int fd, char *text, size_t room);

#endif
