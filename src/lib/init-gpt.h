/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-gpt.h - the partition table of a new disk: a GPT with one partition that starts and ends at a cluster. */
#ifndef LIB_INIT_GPT_H
#define LIB_INIT_GPT_H

#include <stdint.h>

struct ploop_error;

struct partition {
	uint64_t start, size; /* bytes */
};

/* Where the one partition of a disk lies: one cluster is left for the table before it, and one or more after it. */
int gpt_plan(uint64_t disk, uint32_t cluster, struct partition *ret, struct ploop_error *err);

/* Writes the table, both copies, onto a file or device of the size of the disk. */
int gpt_write(int fd, const char *name, const struct partition *partition, struct ploop_error *err);

#endif
