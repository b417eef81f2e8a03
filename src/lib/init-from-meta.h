/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-from-meta.h - what an entry of an archive says about a file: attributes, extended attributes, ACLs. */
#ifndef LIB_INIT_FROM_META_H
#define LIB_INIT_FROM_META_H

struct archive_entry;
struct ext;
struct ext_node;
struct ext_stat;
struct ploop_error;

/* The result points into `entry`. */
int meta_stat(struct archive_entry *entry, const char *path, struct ext_stat *ret, struct ploop_error *err);

int meta_xattrs(struct archive_entry *entry, struct ext *ext, struct ext_node *node, const char *path,
		struct ploop_error *err);

#endif
