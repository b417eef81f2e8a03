/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * branch.h - snapshots that several others are made on, and that are about to be merged away: the branch that goes with the merge is
 * left alone, and each other one first gets all that it reads from them, in a new image of its own.
 */
#ifndef LIB_BRANCH_H
#define LIB_BRANCH_H

#include "image/tree.h"
#include "lib/change.h"

/* A branch that must be taken off: found by branch_find(), which fills it, taken off by branch_detach(). */
struct branch {
	struct guid child;  /* where it begins */
	struct guid parent; /* what that is made on afterwards: the parent of the lowest that goes, or its heir when that is the base */
	unsigned n;         /* images that hold what it reads: from the lowest that goes to the child's own, base first */
	unsigned nmasks;    /* images that it must not see: those of the heir, base first; only when that becomes the parent */
	char *images[TREE_MAX_DEPTH];
	char *masks[TREE_MAX_DEPTH];
};

/*
 * chain[0 .. n-1], base first, become one. Returns 1 and the first branch that grows out of them on the way, 0 when there is none
 * (any more). -EBUSY, status 17, when that branch is in use; -EINVAL, status 38, when the merged image will be the disk's top and
 * the base, on which nothing could be made.
 */
int branch_find(const struct change *change, const struct snapshot *const *chain, unsigned n, struct branch *ret,
		struct ploop_error *err);

/* `what` has rate and progress. Long; takes the disk's lock itself. */
int branch_detach(const struct ploop_snapshot_merge *what, const char *disk, const struct branch *branch,
		  struct ploop_error *err);

/* Of the children of a snapshot that is deleted the one that it is merged with; NULL: none can, `err` says why. */
const struct snapshot *branch_heir(const struct change *change, const struct snapshot *snapshot, struct ploop_error *err);

void branch_clear(struct branch *branch);

#endif
