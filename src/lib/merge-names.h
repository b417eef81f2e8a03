/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge-names.h - the descriptor beside images that are merged: kept in step, or a reason to refuse.
 *
 * It is replaced when the merge is over. Until then it names the images as they were, which are the same disk at every moment.
 *
 *	merge_names_begin()    lock, look, journal
 *	merge_names_mark()     the descriptor says that they are about to change
 *	merge_names_pause()    the lock is given back: the work goes on
 *	merge_names_commit()   lock, journal, descriptor
 *	merge_names_end()      files that are not named any more go, the journal too
 */
#ifndef LIB_MERGE_NAMES_H
#define LIB_MERGE_NAMES_H

#include "lib/change.h"

struct merge_names {
	struct change change;
	unsigned n;         /* images that are merged, the lowest included; 0: no descriptor names them */
	struct guid *guids; /* base first */
	char **files;       /* as the descriptor has them */
	bool marked;
	bool offline; /* nobody may have begun to use the images meanwhile; set it before merge_names_begin() */
	bool remove;  /* what is merged is removed at the end; set it before merge_names_begin() */
};

/* 1 and the descriptor of a disk: `descriptor`, or when that is NULL the one in the folder of `image` if it names that. Else 0. */
int merge_names_find(const char *descriptor, const char *image, char **ret);

/*
 * Looks for a descriptor: `descriptor`, or when that is NULL the one in the folder of images[0]. Its lock is held from then on.
 * Fails when it names some of the images and could not name the result. Zero the struct. With `new_image`, a file that is about
 * to be made, the journal of the disk says so.
 */
int merge_names_begin(struct merge_names *names, const char *descriptor, const char *const *images, unsigned n,
		      const char *new_image, struct ploop_error *err);

/*
 * From here on data comes into the lowest: all but the uppermost are no longer what they were, so that they are marked as
 * temporary, which they stay when the merge does not end. merge_names_unmark(): it did not begin after all.
 */
int merge_names_mark(struct merge_names *names, struct ploop_error *err);
void merge_names_unmark(struct merge_names *names);

/* What is merged into what, in the log, as the original told it: newest first. Base first in `images`. */
void merge_names_tell(const char *const *images, unsigned n, const char *new_image);

/* The merge has begun: the disk's lock is given back until merge_names_commit(). */
void merge_names_pause(struct merge_names *names);

/*
 * The images are merged into the lowest, or into `file`: one snapshot is left of them, with the name of the uppermost. When only
 * the first `n` are, they alone.
 */
int merge_names_commit(struct merge_names *names, unsigned n, const char *file, struct ploop_error *err);

void merge_names_end(struct merge_names *names);

/* ploop_merge() and ploop_merge_levels() for a descriptor that is known; NULL: the one that is found. */
int merge_images(const struct ploop_merge *merge, const char *descriptor, struct ploop_error *err);
int merge_levels(const struct ploop_merge_levels *merge, const char *descriptor, struct ploop_error *err);

/* ploop_merge() into a new image, for one who looks after the descriptor himself. */
int merge_alone(const struct ploop_merge *merge, struct ploop_error *err);

static inline void cleanup_merge_names(struct merge_names *names)
{
	merge_names_end(names);
}
#define _merge_names_end_ __attribute__((cleanup(cleanup_merge_names)))

#endif
