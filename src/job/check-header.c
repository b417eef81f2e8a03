/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-header.c - the fields of the header, the length of the file, and the header written back. */
#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"
#include "job/check-private.h"
#include "job/undo.h"

static bool closed(const struct ploop1_header *h)
{
	return h->in_use == PLOOP1_CLOSED || h->in_use == PLOOP1_CLOSED_V21;
}

/* Whether the data area may start where the header says; version 1 of old knew offsets of any sector. */
static bool right_data_offset(const struct ploop1_header *h)
{
	if (!h->first_sector)
		return h->version == 1;
	if (h->version == 2 && h->first_sector % h->cluster_sectors)
		return false;
	return (uint64_t)h->first_sector * SECTOR >= PLOOP1_HEADER + 4 * (uint64_t)h->entries;
}

/* What is wrong with the data offset, or NULL. Then `fixed` has the right one, which the check goes on with, repaired or not: version
 * 2 counts clusters from the start of the file, so that the field says only where the index ends. */
static const char *judge_data_offset(struct check *check)
{
	const struct ploop1_header *h = &check->found;
	uint64_t start = (uint64_t)h->first_sector * SECTOR, least;
	const char *what = NULL;

	if (!h->cluster_sectors || h->cluster_sectors > PLOOP1_CLUSTER_LIMIT)
		return NULL;
	least = ploop1_data_start(h);
	if (!right_data_offset(h))
		what = "it lies in the index or between clusters";
	else if (start > check->size && start > least)
		what = "it lies behind the end of the file";
	if (!what || least / SECTOR > UINT32_MAX)
		return NULL;
	check->fixed.first_sector = (uint32_t)(least / SECTOR);
	return what;
}

void check_fields(struct check *check)
{
	const struct ploop1_header *h = &check->found;
	uint64_t sectors = check->g.size / SECTOR, needed = div_round_up(check->g.size, check->g.cluster);

	if (check->wrong_data_offset)
		check_found(check, PLOOP_CHECK_DATA_OFFSET, CHECK_FILE, "Wrong first block offset %u in the header: %s",
			    h->first_sector, check->wrong_data_offset);
	if (h->version == 1 && h->size_sectors >> 32 &&
	    check_found(check, PLOOP_CHECK_SIZE_FIELD, CHECK_FILE, "The size has bits that version 1 does not have"))
		check->fixed.size_sectors = sectors;
	if (h->entries > needed)
		check_found(check, PLOOP_CHECK_ENTRIES, CHECK_FILE,
			    "The index has %u entries, %llu more than the disk has clusters", h->entries,
			    (unsigned long long)(h->entries - needed));
	if (h->in_use == PLOOP1_CLOSED && h->extension_sector &&
	    check_found(check, PLOOP_CHECK_EXTENSION_STALE, CHECK_FILE,
			"The header names a format extension that was not kept up to date"))
		check->fixed.extension_sector = 0;
}

/* Says that nothing more can be checked. */
static int give_up(struct check *check, enum ploop_check_kind kind, const char *text)
{
	check_found(check, kind, CHECK_FILE, "%s", text);
	return 1;
}

/* Whether the index reaches into what the header calls the data area, or beyond the file. */
static bool too_long(const struct check *check)
{
	uint64_t end = PLOOP1_HEADER + 4 * (uint64_t)check->found.entries;

	if (check->found.version == 1 && !check->found.first_sector)
		return end > check->size;
	return end > check->size || end > (uint64_t)check->found.first_sector * SECTOR;
}

int check_header(struct check *check)
{
	struct ploop_error why = { 0 };
	uint8_t head[FORMAT_HEAD];
	struct geometry writing;
	int r;

	r = io_pread(check->file, head, sizeof(head), 0);
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_READ, "cannot read %s", check->file->path);
	if (!ploop1_header_get(head, min_u64(sizeof(head), check->size), &check->found))
		return give_up(check, PLOOP_CHECK_HEADER, "Wrong signature in the header");
	if (ploop1_converting(&check->found))
		return give_up(check, PLOOP_CHECK_CONVERTING,
			       "The image is in the changing version state; finish the interrupted `convert -v` first");
	check->fixed = check->found;
	check->wrong_data_offset = judge_data_offset(check);
	ploop1_header_put(&check->fixed, head);
	r = format_ploop1.parse(head, PLOOP1_HEADER, INT64_MAX, 0, &check->g, &why);
	if (r)
		return give_up(check, PLOOP_CHECK_HEADER, why.text);
	/* Rather than that data be taken for index, and cleared. */
	if (check->g.clusters > div_round_up(check->g.size, check->g.cluster) && too_long(check))
		return give_up(check, PLOOP_CHECK_HEADER,
			       "The header tells of more index entries than the disk needs and the file has room for");
	writing = check->g;
	writing.extension = 0;
	check->frozen = ploop1_judge_writing(&writing);
	check->image->version = check->g.version;
	check->image->size = check->g.size;
	check->image->cluster = check->g.cluster;
	check->image->entries = check->g.clusters;
	check->image->in_use = !closed(&check->found);
	return 0;
}

static int set_length(struct check *check, uint64_t size)
{
	int r = check_plan_length(check, size);

	if (!r)
		r = io_truncate(check->file, size);
	if (!r)
		r = io_sync(check->file);
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_FTRUNCATE, "%s: cannot make it %llu bytes long",
				 check->file->path, (unsigned long long)size);
	return check_grown(check, size);
}

int check_length(struct check *check)
{
	uint64_t start = geometry_offset(&check->g, check->g.first), whole;
	uint64_t missing;

	if (check->size < start) {
		missing = start - check->size;
		/* The index is what is missing: it reads as zeros from now on, as it did before. */
		if (check_found(check, PLOOP_CHECK_SHORT, (struct check_where){ CHECK_NOWHERE, CHECK_NOWHERE, missing },
				"The file ends %llu bytes before its data area", (unsigned long long)missing))
			return set_length(check, start);
		return 0;
	}
	missing = (check->size - start) % check->g.cluster;
	if (!missing || !checked_add(check->size, check->g.cluster - missing, &whole))
		return 0;
	missing = check->g.cluster - missing;
	if (check_found(check, PLOOP_CHECK_LENGTH, (struct check_where){ CHECK_NOWHERE, CHECK_NOWHERE, missing },
			"Image size %llu is not aligned to cluster %u", (unsigned long long)check->size,
			check->g.cluster))
		return set_length(check, whole);
	return 0;
}

static void judge_flags(struct check *check)
{
	uint32_t flags = check->found.flags;
	const char *what = NULL;

	/* That the flag is missing from an empty image is usual: others do not know it. */
	if (flags & ~PLOOP1_FLAG_EMPTY)
		what = "The header has flags that mean nothing";
	else if (flags && check->image->mapped)
		what = "CIF_Empty flag is incorrect";
	if (what && check_found(check, PLOOP_CHECK_FLAGS, CHECK_FILE, "%s (0x%x)", what, flags))
		check->fixed.flags = check->image->mapped ? 0 : flags & PLOOP1_FLAG_EMPTY;
}

/* True when the mark shall go now. */
static bool judge_in_use(struct check *check)
{
	const struct ploop_check_options *options = check->options;
	enum ploop_check_verdict verdict = PLOOP_CHECK_FOUND;
	bool known = ploop1_in_use_legal(check->found.in_use);

	if (options->drop_in_use && !options->read_only)
		verdict = check->image->errors || check->frozen ? PLOOP_CHECK_SKIPPED : PLOOP_CHECK_FIXED;
	check_report(
		check, verdict,
		&(struct ploop_check_finding){
			.kind = PLOOP_CHECK_IN_USE,
			.cluster = CHECK_NOWHERE,
			.file_cluster = CHECK_NOWHERE,
			.text = known ? "Dirty flag is set: the image was not closed"
				      : "Dirty flag is set, to a value that means nothing: the image was not closed",
		});
	check->image->in_use = verdict != PLOOP_CHECK_FIXED;
	/* Whoever opened it did not come to say that the extension still holds. */
	if (check->g.extension)
		check_report(check, verdict,
			     &(struct ploop_check_finding){
				     .kind = PLOOP_CHECK_EXTENSION_STALE,
				     .cluster = CHECK_NOWHERE,
				     .file_cluster = CHECK_NOWHERE,
				     .text = "The dirty bitmaps do not count: the image was not closed",
			     });
	return verdict == PLOOP_CHECK_FIXED;
}

/* The header lies in a block with the first entries; only its own bytes are written. */
static int write_header(struct check *check, const void *before, const void *after)
{
	int r = 0;

	if (check->undo) {
		r = undo_save(check->undo, 0, before, after, PLOOP1_HEADER);
		if (!r)
			r = undo_sync(check->undo);
	}
	if (!r)
		r = io_pwrite(check->file, after, PLOOP1_HEADER, 0);
	if (!r)
		r = io_sync(check->file);
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_WRITE, "%s: cannot write the header", check->file->path);
	check->image->changed = true;
	return 0;
}

int check_close_header(struct check *check)
{
	uint8_t before[PLOOP1_HEADER], after[PLOOP1_HEADER];
	struct ploop1_header h;
	int r = 0;

	judge_flags(check);
	h = check->fixed;
	if (!closed(&check->found) && judge_in_use(check)) {
		h.in_use = check->g.extension ? PLOOP1_CLOSED_V21 : PLOOP1_CLOSED;
		r = check_spend_extension(check);
	}
	if (r)
		return r;
	if (check->drop_extension) {
		h.extension_sector = 0;
		if (h.in_use == PLOOP1_CLOSED_V21)
			h.in_use = PLOOP1_CLOSED;
	}
	/* A data offset that was only assumed. */
	if (check->image->found[PLOOP_CHECK_DATA_OFFSET] > check->image->fixed[PLOOP_CHECK_DATA_OFFSET])
		h.first_sector = check->found.first_sector;
	ploop1_header_put(&check->found, before);
	ploop1_header_put(&h, after);
	return memcmp(before, after, sizeof(before)) ? write_header(check, before, after) : 0;
}
