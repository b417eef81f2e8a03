/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree.h - how the snapshots of a disk descend from one another. */
#ifndef IMAGE_TREE_H
#define IMAGE_TREE_H

#include <stdbool.h>
#include <stdint.h>

#include "image/descriptor.h"

#define TREE_MAX_DEPTH 127 /* images from base to top */

/* Computes the hash and the kinship of all snapshots. -EEXIST for two of one GUID, -ELOOP for one that descends from
 * itself; *ret_bad is then the index of it. Linear in the number of snapshots. For descriptor*.c. */
int tree_index(struct descriptor *descriptor, uint32_t *ret_bad);

/* The snapshots from the base to `snapshot`, which is the last. Status 39 when a parent or a file is missing, 38 when
 * there are too many. Returns how many, or a negative errno. */
int tree_chain(const struct descriptor *descriptor, const struct snapshot *snapshot,
	       const struct snapshot *ret[TREE_MAX_DEPTH], struct ploop_error *err);

/* NULL for a base, and where the parent is missing. */
const struct snapshot *tree_parent(const struct descriptor *descriptor, const struct snapshot *snapshot);

bool tree_is_base(const struct snapshot *snapshot);

/* Whether `ancestor` is an ancestor of `snapshot`; nobody is his own. */
bool tree_descends(const struct descriptor *descriptor, const struct snapshot *snapshot,
		   const struct snapshot *ancestor);

#define tree_for_each_child(child, descriptor, snapshot)                                    \
	for (uint32_t child##_i = (snapshot)->first_child;                                  \
	     child##_i != SNAPSHOT_NONE && ((child) = &(descriptor)->snapshots[child##_i]); \
	     child##_i = (child)->next_sibling)

#endif
