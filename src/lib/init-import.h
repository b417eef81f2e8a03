/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-import.h - writes what a scratch file holds into a new image, through the engine. */
#ifndef LIB_INIT_IMPORT_H
#define LIB_INIT_IMPORT_H

#include <stdint.h>

#include <ploop/ploop.h>

struct import;

/* Opens the image that image_create() made. `format`: "ploop1" or "raw"; `cluster`: bytes, of raw, else 0. */
int import_open(const char *path, const char *format, uint32_t cluster, struct import **ret, struct ploop_error *err);

/*
 * Writes the bytes of `fd` that are not zero to `offset` of the disk. Takes them out of `fd` as it goes, so that together
 * they never need much more room than once.
 */
int import_file(struct import *import, int fd, uint64_t offset, ploop_progress_fn progress, void *data,
		struct ploop_error *err);

/* Makes everything durable and closes the image properly. The import is gone in any case. */
int import_close(struct import *import, struct ploop_error *err);

#endif
