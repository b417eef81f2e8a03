/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* settle.h - lets a running device fill in what it has written in part, before an operation that must not wait for that. */
#ifndef LIB_SETTLE_H
#define LIB_SETTLE_H

struct ploop_error;

/* Waits until the device of this name ("ploop0") has settled; it stays so until a new top is pushed, or for some seconds. */
int settle_device(const char *name, struct ploop_error *err);

#endif
