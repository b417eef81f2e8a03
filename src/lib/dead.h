/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dead.h - clearing what a ploopd that died left: its file systems, the kernel's device, its names. */
#ifndef LIB_DEAD_H
#define LIB_DEAD_H

struct device_entry;
struct ploop_error;

int dead_clear(const struct device_entry *entry, struct ploop_error *err);

#endif
