/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* raw.c - a file that is the disk, byte for byte. Only the base of a stack can be raw. It has no header, so that
 * nothing in it tells whether it was closed properly. */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "format/format.h"

#define RAW_CLUSTER_DEFAULT (1024u * 1024)
#define RAW_CLUSTER_MIN (32u * 1024)
#define RAW_CLUSTER_MAX (64u * 1024 * 1024)

static int raw_geometry(uint64_t size, uint32_t cluster, struct geometry *ret, struct ploop_error *err)
{
	uint64_t clusters;

	if (!cluster)
		cluster = RAW_CLUSTER_DEFAULT;
	if (!is_power_of_two(cluster) || cluster < RAW_CLUSTER_MIN || cluster > RAW_CLUSTER_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Incorrect blocksize specified: %u sectors; "
				 "it is a power of two from 64 to 131072",
				 cluster / SECTOR);
	clusters = div_round_up(size, cluster);
	if (clusters >= UINT32_MAX)
		return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
				 "An incorrect block device size is specified: %llu sectors. "
				 "The maximum allowed size is %llu sectors",
				 (unsigned long long)(size / SECTOR), (UINT32_MAX - 1ull) * (cluster / SECTOR));
	*ret = (struct geometry){
		.size = size,
		.cluster = cluster,
		.clusters = (uint32_t)clusters,
		.base = -(int64_t)cluster,
		.first = 1,
		.state = FORMAT_CLEAN,
		.heads = 1,
		.cylinders = (uint32_t)(size / SECTOR),
	};
	return 0;
}

static int raw_parse(const void *head, size_t len, uint64_t file_size, uint32_t cluster, struct geometry *ret,
		     struct ploop_error *err)
{
	(void)head;
	(void)len;
	/* What follows the last whole sector cannot be reached by a block device. */
	if (file_size < SECTOR)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "the file is shorter than one sector");
	return raw_geometry(round_down(file_size, SECTOR), cluster, ret, err);
}

static int raw_plan(const struct format_params *params, struct geometry *ret, struct ploop_error *err)
{
	if (!params->size || params->size % SECTOR)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Incorrect block device size specified: %llu bytes; "
				 "it is a multiple of 512",
				 (unsigned long long)params->size);
	return raw_geometry(params->size, params->cluster, ret, err);
}

static int raw_resize(const struct geometry *g, uint64_t size, struct geometry *ret, struct ploop_error *err)
{
	return raw_plan(&(struct format_params){ .size = size, .cluster = g->cluster }, ret, err);
}

static void raw_build(const struct geometry *g, void *head)
{
	(void)g;
	(void)head;
}

static int raw_decode(const struct geometry *g, uint32_t entry, uint32_t *ret)
{
	if (entry > g->clusters)
		return -EINVAL;
	*ret = entry;
	return 0;
}

static uint32_t raw_encode(const struct geometry *g, uint32_t file_cluster)
{
	(void)g;
	return file_cluster;
}

static uint32_t raw_last(const struct geometry *g)
{
	return g->clusters;
}

const struct format format_raw = {
	.name = "raw",
	.summary = "the disk byte for byte; only as the base of a stack",
	.has_index = false,
	.parse = raw_parse,
	.plan = raw_plan,
	.resize = raw_resize,
	.build = raw_build,
	.decode = raw_decode,
	.encode = raw_encode,
	.last = raw_last,
};
