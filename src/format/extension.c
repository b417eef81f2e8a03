/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* extension.c - see extension.h. */
#include "format/extension.h"

#include <errno.h>
#include <md5.h>
#include <string.h>
#include <sys/types.h>

#include "base/checked.h"
#include "base/le.h"
#include "format/ploop1.h"

#define HEAD 24u         /* magic and digest */
#define FEATURE_HEAD 24u /* magic, flags, length, unused */

static void digest(const void *cluster, size_t len, uint8_t ret[MD5_DIGEST_LENGTH])
{
	MD5_CTX ctx;

	MD5Init(&ctx);
	MD5Update(&ctx, (const uint8_t *)cluster + HEAD, len - HEAD);
	MD5Final(ret, &ctx);
}

const char *extension_verify(const void *cluster, size_t len)
{
	uint8_t sum[MD5_DIGEST_LENGTH];

	if (len < HEAD || le64_get(cluster) != EXTENSION_MAGIC)
		return "wrong magic number";
	digest(cluster, len, sum);
	return memcmp((const uint8_t *)cluster + 8, sum, sizeof(sum)) ? "wrong checksum" : NULL;
}

void extension_seal(void *cluster, size_t len)
{
	le64_put(cluster, EXTENSION_MAGIC);
	digest(cluster, len, (uint8_t *)cluster + 8);
}

int extension_next(const void *cluster, size_t len, size_t *pos, struct extension_feature *ret)
{
	const uint8_t *p = cluster;
	size_t at = *pos ? *pos : HEAD;
	struct extension_feature f;

	/* A list that fills the cluster to its end needs no terminator. */
	if (at + FEATURE_HEAD > len)
		return at == len ? 0 : -EINVAL;
	f.magic = le64_get(p + at);
	f.flags = le64_get(p + at + 8);
	f.length = le32_get(p + at + 16);
	f.data = p + at + FEATURE_HEAD;
	if (!f.magic)
		return f.flags || f.length ? -EINVAL : 0;
	at += FEATURE_HEAD;
	if (f.length > len - at)
		return -EINVAL;
	*pos = min_u64(at + round_up(f.length, 8), len);
	*ret = f;
	return 1;
}

int extension_bitmap(const struct extension_feature *feature, uint32_t cluster, struct extension_bitmap *ret)
{
	const uint8_t *p = feature->data;
	struct extension_bitmap b;
	uint64_t bits;

	if (feature->length < EXTENSION_BITMAP_HEAD)
		return -EINVAL;
	memcpy(b.id, p + 8, sizeof(b.id));
	b.granularity = (uint64_t)le32_get(p + 24) * SECTOR;
	b.clusters = le32_get(p + 28);
	b.table = p + EXTENSION_BITMAP_HEAD;
	if (!checked_mul(le64_get(p), SECTOR, &b.size) || !is_power_of_two(b.granularity))
		return -EINVAL;
	bits = div_round_up(b.size, b.granularity);
	if (b.clusters != div_round_up(bits, 8 * (uint64_t)cluster) || b.clusters > (feature->length - EXTENSION_BITMAP_HEAD) / 8)
		return -EINVAL;
	*ret = b;
	return 0;
}

uint64_t extension_bitmap_room(uint64_t clusters)
{
	return FEATURE_HEAD + EXTENSION_BITMAP_HEAD + 8 * clusters;
}

void extension_bitmap_put(const struct extension_bitmap *bitmap, uint8_t *data)
{
	le64_put(data, bitmap->size / SECTOR);
	memcpy(data + 8, bitmap->id, sizeof(bitmap->id));
	le32_put(data + 24, (uint32_t)(bitmap->granularity / SECTOR));
	le32_put(data + 28, bitmap->clusters);
}

bool extension_placed(const struct geometry *g, uint64_t file_size)
{
	uint64_t start = geometry_offset(g, g->first), end;

	return g->extension >= start && (g->extension - start) % g->cluster == 0 &&
	       checked_add(g->extension, g->cluster, &end) && end <= file_size;
}

enum extension_verdict extension_judge(const void *cluster, size_t len)
{
	enum extension_verdict verdict = EXTENSION_EXPENDABLE;
	struct extension_feature f;
	size_t pos = 0;
	int r;

	if (extension_verify(cluster, len))
		return EXTENSION_DAMAGED;
	while ((r = extension_next(cluster, len, &pos, &f)) == 1) {
		if (f.magic == EXTENSION_PARTIAL) {
			if (verdict == EXTENSION_EXPENDABLE)
				verdict = EXTENSION_IS_PARTIAL;
			continue;
		}
		/* A bitmap that claims to be necessary is a rule that is not known either. */
		if (f.flags & EXTENSION_NECESSARY)
			return EXTENSION_IS_NECESSARY;
		if (f.flags & EXTENSION_TRANSIT && f.magic != EXTENSION_BITMAP)
			verdict = EXTENSION_IS_TRANSIT;
	}
	return r < 0 ? EXTENSION_DAMAGED : verdict;
}

void extension_settle(struct geometry *g, enum extension_verdict verdict)
{
	static const char *const reasons[] = {
		[EXTENSION_IS_NECESSARY] =
			"its format extension has a feature that is not known here but forbids writing without "
			"knowing it; use the software that made it",
		[EXTENSION_IS_TRANSIT] =
			"its format extension has a feature that must be kept, which is not known here; use the "
			"software that made it",
		[EXTENSION_DAMAGED] = "its format extension is damaged; `ploop check --repair=all` drops it",
	};

	g->partial = verdict == EXTENSION_IS_PARTIAL;
	g->reason = verdict == EXTENSION_EXPENDABLE || g->partial ? ploop1_judge_writing(g) : reasons[verdict];
	g->read_only = g->reason != NULL;
}

bool extension_add(void *cluster, size_t len, const struct extension_feature *feature)
{
	size_t pos = 0, whole = FEATURE_HEAD + round_up(feature->length, 8);
	struct extension_feature other;
	uint8_t *at;

	while (extension_next(cluster, len, &pos, &other) == 1)
		;
	at = (uint8_t *)cluster + (pos ? pos : HEAD);
	if (whole > len - (pos ? pos : HEAD))
		return false;
	memset(at, 0, whole);
	le64_put(at, feature->magic);
	le64_put(at + 8, feature->flags);
	le32_put(at + 16, feature->length);
	memcpy(at + FEATURE_HEAD, feature->data, feature->length);
	return true;
}

/* Sets every bit of a bitmap: all entries of its table become 1. */
static void fill_bitmap(uint8_t *feature, uint32_t entries)
{
	for (uint32_t i = 0; i < entries; i++)
		le64_put(feature + FEATURE_HEAD + EXTENSION_BITMAP_HEAD + 8 * (size_t)i, 1);
}

bool extension_spend(struct geometry *g, void *cluster)
{
	uint8_t *start = cluster, *end = start + g->cluster, *to = start + HEAD;
	struct extension_feature f;
	struct extension_bitmap b;
	size_t pos = 0;

	/* Features only move towards the start, over those that were read already. */
	while (extension_next(cluster, g->cluster, &pos, &f) == 1) {
		uint8_t *from = start + (f.data - start) - FEATURE_HEAD;
		size_t whole = min_u64(FEATURE_HEAD + round_up(f.length, 8), (uint64_t)(end - from));

		if (f.magic != EXTENSION_BITMAP || extension_bitmap(&f, g->cluster, &b) || b.size != g->size)
			continue;
		fill_bitmap(from, b.clusters);
		memmove(to, from, whole);
		to += whole;
	}
	if (to == start + HEAD) {
		g->extension = 0;
		return false;
	}
	memset(to, 0, (size_t)(end - to));
	extension_seal(cluster, g->cluster);
	g->raw_state = PLOOP1_CLOSED_V21;
	return true;
}
