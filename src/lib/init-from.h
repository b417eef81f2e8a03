/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-from.h - where the files of a new disk come from: a folder, or an archive that may be compressed or on standard input. */
#ifndef LIB_INIT_FROM_H
#define LIB_INIT_FROM_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

struct ext;
struct from;

/* Opens a folder, an archive, or "-". */
int from_open(const char *path, struct from **ret, struct ploop_error *err);
void from_close(struct from *from); /* NULL is accepted */

/* What is in a folder, found by looking at all of it: `files` never too few, `bytes` never too many. 0 for archives. */
struct from_size {
	uint64_t files, bytes;
};
int from_measure(struct from *from, struct from_size *ret, struct ploop_error *err);

/* Copies everything. */
int from_copy(struct from *from, struct ext *ext, ploop_progress_fn progress, void *data, struct ploop_error *err);

#endif
