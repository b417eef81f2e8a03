/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* lock.c - see lock.h. */
#include "image/lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"

/* What somebody does with a file, bit by bit as qemu numbers it. */
#define USE_READ 1u   /* reads, and wants to see something consistent */
#define USE_WRITE 2u  /* changes the content */
#define USE_TOUCH 4u  /* writes what is there already */
#define USE_RESIZE 8u /* changes the length */
#define USE_BITS 4

#define DOES_BYTE 100
#define BARS_BYTE 200

/* Two who lock at the same moment may both see the other and both step back; so each tries more than once. */
#define LOCK_TRIES 4
#define LOCK_STEP_MS 25

static const struct {
	unsigned does; /* what I do */
	unsigned bars; /* what nobody else may do meanwhile */
} uses[] = {
	[FILE_LOCK_NONE] = { 0, 0 },
	[FILE_LOCK_READ] = { USE_READ, USE_WRITE | USE_RESIZE },
	[FILE_LOCK_WRITE] = { USE_READ | USE_WRITE | USE_RESIZE, USE_READ | USE_WRITE | USE_TOUCH | USE_RESIZE },
};

static void pause_ms(unsigned ms)
{
	struct timespec time = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&time, NULL);
}

static int byte_lock(int fd, int command, short type, int byte)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1 };

	if (fcntl(fd, command, &lock) < 0)
		return -errno;
	return command == F_OFD_GETLK && lock.l_type != F_UNLCK ? -EBUSY : 0;
}

/* Locks or unlocks the bytes of a set. */
static int bytes_set(int fd, short type, int base, unsigned bits)
{
	for (int i = 0; i < USE_BITS; i++) {
		int r = bits & 1u << i ? byte_lock(fd, F_OFD_SETLK, type, base + i) : 0;

		if (r < 0)
			return r == -EAGAIN || r == -EACCES ? -EBUSY : r;
	}
	return 0;
}

/* -EBUSY when somebody else has one of them. */
static int bytes_test(int fd, int base, unsigned bits)
{
	for (int i = 0; i < USE_BITS; i++) {
		int r = bits & 1u << i ? byte_lock(fd, F_OFD_GETLK, F_WRLCK, base + i) : 0;

		if (r < 0)
			return r;
	}
	return 0;
}

/* Says what I want, then looks whether anybody objects: of two who do so at least one sees the other. */
static int lock_try(int fd, enum file_lock from, enum file_lock to)
{
	unsigned does = uses[to].does, bars = uses[to].bars;
	int r = bytes_set(fd, F_RDLCK, DOES_BYTE, does & ~uses[from].does);

	if (!r)
		r = bytes_set(fd, F_RDLCK, BARS_BYTE, bars & ~uses[from].bars);
	if (!r)
		r = bytes_test(fd, BARS_BYTE, does);
	if (!r)
		r = bytes_test(fd, DOES_BYTE, bars);
	if (r < 0) {
		bytes_set(fd, F_UNLCK, DOES_BYTE, does & ~uses[from].does);
		bytes_set(fd, F_UNLCK, BARS_BYTE, bars & ~uses[from].bars);
		return r;
	}
	bytes_set(fd, F_UNLCK, DOES_BYTE, uses[from].does & ~does);
	bytes_set(fd, F_UNLCK, BARS_BYTE, uses[from].bars & ~bars);
	return 0;
}

bool lock_unsupported(int r)
{
	return r == -ENOLCK || r == -ENOSYS || r == -EOPNOTSUPP || r == -EINVAL;
}

int lock_file(int fd, enum file_lock from, enum file_lock to, const char *path, struct ploop_error *err)
{
	char holder[128];
	int r;

	for (int i = 0; (r = lock_try(fd, from, to)) == -EBUSY && i < LOCK_TRIES - 1; i++)
		pause_ms(LOCK_STEP_MS + (unsigned)(getpid() * 7 + i * 13) % LOCK_STEP_MS);
	if (lock_unsupported(r)) {
		if (from == FILE_LOCK_NONE)
			log_warning("%s: its file system has no locks: make sure that nobody else uses it", path);
		return 0;
	}
	if (r != -EBUSY)
		return r < 0 ? error_sys(err, r, PLOOP_EXIT_LOCK, "Can't lock %s", path) : 0;
	lock_describe_holder(fd, holder, sizeof(holder));
	return error_set(err, -EBUSY, PLOOP_EXIT_IN_USE, "%s is in use by %s%s", path, holder,
			 strstr(holder, "(ploopd)") ? "; unmount it first, see `ploop list`" : "");
}
