/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tracker.h - the write tracker: which parts of a disk have changed since somebody last asked.
 *
 * A part is noted when its new content can be read, or its new place be looked up: not before. So who takes the note away
 * first, and reads then, either gets what the note was about, or finds a new note later. What is under way is never missed.
 */
#ifndef DEVICE_TRACKER_H
#define DEVICE_TRACKER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"
#include "base/list.h"

struct device;
struct device_track;
struct ploop_error;

/* In the caller's struct; the engine's from device_track() to device_track_end(). */
struct tracker {
	struct list node;
	struct bitmap dirty; /* a bit for so many bytes: */
	uint64_t unit;
};

/* For a disk of `size` bytes. A note is about 4 KiB, or more where that would take too much memory. 0 or -ENOMEM. */
int tracker_init(struct tracker *tracker, uint64_t size);
/* The same with notes of so many bytes, a power of two. -EFBIG when there would be too many. */
int tracker_init_unit(struct tracker *tracker, uint64_t size, uint64_t unit);
void tracker_fini(struct tracker *tracker);

/*
 * From now on changes are noted, and no cluster moves: this is long work, which other such work has to wait for (-EBUSY). When
 * the device closes meanwhile, it calls stopped(data), which must call device_track_end().
 */
int device_track(struct device *device, struct tracker *tracker, void (*stopped)(void *data), void *data,
		 struct device_track **ret, struct ploop_error *err);

/*
 * The device stands still: requests wait until it is released. drained(data) says that nothing is under way any more; it may be
 * called from inside, and is not called after the release.
 */
void device_track_hold(struct device_track *track, void (*drained)(void *data));
void device_track_release(struct device_track *track);

/* Ends it; a device that stands still goes on. */
void device_track_end(struct device_track *track);

/* Notes the bytes from `start` to `end`, rounded to whole units. */
void tracker_mark(struct tracker *tracker, uint64_t start, uint64_t end);

/*
 * The first stretch at or after `from` with notes on all of it, at most `most` bytes long. The notes are taken away. False:
 * there is none.
 */
bool tracker_take(struct tracker *tracker, uint64_t from, uint64_t most, uint64_t *ret_start, uint64_t *ret_end);

/* Bytes that have notes, in whole units. */
uint64_t tracker_dirty(const struct tracker *tracker);

#endif
