/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cbt.h - the dirty bitmaps of a disk: for each of them, what has changed since somebody, a backup say, began it.
 *
 * A bitmap belongs to the disk, not to an image: it is in memory while the device runs, a tracker (tracker.h) that nobody takes
 * notes from, and lies in the format extension of the top while nobody uses the disk. In doubt it says that something changed.
 *
 * Crash rules:
 *  1. While an image is in use, its extension names the bitmaps with every bit set, which is always true; and that is durable
 *     before the first byte of the disk is written. So a crash at any moment leaves bitmaps that say "everything".
 *  2. At a clean close the bits, and an extension that names them, are written to free clusters and synced, after all data. Only
 *     then the one header sector that takes the in-use mark off names them. A crash before leaves 1; after it, what was closed.
 *     The clusters of the extension before are free only then.
 *  3. A bitmap that is begun or dropped while the device runs changes the extension by another one in another cluster, which the
 *     header names when it is durable (partial-table.c). Who begins one may wait for that (device_cbt_plant()).
 *  4. Bits are trusted only when the image was closed by software that keeps them ("v2.1"), the extension's digest is right and
 *     all of the bitmap lies in clusters that no index entry names. Else all of them are set. A bitmap whose own numbers make no
 *     sense, or that is one too many, is not taken over: it is dropped when the image is written to.
 *  5. A new top gets them, all set, before it becomes the top; the top before names none from then on. An image that becomes the top
 *     by a merge gets them, all set, before the merge begins. An empty top that names none has those of the level below: a snapshot of
 *     a disk that nobody uses is a new image and nothing else.
 *  6. When the room of the extension is needed (another size, compaction) it goes, and comes back when that is done: a crash
 *     between leaves no bitmap, which nobody can take for a clean one.
 * Raw images have no place for bitmaps.
 */
#ifndef DEVICE_CBT_H
#define DEVICE_CBT_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"
#include "device/tracker.h"

#define CBT_MOST 4u      /* bitmaps of a disk */
#define CBT_UNIT 65536u  /* bytes that a bit stands for, in those that are begun here */
#define CBT_ID 16u

struct device;
struct geometry;
struct ploop_error;
struct writer;

struct cbt_map {
	struct tracker tracker;
	uint8_t id[CBT_ID];
};

struct cbt {
	struct cbt_map *maps[CBT_MOST];
	unsigned n;
};

/* How many there are; the one of this number; the one with this id, or NULL. Good until the device is called next. */
unsigned device_cbt_count(const struct device *device);
const struct cbt_map *device_cbt_get(const struct device *device, unsigned i);
const struct cbt_map *device_cbt_find(const struct device *device, const uint8_t id[CBT_ID]);

/*
 * Begins a bitmap: all that changes from now on is in it. Not durable before device_cbt_plant(). -EEXIST, -ENOSPC (there are too
 * many), -EOPNOTSUPP (the top is raw), -EBUSY.
 */
int device_cbt_start(struct device *device, const uint8_t id[CBT_ID], struct ploop_error *err);
/* False: there is none of that id. */
bool device_cbt_drop(struct device *device, const uint8_t id[CBT_ID]);

/* Calls done() when a crash leaves the bitmaps that there are now, or with an error; may do so at once. */
struct cbt_plant {
	void (*done)(struct cbt_plant *plant, int result);
	struct list node; /* the engine's */
};
void device_cbt_plant(struct device *device, struct cbt_plant *plant);

/* ---- For the engine ---- */

/* At open, after the indexes were read: takes over what there is. Blocks. */
int cbt_load(struct device *device, struct ploop_error *err);
void cbt_fini(struct device *device);
/* One more, with no bit set. -EFBIG: there would be too many bits. */
int cbt_add(struct device *device, const uint8_t id[CBT_ID], uint64_t unit, struct cbt_map **ret);
/* The size changes from `old` to `size`: what is new has changed. Bitmaps that cannot follow are gone. */
void cbt_resize(struct device *device, uint64_t old, uint64_t size);
/* Whether a bitmap of the disk has a place in the extension, as one more than there are. */
bool cbt_fits(const struct device *device, uint64_t size, uint64_t unit);

/* Makes an extension of the bitmaps, all set, for an image that is in use; false when there are none. Not sealed. */
bool cbt_compose(const struct device *device, struct geometry *g, void *cluster);
/* Rule 1: writes it to file cluster k (0: to a free one), durably. The header is the caller's. Blocks. */
int cbt_put(struct writer *writer, uint32_t k);
/* Rule 2: writes bits and extension, for the header that is written next. *ret_old: what to free after that. Not synced. Blocks. */
int cbt_save(struct writer *writer, uint32_t *ret_old);
/* Whether the bits are those of the disk as it is with this writer's image as its top. */
bool cbt_may_save(const struct writer *writer);

#endif
