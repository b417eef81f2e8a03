/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reconcile.h - a disk is three things: what its descriptor says, the files, and the images of a device that runs on them.
 * Somebody who died between two of them leaves one behind. Here they are compared, and brought in line.
 */
#ifndef LIB_RECONCILE_H
#define LIB_RECONCILE_H

#include "image/tree.h"
#include "lib/change.h"

enum standing {
	STANDING_NONE,     /* the device does not write to the disk that the descriptor describes */
	STANDING_SAME,     /* it has the very images of the descriptor */
	STANDING_BEHIND,   /* it lacks the descriptor's top, which is empty: a snapshot was interrupted */
	STANDING_MERGED,   /* it lacks images that are empty: a merge is over, and the descriptor did not hear of it */
	STANDING_AHEAD,    /* it writes to an image above those of the descriptor, which is an older one */
	STANDING_DIVERGED, /* nothing of that */
};

struct comparison {
	enum standing standing;
	const struct ploop_device *device;
	const struct snapshot *chain[TREE_MAX_DEPTH]; /* what the descriptor says, base first */
	unsigned n;
	bool missing[TREE_MAX_DEPTH]; /* the device does not have that image of the chain */
	unsigned known;               /* AHEAD: images of the device that the descriptor names */
};

int compare_device(const struct change *change, const struct ploop_device *device, struct comparison *ret,
		   struct ploop_error *err);

/*
 * Puts right what can be without a doubt, BEHIND and MERGED, and finds change->writer. Fails for the others, with a text that
 * says which is behind.
 */
int reconcile(struct change *change, struct ploop_error *err);

/* Each for its standing; the change goes on with what is read anew. */
int catch_up(struct change *change, const struct comparison *comparison, struct ploop_error *err);
int forget_merged(struct change *change, const struct comparison *comparison, struct ploop_error *err);
int learn_images(struct change *change, const struct comparison *comparison, struct ploop_error *err);

/* Are no clusters mapped by this image? False also when that cannot be found out. */
bool image_is_empty(const char *path);

#endif
