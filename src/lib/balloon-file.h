/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * balloon-file.h - the balloon: a file in the root of a file system that takes space from those who use it, without a byte of
 * data in it. Name and shape are those of OpenVZ, whose hosts find ours, and we theirs.
 */
#ifndef LIB_BALLOON_FILE_H
#define LIB_BALLOON_FILE_H

#include <stdbool.h>
#include <stdint.h>

struct inside;
struct ploop_error;

struct balloon_file {
	int fd;          /* open for reading; -EBADF: there is none yet */
	uint64_t size;   /* bytes that it takes, 0 when there is none */
	uint64_t beyond; /* bytes of blocks behind its end, which a change that was cut off left */
	uint32_t block;  /* bytes: its size is a multiple of that */
};

#define BALLOON_FILE_NONE    \
	{                    \
		.fd = -EBADF \
	}

/* Looks at it. The caller closes. */
int balloon_file_open(const struct inside *inside, struct balloon_file *ret, struct ploop_error *err);

/* Opens it, makes it if it is not there, and keeps everybody else from it. -EBUSY: somebody uses it. */
int balloon_file_lock(const struct inside *inside, struct balloon_file *ret, struct ploop_error *err);

/*
 * Of a locked one: gives it another size, all of it or nothing, and gives back what is behind its end. It is durable then, and
 * protected: see balloon_file_seal().
 */
int balloon_file_resize(const struct inside *inside, struct balloon_file *balloon, uint64_t size,
			struct ploop_error *err);

/*
 * Of a locked one: from here until it is closed nobody can change it or move its blocks, not even who has it open already.
 * -EBUSY when somebody has it open for writing.
 */
int balloon_file_seal(struct balloon_file *balloon, struct ploop_error *err);

void balloon_file_close(struct balloon_file *balloon);

#endif
