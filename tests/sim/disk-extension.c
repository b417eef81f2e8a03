/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * disk-extension.c - a dirty bitmap in the top, as other software leaves it. Whatever happens, the bitmap that a closed image
 * names must be whole, and must not call clean what was written meanwhile.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "disk.h"
#include "format/extension.h"
#include "io/sim-table.h"

#define CLOSED_V21 0x312E3276u
#define HEAD 24
#define FEATURE 24
#define BITMAP 32
#define OTHER 1000 /* bytes of a feature that nobody knows and that may be dropped */

int disk_put_extension(const struct disk *disk, struct io_file *file, uint64_t at, struct prng *prng, uint64_t *ret_end)
{
	uint64_t bits = div_round_up(disk->size, 65536), entries = div_round_up(bits, 8 * (uint64_t)disk->cluster);
	uint8_t *cluster = sim_alloc(disk->cluster), *feature = cluster + HEAD, *bitmap;
	uint64_t entry = prng_below(prng, 3);
	int r;

	if (prng_one_in(prng, 2)) {
		le64_put(feature, 0x1234);
		le32_put(feature + 16, OTHER);
		memset(feature + FEATURE, 0x77, OTHER);
		feature += FEATURE + OTHER;
	}
	bitmap = feature + FEATURE;
	le64_put(feature, EXTENSION_BITMAP);
	le32_put(feature + 16, (uint32_t)(BITMAP + 8 * entries));
	le64_put(bitmap, disk->size / SECTOR);
	memset(bitmap + 8, 0x5a, 16);
	le32_put(bitmap + 24, 128);
	le32_put(bitmap + 28, (uint32_t)entries);
	*ret_end = at + disk->cluster;
	if (entry == 2) {
		entry = *ret_end / SECTOR; /* a cluster of bits */
		*ret_end += disk->cluster;
	}
	le64_put(bitmap + BITMAP, entry);
	extension_seal(cluster, disk->cluster);
	r = io_pwrite(file, cluster, disk->cluster, at);
	if (!r)
		r = io_truncate(file, *ret_end);
	free(cluster);
	return r;
}

int disk_settle_extension(const struct disk *disk, struct delta *delta)
{
	uint8_t *cluster;
	int r;

	if (!delta->geometry.extension)
		return 0;
	cluster = sim_alloc(disk->cluster);
	r = io_pread(delta->file, cluster, disk->cluster, delta->geometry.extension);
	if (!r)
		extension_settle(&delta->geometry, extension_judge(cluster, disk->cluster));
	free(cluster);
	return r;
}

/* Where a bitmap's bits lie: each cluster of them on a place of its own, behind the extension's. */
static const char *take_places(const struct disk *disk, const struct disk_level *level, const struct extension_bitmap *bitmap,
			       struct disk_places *ret)
{
	for (uint32_t i = 0; i < bitmap->clusters; i++) {
		uint64_t at = le64_get(bitmap->table + 8 * (size_t)i);

		if (at <= 1)
			continue;
		at *= SECTOR;
		if (at < level->start || (at - level->start) % disk->cluster)
			return "its dirty bitmap lies before or between clusters";
		if (ret->n == sizeof(ret->at) / sizeof(ret->at[0]))
			return "its dirty bitmap is in too many clusters";
		ret->at[ret->n++] = at;
	}
	return NULL;
}

static const char *look_at_features(const struct disk *disk, const struct disk_level *level, const uint8_t *cluster,
				    struct disk_places *ret)
{
	const char *wrong = extension_verify(cluster, disk->cluster);
	struct extension_feature feature;
	struct extension_bitmap bitmap;
	size_t pos = 0;
	int r;

	while (!wrong && (r = extension_next(cluster, disk->cluster, &pos, &feature)) != 0) {
		if (r < 0)
			return "the list of its features is broken";
		if (feature.magic != EXTENSION_BITMAP)
			continue;
		if (extension_bitmap(&feature, disk->cluster, &bitmap) || bitmap.size != level->size)
			return "its dirty bitmap is for another disk";
		wrong = take_places(disk, level, &bitmap, ret);
	}
	return wrong;
}

const char *disk_check_extension(const struct disk *disk, const struct disk_level *level, struct io_file *file,
				 const uint8_t *head, struct disk_places *ret)
{
	uint64_t at = le64_get(head + 56) * SECTOR;
	uint8_t *cluster;
	const char *wrong;

	ret->n = 0;
	if (le32_get(head + 44) != CLOSED_V21)
		return NULL;
	if (!disk->bitmaps || at < level->start)
		return "closed with an extension that it never had";
	cluster = sim_alloc(disk->cluster);
	ret->at[ret->n++] = at;
	if (io_pread(file, cluster, disk->cluster, at))
		wrong = "its extension cannot be read";
	else
		wrong = look_at_features(disk, level, cluster, ret);
	free(cluster);
	return wrong;
}
