/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* replace-private.h - what the files of ploop_replace() share. */
#ifndef LIB_REPLACE_PRIVATE_H
#define LIB_REPLACE_PRIVATE_H

#include <ploop/ploop.h>

#include "format/format.h"

struct loop;

/* An image that is open for reading, and locked against those who would write to it. */
struct replace_image {
	const char *path;
	struct delta delta;
	int lock;
};

/* `raw`: it has no header, and clusters of that size are assumed. Zero the struct; replace_image_close() it in any case. */
int replace_image_open(struct loop *loop, const char *path, uint32_t raw_cluster, struct replace_image *ret,
		       struct ploop_error *err);
void replace_image_close(struct replace_image *image);

/*
 * -EINVAL, status 11, when one image cannot stand for the other: form, size; with `contents` also what they hold. In a `base` a cluster
 * that is not there equals one of zeros, else both must map the same.
 */
int replace_compare(struct loop *loop, const struct replace_image *old, const struct replace_image *new, bool base,
		    const struct ploop_replace *what, struct ploop_error *err);

#endif
