/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cbt-dump.h - a dirty bitmap as a file, {"uuid":..,"size":N,"granularity":N,"dirty":[{"offset":N,"length":N}, ...]}, and what two of
 * them have that the other has not.
 */
#ifndef CLI_CBT_DUMP_H
#define CLI_CBT_DUMP_H

#include <stdbool.h>

struct ploop_error;

/* Of a disk, an image, or another dump. `uuid` NULL: the only one that there is. `file` NULL: standard output. */
int cbt_dump(const char *disk, const char *uuid, const char *file, struct ploop_error *err);

/* Prints or writes each stretch that is in one dump only, "-" for the first and "+" for the second. */
int cbt_diff(const char *first, const char *second, const char *file, bool json, struct ploop_error *err);

#endif
