/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * create.h - new image files, and the first descriptor of a new disk.
 *
 * Order of writes:
 *  1. The image is written and synced, then its folder is synced: from then on it may be named.
 *  2. The descriptor comes last (disk_create). A crash before leaves a file that no descriptor names, never a
 *     descriptor
 *     that names a half-made file.
 */
#ifndef IMAGE_CREATE_H
#define IMAGE_CREATE_H

#include <stdbool.h>
#include <stdint.h>

struct dir;
struct geometry;
struct io_ops;
struct loop;
struct ploop_error;

enum image_mode {
	IMAGE_EXPANDED,     /* grows as it is written */
	IMAGE_PREALLOCATED, /* every cluster mapped in order, its blocks taken from the host at once */
	IMAGE_RAW,          /* the disk's bytes and nothing else */
};

struct image_params {
	enum image_mode mode;
	bool sparse;                 /* IMAGE_RAW: a hole of full length instead of blocks */
	uint32_t version;            /* 1 or 2; not for raw */
	uint64_t size;               /* bytes */
	uint32_t cluster;            /* bytes */
	const struct io_ops *module; /* NULL: chosen for the file */
};

/* Checks `params` as image_create() would, and says how such an image is laid out. */
int image_plan(const struct image_params *params, struct geometry *ret, struct ploop_error *err);

/*
 * Makes the image file `name` in `dir`: mode 0600, not there before (-EEXIST, status 38), complete and durable, name
 * included. On failure no file is left. Blocks: it turns the loop until its own operations are done.
 */
int image_create(struct loop *loop, struct dir *dir, const char *name, const struct image_params *params,
		 struct ploop_error *err);

/*
 * Writes the descriptor `descriptor` (usually "DiskDescriptor.xml") of a disk that has the one image `image`, both in
 * `dir`.
 * -EEXIST, status 38, `Can't create %s: File exists` when it is there.
 */
int disk_create(struct dir *dir, const char *descriptor, const char *image, const struct image_params *params,
		struct ploop_error *err);

#endif
