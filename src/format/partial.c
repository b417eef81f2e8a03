/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partial.c - see partial.h. */
#include "format/partial.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/le.h"
#include "format/ploop1.h"

#define PAGE_MAGIC 0x50746C50u /* "PltP" */
#define PAGE_HEAD 64u
#define RECORD 40u

_Static_assert(PAGE_HEAD + PARTIAL_RECORDS * RECORD <= FORMAT_PAGE, "a page holds its records");

uint32_t partial_unit(uint32_t cluster)
{
	return (uint32_t)max_u64(FORMAT_PAGE, cluster / PARTIAL_UNITS);
}

uint32_t partial_max_pages(uint32_t cluster)
{
	if (!is_power_of_two(cluster) || cluster < PLOOP1_CLUSTER_MIN || cluster > PLOOP1_CLUSTER_MAX)
		return 0;
	return cluster / (2 * FORMAT_PAGE);
}

void partial_feature_put(const struct partial_table *table, uint8_t data[PARTIAL_FEATURE])
{
	le64_put(data, table->offset / SECTOR);
	le32_put(data + 8, table->unit);
	le32_put(data + 12, table->pages);
}

static int feature_get(const struct extension_feature *feature, const struct geometry *g, uint64_t file_size,
		       struct partial_table *ret)
{
	struct geometry at = *g;
	struct partial_table table;

	if (feature->length != PARTIAL_FEATURE || !checked_mul(le64_get(feature->data), SECTOR, &table.offset))
		return -EINVAL;
	table.unit = le32_get(feature->data + 8);
	table.pages = le32_get(feature->data + 12);
	at.extension = table.offset;
	if (table.unit != partial_unit(g->cluster) || !table.pages || table.pages > partial_max_pages(g->cluster) ||
	    table.offset == g->extension || !extension_placed(&at, file_size))
		return -EINVAL;
	*ret = table;
	return 1;
}

int partial_feature_find(const void *extension, const struct geometry *g, uint64_t file_size, struct partial_table *ret)
{
	struct extension_feature feature;
	size_t pos = 0;
	int r;

	while ((r = extension_next(extension, g->cluster, &pos, &feature)) == 1)
		if (feature.magic == EXTENSION_PARTIAL)
			return feature_get(&feature, g, file_size, ret);
	return r;
}

void partial_page_put(void *page, uint64_t sequence, const struct partial_record records[PARTIAL_RECORDS])
{
	uint8_t *bytes = page, *p = bytes + PAGE_HEAD;

	memset(bytes, 0, FORMAT_PAGE);
	le32_put(bytes + 4, PAGE_MAGIC);
	le64_put(bytes + 8, sequence);
	for (unsigned i = 0; i < PARTIAL_RECORDS; i++, p += RECORD) {
		if (!records[i].entry)
			continue;
		le32_put(p, records[i].v);
		le32_put(p + 4, records[i].entry);
		for (unsigned w = 0; w < PARTIAL_UNITS / 64; w++)
			le64_put(p + 8 + 8 * (size_t)w, records[i].valid[w]);
	}
	le32_put(bytes, crc32c(0, bytes + 4, FORMAT_PAGE - 4));
}

static bool blank(const uint8_t *bytes)
{
	return !bytes[0] && !memcmp(bytes, bytes + 1, FORMAT_PAGE - 1);
}

bool partial_page_get(const void *page, uint64_t *ret_sequence, struct partial_record records[PARTIAL_RECORDS])
{
	const uint8_t *bytes = page, *p = bytes + PAGE_HEAD;

	memset(records, 0, PARTIAL_RECORDS * sizeof(*records));
	*ret_sequence = 0;
	if (blank(bytes))
		return true;
	if (le32_get(bytes + 4) != PAGE_MAGIC || le32_get(bytes) != crc32c(0, bytes + 4, FORMAT_PAGE - 4))
		return false;
	*ret_sequence = le64_get(bytes + 8);
	for (unsigned i = 0; i < PARTIAL_RECORDS; i++, p += RECORD) {
		records[i].v = le32_get(p);
		records[i].entry = le32_get(p + 4);
		for (unsigned w = 0; w < PARTIAL_UNITS / 64; w++)
			records[i].valid[w] = le64_get(p + 8 + 8 * (size_t)w);
	}
	return true;
}

bool partial_record_fits(const struct partial_record *record, unsigned units)
{
	for (unsigned u = units; u < PARTIAL_UNITS; u++)
		if (record->valid[u / 64] >> (u % 64) & 1)
			return false;
	return true;
}
