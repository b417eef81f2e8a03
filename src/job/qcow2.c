/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* qcow2.c - see qcow2.h. All numbers are big-endian. */
#include "job/qcow2.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/format.h"
#include "io/io.h"

#define MAGIC 0x514649fbu
#define HEADER 104u
#define EXTENSION_FORMAT 0xe2792acau /* the format of the file below */
#define CLUSTER_MAX (2u * 1024 * 1024)
#define COPIED (UINT64_C(1) << 63) /* nobody else refers to the cluster */
#define OFFSET UINT64_C(0x00fffffffffffe00)
#define REFCOUNT_ORDER 4u /* 16 bits each */
#define NAME_MAX_BYTES 1023u

static void put32(void *p, uint32_t v)
{
	v = htobe32(v);
	memcpy(p, &v, sizeof(v));
}

static void put64(void *p, uint64_t v)
{
	v = htobe64(v);
	memcpy(p, &v, sizeof(v));
}

static uint32_t per_table(const struct geometry *g)
{
	return g->cluster / 8;
}

static uint32_t tables(const struct geometry *g)
{
	return (uint32_t)div_round_up(g->clusters, per_table(g));
}

int qcow2_plan(uint64_t size, uint32_t cluster, struct geometry *ret, struct ploop_error *err)
{
	if (cluster > CLUSTER_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "qcow2 has clusters of at most 2 MiB, and this disk has %u MiB: convert it to raw, "
				 "and that with "
				 "qemu-img",
				 cluster >> 20);
	*ret = (struct geometry){ .size = size, .cluster = cluster, .clusters = (uint32_t)div_round_up(size, cluster) };
	ret->first = 1 + (uint32_t)div_round_up(8 * (uint64_t)tables(ret), cluster);
	return 0;
}

/* The tables that say where the clusters are: those that map anything come one after the other from `*next` on. */
static int write_tables(struct io_file *file, const struct geometry *to, const uint32_t *places, uint64_t *next)
{
	uint32_t per = per_table(to), n = tables(to);
	_free_ uint64_t *first = calloc(n, 8), *second = malloc(to->cluster);
	int r = first && second ? 0 : -ENOMEM;

	for (uint32_t t = 0; t < n && !r; t++) {
		bool any = false;

		memset(second, 0, to->cluster);
		for (uint32_t i = 0; i < per && (uint64_t)t * per + i < to->clusters; i++) {
			uint32_t k = places[(size_t)t * per + i];

			second[i] = k ? htobe64(geometry_offset(to, k) | COPIED) : 0;
			any |= k;
		}
		if (!any)
			continue;
		first[t] = htobe64(*next * to->cluster | COPIED);
		r = io_pwrite(file, second, to->cluster, *next * to->cluster);
		(*next)++;
	}
	return r ? r : io_pwrite(file, first, 8 * (size_t)n, to->cluster);
}

/* Counts of 1 for all clusters before `used` and for the blocks and the table of the counts themselves. */
static int write_counts(struct io_file *file, uint32_t cluster, uint64_t used, uint64_t *ret_table,
			uint32_t *ret_clusters)
{
	uint64_t per = cluster / 2, blocks = 0, table = 0, total;
	_free_ uint16_t *block = malloc(cluster);
	_free_ uint64_t *places = NULL;
	int r = 0;

	do {
		total = used + blocks + table;
		blocks = div_round_up(total, per);
		table = div_round_up(8 * blocks, cluster);
	} while (used + blocks + table != total);
	places = calloc(1, table * cluster);
	if (!block || !places)
		return -ENOMEM;
	for (uint64_t b = 0; b < blocks && !r; b++) {
		for (uint64_t i = 0; i < per; i++)
			block[i] = b * per + i < total ? htobe16(1) : 0;
		places[b] = htobe64((used + b) * cluster);
		r = io_pwrite(file, block, cluster, (used + b) * cluster);
	}
	*ret_table = (used + blocks) * cluster;
	*ret_clusters = (uint32_t)table;
	return r ? r : io_pwrite(file, places, table * cluster, *ret_table);
}

static int write_header(struct io_file *file, const struct geometry *to, uint64_t counts, uint32_t counts_clusters,
			const char *backing, const char *format)
{
	uint8_t head[FORMAT_HEAD] = { 0 };
	size_t at = HEADER, name = backing ? strlen(backing) : 0;

	if (name > NAME_MAX_BYTES)
		return -ENAMETOOLONG;
	if (backing) {
		put32(head + at, EXTENSION_FORMAT);
		put32(head + at + 4, (uint32_t)strlen(format));
		memcpy(head + at + 8, format, strlen(format));
		at += 8 + round_up(strlen(format), 8);
		at += 8; /* the end of the extensions */
		memcpy(head + at, backing, name);
		put64(head + 8, at);
		put32(head + 16, (uint32_t)name);
	}
	put32(head, MAGIC);
	put32(head + 4, 3);
	put32(head + 20, (uint32_t)__builtin_ctz(to->cluster));
	put64(head + 24, to->size);
	put32(head + 36, tables(to));
	put64(head + 40, to->cluster);
	put64(head + 48, counts);
	put32(head + 56, counts_clusters);
	put32(head + 96, REFCOUNT_ORDER);
	put32(head + 100, HEADER);
	return io_pwrite(file, head, sizeof(head), 0);
}

int qcow2_finish(struct io_file *file, const struct geometry *to, const uint32_t *places, uint32_t next,
		 const char *backing, const char *backing_format)
{
	uint64_t end = next, counts = 0;
	uint32_t counts_clusters = 0;
	int r = write_tables(file, to, places, &end);

	if (!r)
		r = write_counts(file, to->cluster, end, &counts, &counts_clusters);
	if (!r)
		r = io_sync(file);
	if (!r)
		r = write_header(file, to, counts, counts_clusters, backing, backing_format);
	return r ? r : io_sync(file);
}

static int load_table(struct io_file *file, const struct geometry *g, uint64_t offset, uint64_t *table,
		      uint32_t *places, uint32_t n)
{
	int r = io_pread(file, table, g->cluster, offset);

	for (uint32_t i = 0; i < n && !r; i++) {
		uint64_t entry = be64toh(table[i]);

		if (entry & ~(OFFSET | COPIED) || (entry & OFFSET) % g->cluster)
			r = -EUCLEAN;
		places[i] = (uint32_t)((entry & OFFSET) / g->cluster);
	}
	return r;
}

int qcow2_load(struct io_file *file, const struct geometry *g, uint32_t *places)
{
	uint32_t per = per_table(g), n = tables(g);
	_free_ uint64_t *first = malloc(8 * (size_t)n), *second = malloc(g->cluster);
	int r = first && second ? io_pread(file, first, 8 * (size_t)n, g->cluster) : -ENOMEM;

	memset(places, 0, g->clusters * sizeof(*places));
	for (uint32_t t = 0; t < n && !r; t++) {
		uint64_t offset = be64toh(first[t]) & OFFSET;
		uint32_t count = (uint32_t)min_u64(per, g->clusters - (uint64_t)t * per);

		if (offset)
			r = load_table(file, g, offset, second, places + (size_t)t * per, count);
	}
	return r;
}
