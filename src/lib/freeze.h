/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* freeze.h - the file systems on a device stand still, all they have written is on it: around the moment of a snapshot. */
#ifndef LIB_FREEZE_H
#define LIB_FREEZE_H

#include <stdint.h>

struct freeze;
struct ploop_device;
struct ploop_error;

/*
 * Freezes every file system that is mounted from the device, in whatever namespace. One that holds `folder` is
 * left alone, with a warning: to write there would then wait for ever.
 */
int freeze_start(const struct ploop_device *device, const char *folder, struct freeze **ret, struct ploop_error *err);

/* Thaws. -ETIMEDOUT when they went on before that. NULL is accepted. */
int freeze_end(struct freeze *freeze);

#endif
