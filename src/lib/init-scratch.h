/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-scratch.h - a file without a name to build something in. It is gone with its descriptor, whatever happens. */
#ifndef LIB_INIT_SCRATCH_H
#define LIB_INIT_SCRATCH_H

#include <stdint.h>

struct ploop_error;

/* A hole of `size` bytes in the folder that `beside` is in: what is built there needs the room of the disk once more. */
int scratch_open(const char *beside, uint64_t size, int *ret_fd, struct ploop_error *err);

/* The same in memory, for what is small. */
int scratch_open_memory(uint64_t size, int *ret_fd, struct ploop_error *err);

#endif
