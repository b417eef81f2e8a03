/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* device-find.h - from what a person names to a device, for the files of this room. */
#ifndef LIB_DEVICE_FIND_H
#define LIB_DEVICE_FIND_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "lib/blockdev.h"

/* What ploop_device does not tell. */
struct device_entry {
	struct ploop_device device; /* first: ploop_device_clear() frees all of it */
	uint64_t diskseq;
};

/* -ENOENT when there is no such name. A device whose state cannot be read has only a name. */
int device_entry_load(const char *name, struct device_entry *ret, struct ploop_error *err);

/* Does `image`, a descriptor, its folder or an image file, belong to the device? */
bool device_has_image(const struct ploop_device *device, const char *image);

/* Finds the name of the one device that is meant. */
int device_find(const struct ploop_which *which, struct device_entry *ret, struct ploop_error *err);

/* The kernel's device behind it; one without numbers when it is gone. */
void device_blockdev(const struct device_entry *entry, struct blockdev *ret);

#endif
