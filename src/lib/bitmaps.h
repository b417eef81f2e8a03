/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmaps.h - the dirty bitmaps of a disk, be it running or not. */
#ifndef LIB_BITMAPS_H
#define LIB_BITMAPS_H

#include <stdbool.h>

#include <ploop/ploop.h>

#include "device/cbt.h"

struct ploop_disk;

/* The running device that a person means by `name`: the device itself, or that of a descriptor, its folder or an image. 1: in *ret,
 * which the caller clears; 0: nobody uses the disk. */
int bitmaps_find_device(const char *name, struct ploop_device *ret, struct ploop_error *err);

/* Opens a disk that nobody uses. For writing all is an ordinary image: nothing is partial. bitmaps_close_disk() ends it. */
int bitmaps_open_disk(const char *path, bool write, struct ploop_disk **ret, struct ploop_error *err);
int bitmaps_close_disk(struct ploop_disk *disk, struct ploop_error *err);

/* Says that the disk has no bitmap of that UUID. Status 44. */
int bitmaps_missing(const char *disk, const uint8_t id[CBT_ID], struct ploop_error *err);

#endif
