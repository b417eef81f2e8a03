/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-from-walk.h - what has to be known of a folder besides its entries: how large it is, and which names are one file. */
#ifndef LIB_INIT_FROM_WALK_H
#define LIB_INIT_FROM_WALK_H

#include <stdint.h>

struct ext_node;
struct links;
struct ploop_error;

/* Counts what is below `path` on the same file system. Bytes: of blocks that a copy needs at least; files with several names
 * are not counted for it, as they may be the same. */
int walk_measure(const char *path, uint64_t *ret_files, uint64_t *ret_bytes);

/* From device and inode number to what was made of it. */
int links_new(struct links **ret);
void links_free(struct links *links); /* NULL is accepted */
int links_add(struct links *links, uint64_t device, uint64_t ino, struct ext_node *node, struct ploop_error *err);
struct ext_node *links_find(const struct links *links, uint64_t device, uint64_t ino); /* or NULL */

#endif
