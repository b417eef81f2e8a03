/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge-names.h - the descriptor beside images that are merged: kept in step, or a reason to refuse.
 *
 * It is replaced when the merge is over. Until then it names the images as they were, which are the same disk at every moment.
 */
#ifndef LIB_MERGE_NAMES_H
#define LIB_MERGE_NAMES_H

#include "lib/change.h"

struct merge_names {
	struct change change;
	unsigned n;         /* images that are merged, the lowest included; 0: no descriptor names them */
	struct guid *guids; /* base first */
	bool marked;
};

/*
 * Looks for a descriptor: `descriptor`, or when that is NULL the one in the folder of images[0]. Its lock is held until
 * merge_names_end(). Fails when it names some of the images and could not name the result. Zero the struct.
 */
int merge_names_begin(struct merge_names *names, const char *descriptor, const char *const *images, unsigned n,
		      struct ploop_error *err);

/*
 * From here on data comes into the lowest: all but the uppermost are no longer what they were, so that they are marked as
 * temporary, which they stay when the merge does not end. merge_names_unmark(): it did not begin after all.
 */
int merge_names_mark(struct merge_names *names, struct ploop_error *err);
void merge_names_unmark(struct merge_names *names);

/* The images are merged into the lowest, or into `file`: one snapshot is left of them, with the name of the uppermost. */
int merge_names_commit(struct merge_names *names, const char *file, struct ploop_error *err);

void merge_names_end(struct merge_names *names);

/* ploop_merge() and ploop_merge_levels() for a descriptor that is known; NULL: the one that is found. */
int merge_images(const struct ploop_merge *merge, const char *descriptor, struct ploop_error *err);
int merge_levels(const struct ploop_merge_levels *merge, const char *descriptor, struct ploop_error *err);

static inline void cleanup_merge_names(struct merge_names *names)
{
	merge_names_end(names);
}
#define _merge_names_end_ __attribute__((cleanup(cleanup_merge_names)))

#endif
