/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * extension.h - the format extension of a ploop1 image: one cluster of features that other software added to the
 *format, of which the dirty bitmap is the only one in use. Pure functions on the bytes of that cluster.
 *
 * What writing to an image does to its extension, and so who may write:
 *
 *	closed with 0                    what is found there is stale; ignored
 *	dirty bitmap                     kept, and says from then on that everything changed, which is always true: the next
 *	                                 backup that uses it is a full one
 *	unknown features without flags   dropped
 *	table of partial clusters        a crash left it: the device that opens the image goes on with it, and drops it when it
 *	                                 closes the image
 *	NECESSARY, any other             never written: what the feature means for the data is not known
 *	TRANSIT, unknown                 never written: it would have to be kept, and what it points to is not known
 *	damaged                          never written until `ploop check --repair=all` dropped it
 *
 * Reading is always possible. Only the table of partial clusters changes where data lies: the device reads it.
 */
#ifndef FORMAT_EXTENSION_H
#define FORMAT_EXTENSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

#define EXTENSION_MAGIC UINT64_C(0xAB234CEF23DCEA87)
#define EXTENSION_BITMAP UINT64_C(0x20385FAE252CB34A)
#define EXTENSION_PARTIAL UINT64_C(0x5E1B90C7A3D2468F) /* the table of partial clusters: format/partial.h */

#define EXTENSION_NECESSARY 1u /* who does not know the feature must not write to the image */
#define EXTENSION_TRANSIT 2u   /* who does not know it keeps it as it is */

struct extension_feature {
	uint64_t magic, flags;
	const uint8_t *data;
	uint32_t length; /* bytes of data */
};

struct extension_bitmap {
	uint64_t size; /* bytes of the disk that it describes */
	uint8_t id[16];
	uint64_t granularity; /* bytes that a bit stands for */
	uint32_t clusters;    /* entries of the table that follows */
	const uint8_t *table; /* 8 bytes each: 0 all clean, 1 all dirty, else the sector where a cluster of bits lies */
};

/* Checks magic and digest of the whole cluster. NULL when right, else what is wrong. */
const char *extension_verify(const void *cluster, size_t len);

/*
 * The feature at *pos (start with 0), and moves on. 1 when there is one, 0 at the end, -EINVAL when the list is broken.
 * Does not need a right digest and never reads beyond `len`.
 */
int extension_next(const void *cluster, size_t len, size_t *pos, struct extension_feature *ret);

/* Takes a bitmap feature apart. -EINVAL when its numbers do not fit one another. */
int extension_bitmap(const struct extension_feature *feature, uint32_t cluster, struct extension_bitmap *ret);

#define EXTENSION_BITMAP_HEAD 32u /* bytes of the feature in front of the table */

/* How long the feature of a bitmap with so many clusters of bits is in an extension, its own head included. */
uint64_t extension_bitmap_room(uint64_t clusters);

/* The first EXTENSION_BITMAP_HEAD bytes of the feature; the table, which is the caller's, follows them. */
void extension_bitmap_put(const struct extension_bitmap *bitmap, uint8_t *data);

/* Whether g->extension can be the place of an extension: a whole cluster of the data area inside the file. */
bool extension_placed(const struct geometry *g, uint64_t file_size);

/* What writing would do to the extension. */
enum extension_verdict {
	EXTENSION_EXPENDABLE, /* bitmaps, and what may be dropped */
	EXTENSION_IS_PARTIAL, /* there is a table of partial clusters, too */
	EXTENSION_IS_NECESSARY,
	EXTENSION_IS_TRANSIT,
	EXTENSION_DAMAGED,
};
enum extension_verdict extension_judge(const void *cluster, size_t len);

/*
 * Settles what parse() left open for an image with an extension, for the verdict on it. Expendable: the geometry is
 * writable unless something else forbids it; whoever then writes calls extension_spend() first. Partial: the same, but only a
 * device may write, which goes on with the table. Else read-only with the reason.
 */
void extension_settle(struct geometry *g, enum extension_verdict verdict);

/*
 * Rewrites an expendable extension for an image that will be written to: only the disk's bitmaps stay, and every bit of them is
 * set; `cluster` is the extension's whole cluster. False when nothing is left: then `g` has no extension any more, and the
 * header must be written so. The new bytes name no other cluster.
 */
bool extension_spend(struct geometry *g, void *cluster);

/* Adds a feature behind the others; the digest is not right afterwards. False: there is no room. */
bool extension_add(void *cluster, size_t len, const struct extension_feature *feature);

/* Puts magic and digest into a cluster whose features are in place. */
void extension_seal(void *cluster, size_t len);

#endif
