/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* gc.h - a growing list of leftovers, for gc*.c. */
#ifndef LIB_GC_H
#define LIB_GC_H

#include <ploop/ploop.h>

struct leftovers {
	struct ploop_leftover *items;
	size_t n;
};

/* Adds one; `path` is copied. NULL without memory. */
struct ploop_leftover *leftovers_add(struct leftovers *list, enum ploop_leftover_kind kind, const char *path);

/* Devices whose ploopd is dead, and names in /dev that lead nowhere. */
int gc_devices(struct leftovers *list, bool remove, struct ploop_error *err);

#endif
