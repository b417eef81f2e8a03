/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fiemap.h - where on its block device a file lies that was allocated and never written. */
#ifndef LIB_FIEMAP_H
#define LIB_FIEMAP_H

#include <stdint.h>

struct ploop_error;
struct ranges;

/*
 * Adds the places of all extents of `fd` that hold nothing (unwritten) and nothing else, in bytes of the file system's block
 * device. *ret_skipped: bytes of extents of any other kind.
 */
int fiemap_unwritten(int fd, struct ranges *ranges, uint64_t *ret_skipped, struct ploop_error *err);

/* Adds the stretches of the file that hold blocks, written or not: all of it where nobody can tell. */
int fiemap_allocated(int fd, struct ranges *ranges, struct ploop_error *err);

#endif
