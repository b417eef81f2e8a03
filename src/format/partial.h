/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partial.h - the table of partial clusters: what a delta that is in use holds beyond its index.
 *
 * A partial cluster is one that the delta has begun to take from below: some of its units lie in a file cluster of the delta, the
 * rest is still read from the levels below. It gets its index entry when it is whole. What was flushed before that stands
 * in this table, which a feature of the format extension names. The feature is NECESSARY: who does not know it must not
 * touch the image. It is there only while the image is in use, or was left so by a crash.
 *
 * The table is one cluster of the data area. It holds pages of FORMAT_PAGE bytes, each twice, one copy behind the other: a new
 * state of a page is written over the older copy, so that a crash leaves the old state or the new one. Of the copies whose
 * checksum is right the one with the higher sequence number counts. A page of zeros was never written.
 *
 *	page:    0 CRC32C of the rest   4 magic number   8 sequence number (8)   64 records, PARTIAL_RECORDS of them
 *	record:  0 virtual cluster   4 the entry that the index will get; 0: no record   8 a bit for each unit that is there
 *
 * What a record means, and when it means nothing, is in device/partial.h.
 */
#ifndef FORMAT_PARTIAL_H
#define FORMAT_PARTIAL_H

#include <stdbool.h>
#include <stdint.h>

#include "format/extension.h"
#include "format/format.h"

#define PARTIAL_UNITS 256u   /* of a cluster at most; a unit has at least FORMAT_PAGE bytes */
#define PARTIAL_RECORDS 100u /* of a page */
#define PARTIAL_FEATURE 16u  /* bytes of the feature: 0 sector of the table (8), 8 bytes of a unit, 12 pages */

struct partial_table {
	uint64_t offset; /* byte of the file */
	uint32_t unit;   /* bytes */
	uint32_t pages;  /* each of which is there twice */
};

struct partial_record {
	uint32_t v;
	uint32_t entry; /* as in the index; 0: no record */
	uint64_t valid[PARTIAL_UNITS / 64];
};

/* Bytes of a unit in clusters of that size. */
uint32_t partial_unit(uint32_t cluster);
/* How many pages a table may have: it fits a cluster. 0 where the cluster size is none that is written to. */
uint32_t partial_max_pages(uint32_t cluster);

/* Byte of the file where a copy (0 or 1) of a page lies. */
static inline uint64_t partial_page_offset(const struct partial_table *table, uint32_t page, unsigned copy)
{
	return table->offset + (2 * (uint64_t)page + copy) * FORMAT_PAGE;
}

void partial_feature_put(const struct partial_table *table, uint8_t data[PARTIAL_FEATURE]);

/* Looks for the feature in an extension. 1: found, 0: there is none; -EINVAL: it makes no sense for this image. */
int partial_feature_find(const void *extension, const struct geometry *g, uint64_t file_size, struct partial_table *ret);

void partial_page_put(void *page, uint64_t sequence, const struct partial_record records[PARTIAL_RECORDS]);
/* False: torn, or damaged. A page of zeros has sequence number 0. */
bool partial_page_get(const void *page, uint64_t *ret_sequence, struct partial_record records[PARTIAL_RECORDS]);

/* Whether the bits of a record are of a cluster that has so many units. */
bool partial_record_fits(const struct partial_record *record, unsigned units);

#endif
