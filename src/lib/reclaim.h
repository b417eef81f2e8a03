/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* reclaim.h - giving space back: what its files share. */
#ifndef LIB_RECLAIM_H
#define LIB_RECLAIM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <ploop/ploop.h>

/* When it is enough, and whether somebody wants it to stop: looked at by every stage. */
struct reclaim_watch {
	const struct ploop_reclaim *what;
	const char *const *images; /* base first */
	size_t nimages;
	uint64_t allocated; /* bytes of blocks that they held at first */
	uint64_t deadline;  /* ns on the monotonic clock; 0: none */
	bool enough;        /* one of the limits is reached */
	bool stopped;       /* `progress` asked for it */
};

/* Bytes of blocks, and lengths, of all these files. */
int reclaim_measure(const char *const *images, size_t n, uint64_t *ret_length, uint64_t *ret_allocated,
		    struct ploop_error *err);

int reclaim_watch_start(struct reclaim_watch *watch, const struct ploop_reclaim *what, const char *const *images,
			size_t n, struct ploop_error *err);

/* A ploop_progress_fn; `data` is the watch. Anything but 0: end now, well (enough) or not (stopped). */
int reclaim_watch_look(void *data, const char *stage, uint64_t done, uint64_t total);

/* What a stage that ended with `r` means: -ECANCELED is no failure when it was enough. */
int reclaim_watch_result(const struct reclaim_watch *watch, int r);

struct ploop_disk;
struct ranges;

/* Of a disk that nobody uses, and is opened in this process: what its file system does not use, in bytes of the disk. False
 * without an error: nobody can tell, and *err (not NULL) says why. */
bool reclaim_find_free(struct ploop_disk *disk, struct ranges *ranges, struct ploop_error *err);

/* ploop_reclaim() for a disk that nobody uses. */
int reclaim_files(const struct ploop_reclaim *reclaim, struct ploop_reclaimed *ret, struct ploop_error *err);

#endif
