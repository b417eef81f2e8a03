/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * undo.h - a file that takes every block of metadata before a repair overwrites it, so that the repair can be taken back.
 *
 * The file: 32 bytes of head ("ploop undo file\n", then the length of the image as 8 bytes, then 8 zero bytes), then records of
 * 48 bytes and the old bytes:
 *
 *	 0  8  offset in the image        16 16  MD5 of the new bytes
 *	 8  4  length                     32 16  MD5 of this record's first 32 bytes and the old bytes
 *	12  4  zero
 *
 * A record with the offset 2^64 - 1 says, in its 8 bytes, how long the repair may make the image.
 *
 * A record is durable before its block is overwritten, so that a torn last record belongs to a block that was not touched.
 */
#ifndef JOB_UNDO_H
#define JOB_UNDO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_file;
struct ploop_error;
struct undo;

/* Starts an empty undo file, for an image of that length. The file stays the caller's. */
int undo_new(struct io_file *file, uint64_t image_size, struct undo **ret);
void undo_free(struct undo *undo);

/*
 * Keeps what of `len` bytes `before` at `offset` will be overwritten by `after`, sector by sector, as a power cut may leave some
 * sectors old and others new. Durable after undo_sync().
 */
int undo_save(struct undo *undo, uint64_t offset, const void *before, const void *after, uint32_t len);
/* Says that the repair will make the image this long at most. */
int undo_plan_length(struct undo *undo, uint64_t length);
int undo_sync(struct undo *undo);

/*
 * Puts the blocks and the length back. Nothing is written when a block is neither as the repair found it nor as it left it, or
 * the image is longer than the repair made it (-ESTALE), unless `force`, or when the undo file is none (-EINVAL).
 */
int undo_apply(struct io_file *file, struct io_file *image, bool force, struct ploop_error *err);

#endif
