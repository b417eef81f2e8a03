/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loop-kinds.h - for this room: what the kinds of loop share beyond loop.h. */
#ifndef IO_LOOP_KINDS_H
#define IO_LOOP_KINDS_H

#include <time.h>

#include "io/loop.h"

/* Descriptors that a loop can watch at once. */
#define LOOP_WATCHES 512u

int loop_uring_new(unsigned depth, struct loop **ret, struct ploop_error *err);
int loop_poll_new(struct loop **ret, struct ploop_error *err);

/* The `now` of the kinds that live in real time. */
uint64_t loop_monotonic(struct loop *loop);

static inline struct timespec loop_timespec(uint64_t ns)
{
	return (struct timespec){ .tv_sec = (time_t)(ns / UINT64_C(1000000000)),
				  .tv_nsec = (long)(ns % UINT64_C(1000000000)) };
}

#endif
