/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-stack.h - what a copy of a whole disk sends before the image that is written: the descriptor and all other images. */
#ifndef LIB_COPY_STACK_H
#define LIB_COPY_STACK_H

#include "format/stream.h"
#include "lib/copy-sink.h"

struct ploop_copy;
struct ploop_device;

/* The name of a file without its folder. */
void copy_stack_name(const char *path, char ret[STREAM_NAME_MAX + 1]);

int copy_stack_send(const struct ploop_device *device, const struct ploop_copy *copy, struct copy_sink *sink,
		    struct ploop_error *err);

#endif
