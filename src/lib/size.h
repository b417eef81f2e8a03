/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * size.h - another size, in the parts that growing a device and resizing a disk share.
 *
 * The image first, then the descriptor, which so never promises more than the image has when it grows. A descriptor that was
 * left behind is only a hint, which nobody here relies on, and the next change of the size sets it right.
 */
#ifndef LIB_SIZE_H
#define LIB_SIZE_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

struct change;
struct stack_request;

/* Of a device that is used: larger only. `name` is "ploop0". *ret is the size that it has then. */
int size_set_device(const char *name, uint64_t size, uint64_t *ret, struct ploop_error *err);

/* Of files that nobody uses. `shrink`: a smaller one is wanted as well, and what is beyond goes. */
int size_set_files(const struct stack_request *files, uint64_t size, bool shrink, uint64_t *ret,
		   struct ploop_error *err);

/* Of a disk whose change has begun, mounted or not; and of its descriptor. */
int size_set_disk(struct change *change, uint64_t size, bool shrink, uint64_t *ret, struct ploop_error *err);

/* The descriptor alone: what it says about the size. */
int size_set_descriptor(struct change *change, uint64_t size, struct ploop_error *err);

#endif
