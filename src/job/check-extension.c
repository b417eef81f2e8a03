/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* check-extension.c - the format extension, and the clusters that its bitmaps lie in. */
#include <errno.h>
#include <string.h>

#include "base/error.h"
#include "base/le.h"
#include "format/extension.h"
#include "job/check-private.h"
#include "job/undo.h"

uint64_t check_place_of(const struct check *check, uint64_t offset)
{
	struct geometry g = check->g;

	g.extension = offset;
	if (!extension_placed(&g, check->size))
		return CHECK_NOWHERE;
	return (uint64_t)((int64_t)offset - g.base) / g.cluster;
}

static void damaged(struct check *check, const char *what)
{
	if (check_found(check, PLOOP_CHECK_EXTENSION, CHECK_FILE, "The format extension is damaged: %s", what))
		check->drop_extension = true;
	else
		check->frozen = "its format extension is damaged, and might have forbidden writing";
}

/* What a bitmap says is worth nothing when a part of it is wrong, so that one finding is enough. */
static const char *judge_bitmap(struct check *check, const struct extension_feature *feature)
{
	struct extension_bitmap bitmap;

	if (extension_bitmap(feature, check->g.cluster, &bitmap))
		return "its numbers do not fit one another";
	if (bitmap.size != check->g.size)
		return "it is for a disk of another size";
	for (uint32_t i = 0; i < bitmap.clusters; i++) {
		uint64_t sector = le64_get(bitmap.table + 8 * (size_t)i), place;

		if (sector <= 1)
			continue;
		place = sector > INT64_MAX / SECTOR ? CHECK_NOWHERE : check_place_of(check, sector * SECTOR);
		if (place == CHECK_NOWHERE)
			return "it points to where no cluster is";
		if (bitmap_set(&check->extension, place))
			return "it uses a cluster twice";
	}
	return NULL;
}

static void judge_features(struct check *check, const void *cluster)
{
	struct extension_feature feature;
	size_t pos = 0;

	while (extension_next(cluster, check->g.cluster, &pos, &feature) == 1) {
		const char *wrong = feature.magic == EXTENSION_BITMAP ? judge_bitmap(check, &feature) : NULL;

		/* Behind an in-use mark no bitmap counts, right or wrong. */
		if (wrong && !check->image->in_use &&
		    check_found(check, PLOOP_CHECK_BITMAP, CHECK_FILE, "A dirty bitmap is damaged: %s", wrong))
			check->drop_extension = true;
	}
}

/* The levels below are needed to put that right, and a device. */
static int judge_partial(struct check *check, const void *cluster)
{
	const char *wrong;
	int r = check_partial(check, cluster, &wrong);

	if (wrong) {
		damaged(check, wrong);
		return r;
	}
	check->frozen = "it was not closed and holds clusters that are not whole; mount the disk once, or check it by its "
			"descriptor";
	check_found(check, PLOOP_CHECK_EXTENSION_KEPT, CHECK_FILE, "Nothing can be repaired: %s", check->frozen);
	return r;
}

static int judge_cluster(struct check *check, const void *cluster)
{
	const char *wrong = extension_verify(cluster, check->g.cluster);
	enum extension_verdict verdict = extension_judge(cluster, check->g.cluster);
	struct geometry g = check->g;
	int r = 0;

	if (verdict == EXTENSION_DAMAGED) {
		damaged(check, wrong ? wrong : "its list of features is cut");
		return 0;
	}
	if (verdict == EXTENSION_IS_PARTIAL)
		r = judge_partial(check, cluster);
	else if (verdict != EXTENSION_EXPENDABLE) {
		extension_settle(&g, verdict);
		check->frozen = g.reason;
		check_found(check, PLOOP_CHECK_EXTENSION_KEPT, CHECK_FILE, "Nothing can be repaired: %s", g.reason);
	}
	if (!r)
		judge_features(check, cluster);
	return r;
}

int check_extension(struct check *check)
{
	uint64_t place = check_place_of(check, check->g.extension);
	void *cluster;
	int r;

	if (!check->g.extension)
		return 0;
	if (place == CHECK_NOWHERE) {
		damaged(check, "it does not lie in a cluster of the file");
		return 0;
	}
	cluster = io_buffer_new(check->g.cluster);
	if (!cluster)
		return error_set(check->err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: no memory to check it",
				 check->file->path);
	bitmap_set(&check->extension, place);
	r = io_pread(check->file, cluster, check->g.cluster, check->g.extension);
	if (!r)
		r = judge_cluster(check, cluster);
	io_buffer_free(cluster, check->g.cluster);
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_READ, "%s: cannot read the format extension",
				 check->file->path);
	return 0;
}

/* Only what changes is kept and written: a cluster may be 64 MiB, of which a bitmap's table is a few bytes. */
static int write_cluster(struct check *check, const uint8_t *before, const uint8_t *after)
{
	const uint64_t offset = check->g.extension;
	int r = 0;

	if (check->undo)
		r = undo_save(check->undo, offset, before, after, check->g.cluster);
	if (!r && check->undo)
		r = undo_sync(check->undo);
	for (uint32_t at = 0; !r && at < check->g.cluster; at += SECTOR)
		if (memcmp(before + at, after + at, SECTOR))
			r = io_pwrite(check->file, after + at, SECTOR, offset + at);
	return r ? r : io_sync(check->file);
}

int check_spend_extension(struct check *check)
{
	uint32_t len = check->g.cluster;
	uint8_t *before, *after;
	int r = -ENOMEM;

	if (!check->g.extension || check->drop_extension || check->spent_extension)
		return 0;
	before = io_buffer_new(len);
	after = io_buffer_new(len);
	if (before && after)
		r = io_pread(check->file, before, len, check->g.extension);
	if (!r) {
		memcpy(after, before, len);
		if (!extension_spend(&check->g, after))
			check->drop_extension = true;
		else
			r = write_cluster(check, before, after);
	}
	io_buffer_free(before, len);
	io_buffer_free(after, len);
	check->spent_extension = true;
	if (r)
		return error_sys(check->err, r, PLOOP_EXIT_WRITE, "%s: cannot write the format extension",
				 check->file->path);
	return 0;
}
