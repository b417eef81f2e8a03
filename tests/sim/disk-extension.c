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

const char *disk_check_extension(const struct disk *disk, const struct disk_level *level, struct io_file *file,
				 const uint8_t *head, uint64_t *ret_at)
{
	uint64_t at = le64_get(head + 56) * SECTOR;
	uint8_t *cluster;
	const char *wrong = NULL;

	*ret_at = 0;
	if (le32_get(head + 44) != CLOSED_V21)
		return NULL;
	if (!level->extension || at < level->start)
		return "closed with an extension that it never had";
	cluster = sim_alloc(disk->cluster);
	if (io_pread(file, cluster, disk->cluster, at))
		wrong = "its extension cannot be read";
	else
		wrong = extension_verify(cluster, disk->cluster);
	/* Whoever writes keeps nothing but the bitmap. */
	if (!wrong && level->spent && le64_get(cluster + HEAD + FEATURE + BITMAP) != 1)
		wrong = "its dirty bitmap calls clean what was written";
	free(cluster);
	*ret_at = at;
	return wrong;
}
