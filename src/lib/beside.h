/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* beside.h - somebody names an image, or a device with images: the descriptor that may know of it. */
#ifndef LIB_BESIDE_H
#define LIB_BESIDE_H

struct descriptor;
struct ploop_error;
struct snapshot;

/* "folder/DiskDescriptor.xml" when there is one beside the image; NULL without an error when there is none. The caller frees. */
int beside_find(const char *image, char **ret, struct ploop_error *err);

/* The snapshot whose file that is; NULL when there is none. */
const struct snapshot *beside_snapshot(const struct descriptor *descriptor, const char *image);

#endif
