/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cbt-store.c - dirty bitmaps from and to the format extension; the rules are in cbt.h. All of it blocks: a device opens or closes. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/le.h"
#include "base/log.h"
#include "device/cbt.h"
#include "device/internal.h"
#include "format/extension.h"
#include "format/ploop1.h"

/* ---- Open ---- */

struct loading {
	struct device *device;
	unsigned level;
	const struct delta *delta;
	uint64_t file_size;
	bool trusted;   /* rule 4 */
	uint8_t *bits; /* a cluster of them */
};

static uint32_t cluster_at(const struct geometry *g, uint64_t offset)
{
	return (uint32_t)(((int64_t)offset - g->base) / g->cluster);
}

/* Whether a cluster of bits lies there: in the data area, and in nobody's else. */
static bool placed(const struct loading *loading, uint64_t sector)
{
	struct geometry g = loading->delta->geometry;
	const struct writer *top = loading->device->writer;

	if (sector > INT64_MAX / SECTOR || sector * SECTOR == g.extension)
		return false;
	g.extension = sector * SECTOR;
	if (!extension_placed(&g, loading->file_size))
		return false;
	return loading->level != top->level || loading->device->read_only ||
	       !bitmap_test(&top->alloc.used, cluster_at(&g, g.extension));
}

/* Sets the bits from..end as the bytes at `p` say. */
static void take_bits(struct bitmap *map, const uint8_t *p, uint64_t from, uint64_t end)
{
	for (uint64_t bit = from; bit < end; bit += 8) {
		if (!p[(bit - from) / 8])
			continue;
		for (uint64_t i = bit; i < min_u64(end, bit + 8); i++)
			if (p[(bit - from) / 8] >> (i - bit) & 1)
				bitmap_set(map, i);
	}
}

/* False: something is not as it must be. */
static bool load_bits(const struct loading *loading, const struct extension_bitmap *from, struct bitmap *map)
{
	uint32_t cluster = loading->delta->geometry.cluster;
	uint64_t a_cluster = 8 * (uint64_t)cluster, bits = div_round_up(from->size, from->granularity);

	for (uint32_t i = 0; i < from->clusters; i++) {
		uint64_t entry = le64_get(from->table + 8 * (size_t)i), first = i * a_cluster;
		uint64_t end = min_u64(min_u64(bits, map->bits), first + a_cluster);

		if (entry > 1 && (!placed(loading, entry) ||
				  io_pread(loading->delta->file, loading->bits, cluster, entry * SECTOR)))
			return false;
		if (entry == 1)
			memset(loading->bits, 0xff, cluster);
		if (entry && first < end)
			take_bits(map, loading->bits, first, end);
	}
	return true;
}

static int load_map(const struct loading *loading, const struct extension_bitmap *from)
{
	struct device *dev = loading->device;
	struct cbt_map *map;
	int r;

	if (dev->cbt.n == CBT_MOST || device_cbt_find(dev, from->id) || !cbt_fits(dev, dev->size, from->granularity)) {
		log_warning("%s: a dirty bitmap cannot be kept up to date, and is dropped",
			    loading->delta->file->path);
		return 0;
	}
	r = cbt_add(dev, from->id, from->granularity, &map);
	if (r)
		return r == -EFBIG ? 0 : r;
	if (!loading->trusted || from->size != loading->delta->geometry.size ||
	    !load_bits(loading, from, &map->tracker.dirty))
		bitmap_fill(&map->tracker.dirty);
	else if (from->size < dev->size)
		tracker_mark(&map->tracker, from->size, dev->size);
	return 0;
}

static int load_cluster(struct loading *loading, uint8_t *cluster)
{
	const struct geometry *g = &loading->delta->geometry;
	struct extension_feature feature;
	struct extension_bitmap bitmap;
	size_t pos = 0;
	int r = 0;

	/* What cannot be read, or is damaged, is an affair of those who would write. */
	if (io_pread(loading->delta->file, cluster, g->cluster, g->extension) || extension_verify(cluster, g->cluster))
		return 0;
	while (!r && extension_next(cluster, g->cluster, &pos, &feature) == 1)
		if (feature.magic == EXTENSION_BITMAP && !extension_bitmap(&feature, g->cluster, &bitmap))
			r = load_map(loading, &bitmap);
	return r;
}

/* Rule 5: where they lie. False: nowhere. */
static bool find_level(const struct device *dev, unsigned *ret)
{
	for (unsigned level = dev->nlevels; level-- > 0;) {
		const struct delta *delta = &dev->levels[level];

		*ret = level;
		if (delta->geometry.extension)
			return true;
		for (uint32_t v = 0; v < dev->map.count; v++)
			if (map_in(&dev->map, v, level))
				return false;
	}
	return false;
}

int cbt_load(struct device *dev, struct ploop_error *err)
{
	struct loading loading = { .device = dev };
	const struct geometry *g;
	uint8_t *cluster;
	int r = 0;

	if (!find_level(dev, &loading.level))
		return 0;
	loading.delta = &dev->levels[loading.level];
	g = &loading.delta->geometry;
#ifdef DEVICE_BREAK_BITMAP
	loading.trusted = true;
#else
	loading.trusted = g->state == FORMAT_CLEAN;
#endif
	if (io_size(loading.delta->file, &loading.file_size) || !extension_placed(g, loading.file_size))
		return 0;
	cluster = io_buffer_new(g->cluster);
	loading.bits = io_buffer_new(g->cluster);
	r = cluster && loading.bits ? load_cluster(&loading, cluster) : -ENOMEM;
	io_buffer_free(cluster, g->cluster);
	io_buffer_free(loading.bits, g->cluster);
	return r ? error_sys(err, r, PLOOP_EXIT_MALLOC, "%s: its dirty bitmaps", loading.delta->file->path) : 0;
}

/* ---- In use ---- */

/* Adds the feature of one bitmap, whose table is all `entry`. */
static uint8_t *add_feature(const struct device *dev, const struct cbt_map *map, const struct geometry *g, void *cluster)
{
	struct extension_bitmap bitmap = {
		.size = dev->size,
		.granularity = map->tracker.unit,
		.clusters = (uint32_t)div_round_up(map->tracker.dirty.bits, 8 * (uint64_t)g->cluster),
	};
	struct extension_feature feature = { .magic = EXTENSION_BITMAP,
					     .length = EXTENSION_BITMAP_HEAD + 8 * bitmap.clusters };
	uint8_t *data = calloc(1, feature.length), *table = NULL;
	size_t pos = 0;

	if (!data)
		return NULL;
	memcpy(bitmap.id, map->id, sizeof(bitmap.id));
	extension_bitmap_put(&bitmap, data);
	feature.data = data;
	if (extension_add(cluster, g->cluster, &feature)) {
		while (extension_next(cluster, g->cluster, &pos, &feature) == 1)
			table = (uint8_t *)cluster + (feature.data - (uint8_t *)cluster) + EXTENSION_BITMAP_HEAD;
	}
	free(data);
	return table;
}

static uint32_t table_entries(const struct cbt_map *map, const struct geometry *g)
{
	return (uint32_t)div_round_up(map->tracker.dirty.bits, 8 * (uint64_t)g->cluster);
}

bool cbt_compose(const struct device *dev, struct geometry *g, void *cluster)
{
	bool any = false;

	memset(cluster, 0, g->cluster);
	for (unsigned i = 0; i < dev->cbt.n; i++) {
		const struct cbt_map *map = dev->cbt.maps[i];
		uint8_t *table = add_feature(dev, map, g, cluster);

		for (uint32_t e = 0; table && e < table_entries(map, g); e++)
#ifdef DEVICE_BREAK_BITMAP
			le64_put(table + 8 * (size_t)e, map->tracker.dirty.set > 0);
#else
			le64_put(table + 8 * (size_t)e, 1);
#endif
		any = any || table;
	}
	if (any)
		g->raw_state = PLOOP1_CLOSED_V21;
	return any;
}

/* Writes `used` bytes of a cluster, the rest of which is zeros. */
static int put_cluster(struct writer *writer, uint32_t k, const void *bytes, uint64_t used)
{
	const struct geometry *g = &writer->delta->geometry;

	used = alloc_stale(&writer->alloc, k, 1) ? g->cluster : round_up(used, FORMAT_PAGE);
	return io_pwrite(writer->delta->file, bytes, used, geometry_offset(g, k));
}

static uint64_t used_bytes(const uint8_t *cluster, uint64_t len)
{
	while (len && !cluster[len - 1])
		len--;
	return len;
}

int cbt_put(struct writer *writer, uint32_t k)
{
	struct geometry *g = &writer->delta->geometry;
	uint32_t place = k;
	uint8_t *cluster;
	int r = k ? 0 : writer_allocate_last(writer, &place);

	if (r)
		return r;
	cluster = io_buffer_new(g->cluster);
	r = cluster ? 0 : -ENOMEM;
	if (!r && cbt_compose(writer->device, g, cluster)) {
		extension_seal(cluster, g->cluster);
		/* What lay there is unknown when it was the extension of before. */
		r = put_cluster(writer, place, cluster, k ? g->cluster : used_bytes(cluster, g->cluster));
	}
	r = r ? r : io_sync(writer->delta->file);
	if (!r)
		g->extension = geometry_offset(g, place);
	else if (!k)
		alloc_untake(&writer->alloc, place, 1);
	io_buffer_free(cluster, g->cluster);
	return r;
}

/* ---- Close ---- */

bool cbt_may_save(const struct writer *writer)
{
	const struct device *dev = writer->device;

	if (!writer->heir || !dev->cbt.n || !writer->delta->format->has_index)
		return false;
	for (uint32_t v = 0; writer != dev->writer && v < dev->map.count; v++)
		if (dev->map.cluster[v] && dev->map.level[v] > writer->level)
			return false;
	return true;
}

struct saving {
	struct writer *writer;
	struct geometry g;
	uint8_t *extension, *bits;
	uint32_t *taken; /* file clusters */
	uint32_t ntaken;
};

static int take_cluster(struct saving *saving, uint32_t *ret)
{
	uint32_t *taken = reallocarray(saving->taken, saving->ntaken + 1, sizeof(*taken));
	int r;

	if (!taken)
		return -ENOMEM;
	saving->taken = taken;
	r = writer_allocate_last(saving->writer, ret);
	if (r)
		return r;
	taken[saving->ntaken++] = *ret;
	return 0;
}

/* The bits first..end to a cluster; *ret is the entry of the table. */
static int save_bits(struct saving *saving, const struct bitmap *map, uint64_t first, uint64_t end, uint64_t *ret)
{
	uint32_t k;
	int r;

	*ret = bitmap_next_set(map, first) < end;
	if (!*ret || bitmap_next_clear(map, first) >= end)
		return 0;
	r = take_cluster(saving, &k);
	if (r)
		return r;
	memset(saving->bits, 0, saving->g.cluster);
	for (uint64_t bit = bitmap_next_set(map, first); bit < end; bit = bitmap_next_set(map, bit + 1))
		saving->bits[(bit - first) / 8] |= (uint8_t)(1u << (bit - first) % 8);
	*ret = geometry_offset(&saving->g, k) / SECTOR;
	return put_cluster(saving->writer, k, saving->bits, div_round_up(end - first, 8));
}

static int save_map(struct saving *saving, const struct cbt_map *map)
{
	const struct bitmap *bits = &map->tracker.dirty;
	uint64_t a_cluster = 8 * (uint64_t)saving->g.cluster, entry;
	uint8_t *table = add_feature(saving->writer->device, map, &saving->g, saving->extension);
	int r = table ? 0 : -ENOSPC;

	for (uint32_t i = 0; !r && i < table_entries(map, &saving->g); i++) {
		r = save_bits(saving, bits, i * a_cluster, min_u64(bits->bits, (i + 1) * a_cluster), &entry);
		if (!r)
			le64_put(table + 8 * (size_t)i, entry);
	}
	return r;
}

static int save_all(struct saving *saving, uint32_t *ret)
{
	const struct device *dev = saving->writer->device;
	int r = 0;

	memset(saving->extension, 0, saving->g.cluster);
	for (unsigned i = 0; !r && i < dev->cbt.n; i++)
		r = save_map(saving, dev->cbt.maps[i]);
	if (!r)
		r = take_cluster(saving, ret);
	if (r)
		return r;
	extension_seal(saving->extension, saving->g.cluster);
	return put_cluster(saving->writer, *ret, saving->extension, used_bytes(saving->extension, saving->g.cluster));
}

int cbt_save(struct writer *writer, uint32_t *ret_old)
{
	struct geometry *g = &writer->delta->geometry;
	struct saving saving = { .writer = writer, .g = *g };
	uint32_t k;
	int r;

	saving.extension = io_buffer_new(g->cluster);
	saving.bits = io_buffer_new(g->cluster);
	r = saving.extension && saving.bits ? save_all(&saving, &k) : -ENOMEM;
	if (!r) {
		*ret_old = g->extension ? cluster_at(g, g->extension) : 0;
		g->extension = geometry_offset(g, k);
		g->raw_state = PLOOP1_CLOSED_V21;
	} else {
		for (uint32_t i = 0; i < saving.ntaken; i++)
			alloc_untake(&writer->alloc, saving.taken[i], 1);
	}
	free(saving.taken);
	io_buffer_free(saving.extension, g->cluster);
	io_buffer_free(saving.bits, g->cluster);
	return r;
}
