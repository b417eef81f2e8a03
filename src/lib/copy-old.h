/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-old.h - a copy goes out as the original's stream. What comes in as one is in copy-receive.h. */
#ifndef LIB_COPY_OLD_H
#define LIB_COPY_OLD_H

#include "lib/copy-sink.h"

/* `fd` and `feedback` (-1: none) stay the caller's. Takes one image. */
int copy_to_old(int fd, int feedback, struct copy_sink **ret, struct ploop_error *err);

/* Waits for the answer of the receiving side. -EIO (status 16) when it failed there, -EPROTO (13) for what is no answer. */
int copy_await(int feedback, struct ploop_error *err);

#endif
