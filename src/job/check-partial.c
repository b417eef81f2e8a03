/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-partial.c - the table of partial clusters that a crash left (format/partial.h): what it names is in use. */
#include <errno.h>

#include "base/error.h"
#include "base/le.h"
#include "format/partial.h"
#include "job/check-private.h"

/* A record of a cluster that has an entry means nothing: device/partial.h, rule 4. */
static int has_entry(struct check *check, uint32_t v, bool *ret)
{
	uint8_t entry[4];
	int r = io_pread(check->file, entry, sizeof(entry), check->g.index + 4 * (uint64_t)v);

	*ret = le32_get(entry);
	return r;
}

static int judge_record(struct check *check, const struct partial_record *record, const char **ret_wrong)
{
	bool has = false;
	uint32_t place;
	int r;

	if (record->v >= check->g.clusters || (uint64_t)record->v * check->g.cluster >= check->g.size ||
	    format_ploop1.decode(&check->g, record->entry, &place) || place >= check->places) {
		*ret_wrong = "its table of partial clusters names a cluster that is not there";
		return 0;
	}
	r = has_entry(check, record->v, &has);
	if (!r && !has && bitmap_set(&check->extension, place))
		*ret_wrong = "its table of partial clusters uses a cluster twice";
	return r;
}

static int judge_page(struct check *check, const struct partial_table *table, uint32_t page, const char **ret_wrong)
{
	struct partial_record records[2][PARTIAL_RECORDS];
	uint8_t bytes[2 * FORMAT_PAGE];
	uint64_t sequence[2] = { 0 };
	bool good[2];
	unsigned copy;
	int r = io_pread(check->file, bytes, sizeof(bytes), partial_page_offset(table, page, 0));

	if (r)
		return r;
	for (copy = 0; copy < 2; copy++)
		good[copy] = partial_page_get(bytes + (size_t)copy * FORMAT_PAGE, &sequence[copy], records[copy]);
	if (!good[0] && !good[1])
		*ret_wrong = "its table of partial clusters has a wrong checksum";
	copy = !good[0] || (good[1] && sequence[1] > sequence[0]);
	for (unsigned i = 0; i < PARTIAL_RECORDS && !r && !*ret_wrong; i++)
		if (records[copy][i].entry)
			r = judge_record(check, &records[copy][i], ret_wrong);
	return r;
}

int check_partial(struct check *check, const void *cluster, const char **ret_wrong)
{
	struct partial_table table;
	int r = 0;

	*ret_wrong = NULL;
	if (partial_feature_find(cluster, &check->g, check->size, &table) != 1)
		*ret_wrong = "it describes its table of partial clusters wrongly";
	else if (bitmap_set(&check->extension, check_place_of(check, table.offset)))
		*ret_wrong = "its table of partial clusters lies in the extension";
	for (uint32_t page = 0; !r && !*ret_wrong && page < table.pages; page++)
		r = judge_page(check, &table, page, ret_wrong);
	return r;
}
