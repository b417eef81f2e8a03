/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* modules.h - for this room: the tables that io.c lists. */
#ifndef IO_MODULES_H
#define IO_MODULES_H

#include "io/io.h"

extern const struct io_ops io_uring_ops;
extern const struct io_ops io_sync_ops;

#endif
