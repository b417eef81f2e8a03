/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * writer.h - a delta that is written to: its free clusters, its commit, and its in-use mark. A device has one, for its top; a
 * read-only device has one that never starts.
 */
#ifndef DEVICE_WRITER_H
#define DEVICE_WRITER_H

#include "device/alloc.h"
#include "device/commit.h"
#include "device/map.h"
#include "format/format.h"

struct device;
struct ploop_error;
struct shadow_level;

struct writer {
	struct device *device;
	struct delta *delta; /* in device->levels */
	unsigned level;
	bool heir; /* it is the top, or will be: the dirty bitmaps of the disk lie in it (cbt.h) */
	/* The whole index of a delta that others lie over (a merge writes to it): the map knows only what is not covered. Empty for
	 * the top, whose index the map knows whole. */
	struct map own;
	struct alloc alloc;
	uint32_t useless; /* after writer_finish(): a file cluster that is to be punched; 0 none */
	struct commit commit;
	struct shadow_level *shadow; /* NULL: nobody wants to know when we die */
};

/* Whether the delta may be written to at all; else -EROFS and why. */
int writer_check(const struct delta *delta, struct ploop_error *err);

int writer_new(struct device *device, unsigned level, struct writer **ret);
void writer_free(struct writer *writer); /* NULL is accepted */

/* Makes the map of free clusters for a file of `file` clusters; what the index names is claimed by the caller. */
int writer_init_alloc(struct writer *writer, uint64_t file);

/* Chooses up to `count` free file clusters in a row, first in *ret, and makes the file long enough. Returns how many, or a
 * negative errno. They may hold old data: alloc_stale(). */
int writer_allocate(struct writer *writer, uint32_t count, uint32_t *ret);

/* The same for the last writes of a writer: does not ask for a commit where none is free. */
int writer_allocate_last(struct writer *writer, uint32_t *ret);

/* The file cluster that this delta maps v to; 0 none. */
uint32_t writer_entry(const struct writer *writer, uint32_t v);

/* The delta maps v to this cluster from now on; 0: no more. The merged map is the caller's affair. */
void writer_set_entry(struct writer *writer, uint32_t v, uint32_t cluster);

/* Another header: it is written by the next commit, at once with what else is dirty. */
void writer_set_geometry(struct writer *writer, const struct geometry *geometry);

/* Before the first and after the last write; the order is in writer.c. Both block. */
int writer_start(struct writer *writer, struct ploop_error *err);
int writer_finish(struct writer *writer);

/*
 * A level below the top that is to be written to: its index is loaded, and it is marked in use. Blocks.
 */
int writer_open_lower(struct device *device, unsigned level, bool heir, struct writer **ret, struct ploop_error *err);

/* Steps of the two, for those who must not block for long. The first sector with the header for `state` in it, to be
 * written; and: cuts what no entry names off the end of the file. */
int writer_build_head(struct writer *writer, enum format_state state, uint8_t *sector);
int writer_cut_tail(struct writer *writer);

/* The header names no format extension from the next commit on, and its cluster is free after that; when there is one. */
void writer_drop_extension(struct writer *writer);

/* The file cluster of the format extension; the delta has one and may be written. */
uint32_t writer_extension_cluster(const struct writer *writer);

#endif
