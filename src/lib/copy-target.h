/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-target.h - a copy becomes an image file, or a folder with a descriptor and its images, on this host. */
#ifndef LIB_COPY_TARGET_H
#define LIB_COPY_TARGET_H

#include <stdbool.h>

#include "lib/copy-sink.h"

/* `resume`: goes on with the part that is there, if any, and keeps what there is when it breaks off. */
int copy_target_new(const char *path, bool resume, struct copy_sink **ret, struct ploop_error *err);

#endif
