/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* trim.h - a mounted file system tells its device what it does not use. */
#ifndef LIB_TRIM_H
#define LIB_TRIM_H

#include <stdint.h>

struct ploop_error;

struct trim {
	int root;           /* anything of the file system, open */
	uint64_t size;      /* bytes of it */
	uint64_t min_block; /* bytes; shorter free stretches are left out; 0: none is */
	/* Called between steps; anything but 0 ends it with that, if negative, or well. */
	int (*step)(void *data, uint64_t done, uint64_t total);
	void *data;
};

/* All its free space, step by step, so that it can be stopped, and with rests while others use the file system's device. Makes what
 * was freed a moment ago durable first. */
int trim_run(const struct trim *trim, struct ploop_error *err);

#endif
