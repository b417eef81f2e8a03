/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ploop1.c - ploop images, versions 1 and 2.
 *
 * 64 bytes of header, then the index of 4-byte entries, padded with zeros; then the data area of whole clusters. An
 * entry of version 1 is the sector where the cluster starts, one of version 2 its number in clusters; 0 is "not
 * mapped". All is little-endian.
 *
 * Three sizes of trust:
 *  - what would make a sum or a place wrong is refused (cluster 0, an index shorter than the disk, data inside the
 * index);
 *  - what other software wrote and we can read but not safely write is marked read-only with a reason;
 *  - hints (heads, cylinders, CIF_Empty, a larger data offset than needed) are taken as they are.
 */
#include "format/ploop1.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"

static const char signatures[][17] = { "", "WithoutFreeSpace", "WithouFreSpacExt" };
#define SIGNATURE_LEN 16

bool ploop1_header_get(const void *head, size_t len, struct ploop1_header *ret)
{
	const uint8_t *p = head;
	uint32_t version;

	if (len < PLOOP1_HEADER)
		return false;
	for (version = 1; memcmp(p, signatures[version], SIGNATURE_LEN); version++)
		if (version == 2)
			return false;
	*ret = (struct ploop1_header){
		.version = version,
		.type = le32_get(p + 16),
		.heads = le32_get(p + 20),
		.cylinders = le32_get(p + 24),
		.cluster_sectors = le32_get(p + 28),
		.entries = le32_get(p + 32),
		.size_sectors = le64_get(p + 36),
		.in_use = le32_get(p + PLOOP1_OFF_IN_USE),
		.first_sector = le32_get(p + PLOOP1_OFF_FIRST),
		.flags = le32_get(p + PLOOP1_OFF_FLAGS),
		.extension_sector = le64_get(p + PLOOP1_OFF_EXTENSION),
	};
	return true;
}

void ploop1_header_put(const struct ploop1_header *header, void *head)
{
	uint8_t *p = head;

	memcpy(p, signatures[header->version], SIGNATURE_LEN);
	le32_put(p + 16, header->type);
	le32_put(p + 20, header->heads);
	le32_put(p + 24, header->cylinders);
	le32_put(p + 28, header->cluster_sectors);
	le32_put(p + 32, header->entries);
	le64_put(p + 36, header->size_sectors);
	le32_put(p + PLOOP1_OFF_IN_USE, header->in_use);
	le32_put(p + PLOOP1_OFF_FIRST, header->first_sector);
	le32_put(p + PLOOP1_OFF_FLAGS, header->flags);
	le64_put(p + PLOOP1_OFF_EXTENSION, header->extension_sector);
}

uint64_t ploop1_data_start(const struct ploop1_header *header)
{
	uint64_t unit = SECTOR;

	if (header->version != 1 || header->first_sector != 0)
		unit *= header->cluster_sectors;
	return round_up(PLOOP1_HEADER + 4 * (uint64_t)header->entries, unit);
}

bool ploop1_in_use_legal(uint32_t in_use)
{
	return in_use == PLOOP1_CLOSED || in_use == PLOOP1_CLOSED_V21 || in_use == PLOOP1_IN_USE;
}

static bool closed(const struct ploop1_header *h)
{
	/* Others than the legal values are found where the original's repair of a conversion left a 1, or where the
	 * header is damaged. To call them "in use" costs a scan, which happens anyway; to call them "closed" could hide
	 * a crash. */
	return h->in_use == PLOOP1_CLOSED || h->in_use == PLOOP1_CLOSED_V21;
}

bool ploop1_converting(const struct ploop1_header *header)
{
	return !closed(header) && header->flags != PLOOP1_FLAGS_INVALID && header->flags & PLOOP1_FLAG_CONVERTING;
}

struct ploop1_chs ploop1_chs(uint64_t n)
{
	static const uint32_t sectors[] = { 63, 32, 16, 8 }, heads[] = { 16, 8, 4, 2 };

	if (n > 1032192 && n < 16777216)
		return (struct ploop1_chs){ .cylinders = (uint32_t)(n / 1008), .heads = 16, .sectors = 63 };
	for (unsigned s = 0; s < 4; s++) {
		if (n % sectors[s])
			continue;
		for (unsigned h = 0; h < 4; h++)
			if (n / sectors[s] % heads[h] == 0)
				return (struct ploop1_chs){ (uint32_t)(n / sectors[s] / heads[h]), heads[h],
							    sectors[s] };
		break;
	}
	return (struct ploop1_chs){ .cylinders = (uint32_t)n, .heads = 1, .sectors = 1 };
}

#define refuse(err, ...) error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, __VA_ARGS__)

static int judge_sizes(const struct ploop1_header *h, uint64_t file_size, struct ploop_error *err)
{
	uint64_t sectors = h->version == 1 ? (uint32_t)h->size_sectors : h->size_sectors;

	if (h->type != PLOOP1_TYPE)
		return refuse(err, "wrong type %u in the header (not 2)", h->type);
	if (!h->cluster_sectors || h->cluster_sectors > PLOOP1_CLUSTER_LIMIT)
		return refuse(err, "wrong cluster size %u in the header", h->cluster_sectors);
	if (!sectors || !h->entries)
		return refuse(err, "wrong size 0 in the header");
	if (sectors > (uint64_t)h->entries * h->cluster_sectors)
		return refuse(err, "the index of %u entries is too short for a disk of %llu sectors", h->entries,
			      (unsigned long long)sectors);
	if (PLOOP1_HEADER + 4 * (uint64_t)h->entries > file_size)
		return refuse(err, "the file is shorter than its index of %u entries", h->entries);
	return 0;
}

static int judge_data_start(const struct ploop1_header *h, uint64_t file_size, uint64_t *ret, struct ploop_error *err)
{
	uint64_t start = (uint64_t)h->first_sector * SECTOR;

	if (h->version == 1 && !h->first_sector)
		start = ploop1_data_start(h);
	else if (!h->first_sector || (h->version == 2 && h->first_sector % h->cluster_sectors))
		return refuse(err, "wrong first block offset %u in the header (not a multiple of the cluster)",
			      h->first_sector);
	if (start < PLOOP1_HEADER + 4 * (uint64_t)h->entries)
		return refuse(err, "wrong first block offset %u in the header (inside the index)", h->first_sector);
	if (start > file_size)
		return refuse(err, "wrong first block offset %u in the header (beyond the end of the file)",
			      h->first_sector);
	*ret = start;
	return 0;
}

/* File cluster numbers start so that the first of the data area is at least 1. */
static void place_data(struct geometry *g, uint64_t start)
{
	g->first = (uint32_t)(start / g->cluster);
	g->base = (int64_t)(start % g->cluster);
	if (!g->first) {
		g->first = 1;
		g->base -= g->cluster;
	}
}

const char *ploop1_judge_writing(const struct geometry *g)
{
	if (!is_power_of_two(g->cluster) || g->cluster < PLOOP1_CLUSTER_MIN || g->cluster > PLOOP1_CLUSTER_MAX)
		return "its cluster size is not a power of two from 32 KiB to 64 MiB; convert it to write to it";
	if (geometry_offset(g, g->first) < geometry_pages(g) * FORMAT_PAGE)
		return "its data starts in the last 4 KiB of the index; convert it to write to it";
	return NULL;
}

/* What people take for a ploop1 image. */
static const char *what_else(const void *head, size_t len)
{
	if (!len)
		return "the file is empty";
	if (len >= 4 && !memcmp(head, "QFI\xfb", 4))
		return "it is a qcow2 image; qemu-img convert -O parallels makes a ploop1 image of it";
	return "not a ploop1 image; a raw one is named so with -f raw";
}

static int ploop1_parse(const void *head, size_t len, uint64_t file_size, uint32_t cluster, struct geometry *ret,
			struct ploop_error *err)
{
	struct ploop1_header h;
	struct geometry g;
	uint64_t start = 0;
	int r;

	(void)cluster;
	if (!ploop1_header_get(head, len, &h))
		return refuse(err, "wrong signature (%s)", what_else(head, len));
	r = judge_sizes(&h, file_size, err);
	if (!r)
		r = judge_data_start(&h, file_size, &start, err);
	if (r)
		return r;
	if (ploop1_converting(&h))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "in the changing version state: an interrupted `convert -v` must be finished first");
	g = (struct geometry){
		.version = h.version,
		.size = SECTOR * (h.version == 1 ? (uint32_t)h.size_sectors : h.size_sectors),
		.cluster = h.cluster_sectors * SECTOR,
		.clusters = h.entries,
		.index = PLOOP1_HEADER,
		.state = closed(&h) ? FORMAT_CLEAN : FORMAT_IN_USE,
		.raw_state = h.in_use,
		.flags = h.flags,
		.heads = h.heads,
		.cylinders = h.cylinders,
	};
	/* Who closed with 0 did not look at the field, so that it means nothing. A product that does not fit points
	 * nowhere and is refused by whoever examines it. */
	if (h.in_use != PLOOP1_CLOSED && h.extension_sector && !checked_mul(h.extension_sector, SECTOR, &g.extension))
		g.extension = UINT64_MAX;
	place_data(&g, start);
	g.reason = g.extension ? "its format extension has not been examined" : ploop1_judge_writing(&g);
	g.read_only = g.reason != NULL;
	*ret = g;
	return 0;
}

static int ploop1_plan(const struct format_params *params, struct geometry *ret, struct ploop_error *err)
{
	uint64_t sectors = params->size / SECTOR, max;
	struct ploop1_chs chs = ploop1_chs(sectors);

	if (params->version != 1 && params->version != 2)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unknown ploop image version: %u", params->version);
	if (!is_power_of_two(params->cluster) || params->cluster < PLOOP1_CLUSTER_MIN ||
	    params->cluster > PLOOP1_CLUSTER_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Incorrect blocksize specified: %u sectors; "
				 "it is a power of two from 64 to 131072",
				 params->cluster / SECTOR);
	if (!params->size)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect block device size specified: 0 sectors");
	max = params->version == 1 ? UINT32_MAX : UINT32_MAX * (uint64_t)(params->cluster / SECTOR);
	if (sectors > max)
		return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
				 "An incorrect block device size is specified: %llu sectors. "
				 "The maximum allowed size is %llu sectors",
				 (unsigned long long)sectors, (unsigned long long)max);
	if (params->size % params->cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "An incorrect block device size is specified: %llu sectors. "
				 "The block device size must be aligned to the cluster block size %u",
				 (unsigned long long)sectors, params->cluster / SECTOR);
	*ret = (struct geometry){
		.version = params->version,
		.size = params->size,
		.cluster = params->cluster,
		.clusters = (uint32_t)(params->size / params->cluster),
		.index = PLOOP1_HEADER,
		.state = FORMAT_CLEAN,
		.raw_state = PLOOP1_CLOSED,
		.flags = PLOOP1_FLAG_EMPTY,
		.heads = chs.heads,
		.cylinders = chs.cylinders,
	};
	place_data(ret, round_up(PLOOP1_HEADER + 4 * (uint64_t)ret->clusters, ret->cluster));
	return 0;
}

/* File clusters keep their numbers and places: only where the first of them may lie moves. */
static int ploop1_resize(const struct geometry *g, uint64_t size, struct geometry *ret, struct ploop_error *err)
{
	const struct format_params params = { .version = g->version, .size = size, .cluster = g->cluster };
	struct geometry plan;
	uint64_t end;
	int r = ploop1_plan(&params, &plan, err);

	if (r)
		return r;
	end = round_up(g->index + 4 * (uint64_t)plan.clusters, FORMAT_PAGE);
	*ret = *g;
	ret->size = size;
	ret->clusters = plan.clusters;
	ret->heads = plan.heads;
	ret->cylinders = plan.cylinders;
	ret->first = (uint32_t)div_round_up((uint64_t)((int64_t)end - g->base), g->cluster);
	return 0;
}

static uint32_t stored_state(const struct geometry *g)
{
	if (g->state == FORMAT_IN_USE)
		return PLOOP1_IN_USE;
	/* "v2.1" says that the extension is up to date. It is written only where it was, and the extension is still
	 * there. */
	return g->extension && g->raw_state == PLOOP1_CLOSED_V21 ? PLOOP1_CLOSED_V21 : PLOOP1_CLOSED;
}

static void ploop1_build(const struct geometry *g, void *head)
{
	ploop1_header_put(
		&(struct ploop1_header){
			.version = g->version,
			.type = PLOOP1_TYPE,
			.heads = g->heads,
			.cylinders = g->cylinders,
			.cluster_sectors = g->cluster / SECTOR,
			.entries = g->clusters,
			.size_sectors = g->size / SECTOR,
			.in_use = stored_state(g),
			.first_sector = (uint32_t)(geometry_offset(g, g->first) / SECTOR),
			.flags = g->flags,
			.extension_sector = g->extension / SECTOR,
		},
		head);
}

static int ploop1_decode(const struct geometry *g, uint32_t entry, uint32_t *ret)
{
	int64_t offset;

	if (!entry) {
		*ret = 0;
		return 0;
	}
	if (entry == PLOOP1_ENTRY_NONE)
		return -EINVAL;
	if (g->version == 1) {
		offset = (int64_t)entry * SECTOR - g->base;
		if (offset < 0 || offset % g->cluster)
			return -EINVAL;
		entry = (uint32_t)(offset / g->cluster);
	}
	if (entry < g->first)
		return -EINVAL;
	*ret = entry;
	return 0;
}

static uint32_t ploop1_encode(const struct geometry *g, uint32_t file_cluster)
{
	if (!file_cluster || g->version == 2)
		return file_cluster;
	return (uint32_t)(geometry_offset(g, file_cluster) / SECTOR);
}

static uint32_t ploop1_last(const struct geometry *g)
{
	/* Version 1: the whole cluster within 2^32 sectors, as others count its sectors in 32 bits too. */
	if (g->version == 1)
		return (uint32_t)(((INT64_C(1) << 32) * SECTOR - g->base) / g->cluster - 1);
	return PLOOP1_ENTRY_NONE - 1;
}

const struct format format_ploop1 = {
	.name = "ploop1",
	.summary = "ploop images, versions 1 and 2 (also called expanded, preallocated, parallels)",
	.has_index = true,
	.parse = ploop1_parse,
	.plan = ploop1_plan,
	.resize = ploop1_resize,
	.build = ploop1_build,
	.decode = ploop1_decode,
	.encode = ploop1_encode,
	.last = ploop1_last,
};
