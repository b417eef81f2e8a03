/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* size.h - sizes as people write and read them. */
#ifndef CLI_SIZE_H
#define CLI_SIZE_H

#include <stdint.h>

#include <ploop/ploop.h>

#define SIZE_SECTORS 512u
#define SIZE_BYTES 1u

/*
 * Reads a number of the original's grammar: decimal, 0x or 0 octal, then at most one of K, M, G, T in either case
 * (binary). A number without suffix counts `unit` bytes: SIZE_SECTORS for sizes of disks. `option` ("-s") is for the
 * message. The upper bound, exclusive, is 0xffffffff << 9 sectors.
 */
int size_parse(const char *text, const char *option, unsigned unit, uint64_t *ret, struct ploop_error *err);

/* A plain number of the same grammar without suffix, at most `max`. */
int number_parse(const char *text, const char *option, uint64_t max, uint64_t *ret, struct ploop_error *err);

/* "1.5 GiB"; exact multiples have no fraction. Returns `buffer`. */
#define SIZE_TEXT 16
const char *size_format(uint64_t bytes, char buffer[SIZE_TEXT]);

#endif
