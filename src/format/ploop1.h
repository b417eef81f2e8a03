/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ploop1.h - the header of a ploop1 image, field by field, before anybody has judged it.
 *
 * format.h is what the engine uses. This is for those who look at images that parse() refuses: check, info and tests.
 * ploop-format(5) is the norm.
 */
#ifndef FORMAT_PLOOP1_H
#define FORMAT_PLOOP1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/format.h"

#define PLOOP1_HEADER 64u /* bytes; the index follows at once */
#define PLOOP1_TYPE 2u

#define PLOOP1_IN_USE 0x746F6E59u     /* open for writing, or left so */
#define PLOOP1_CLOSED 0u	      /* closed by software that knows no extensions: what it finds of them is stale */
#define PLOOP1_CLOSED_V21 0x312E3276u /* "v2.1": closed by software that keeps extensions up to date */

#define PLOOP1_FLAG_EMPTY 1u /* no data cluster was ever written; a hint */
#define PLOOP1_FLAG_CONVERTING \
	2u /* with in use: a change of the version was interrupted, entries may be in either unit */
#define PLOOP1_FLAGS_INVALID 0xFFFFFFFFu

#define PLOOP1_CLUSTER_MIN (64u * SECTOR)
#define PLOOP1_CLUSTER_MAX (131072u * SECTOR)
#define PLOOP1_CLUSTER_LIMIT (0x7FFFFFFFu / 513u) /* sectors; what other software reads at most */

#define PLOOP1_ENTRY_NONE 0xFFFFFFFFu /* what others keep in memory for "not mapped"; never legal on disk */

/* Byte offsets of the fields that single writes change. */
#define PLOOP1_OFF_IN_USE 44u
#define PLOOP1_OFF_FIRST 48u
#define PLOOP1_OFF_FLAGS 52u
#define PLOOP1_OFF_EXTENSION 56u

struct ploop1_header {
	uint32_t version; /* by the signature: 1 or 2 */
	uint32_t type;
	uint32_t heads, cylinders;
	uint32_t cluster_sectors;
	uint32_t entries;
	uint64_t size_sectors; /* all 64 bits as stored; version 1 uses the low 32 */
	uint32_t in_use;
	uint32_t first_sector; /* of the data area */
	uint32_t flags;
	uint64_t extension_sector;
};

/* False when there are fewer than PLOOP1_HEADER bytes or the signature is wrong. */
bool ploop1_header_get(const void *head, size_t len, struct ploop1_header *ret);
void ploop1_header_put(const struct ploop1_header *header, void *head);

/* Byte where the data area of a right header starts: at the first cluster (version 1 of old: sector) after the index.
 */
uint64_t ploop1_data_start(const struct ploop1_header *header);

/* True for the three legal values of in_use. Any other counts as in use. */
bool ploop1_in_use_legal(uint32_t in_use);

/* True when a change of the version was interrupted. */
bool ploop1_converting(const struct ploop1_header *header);

/* Why an image that can be read must not be written, or NULL. */
const char *ploop1_judge_writing(const struct geometry *g);

/* The heads and cylinders that go into the header of a disk of so many sectors, and the sectors per track of the
 * descriptor. */
struct ploop1_chs {
	uint32_t cylinders, heads, sectors;
};
struct ploop1_chs ploop1_chs(uint64_t size_sectors);

#endif
