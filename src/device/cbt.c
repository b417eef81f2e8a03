/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* cbt.c - the dirty bitmaps of a running device; see cbt.h. */
#include "device/cbt.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/internal.h"
#include "format/extension.h"

/* What the extension keeps free: its own head, the table of partial clusters, and the end of the list. */
#define ROOM_LEFT 128u

unsigned device_cbt_count(const struct device *dev)
{
	return dev->cbt.n;
}

const struct cbt_map *device_cbt_get(const struct device *dev, unsigned i)
{
	return dev->cbt.maps[i];
}

static unsigned find(const struct device *dev, const uint8_t id[CBT_ID])
{
	unsigned i = 0;

	while (i < dev->cbt.n && memcmp(dev->cbt.maps[i]->id, id, CBT_ID))
		i++;
	return i;
}

const struct cbt_map *device_cbt_find(const struct device *dev, const uint8_t id[CBT_ID])
{
	unsigned i = find(dev, id);

	return i < dev->cbt.n ? dev->cbt.maps[i] : NULL;
}

bool cbt_fits(const struct device *dev, uint64_t size, uint64_t unit)
{
	uint64_t a_cluster = 8 * (uint64_t)dev->cluster; /* bits */
	uint64_t room = ROOM_LEFT + extension_bitmap_room(div_round_up(div_round_up(size, unit), a_cluster));

	for (unsigned i = 0; i < dev->cbt.n; i++)
		room += extension_bitmap_room(
			div_round_up(div_round_up(size, dev->cbt.maps[i]->tracker.unit), a_cluster));
	return room <= dev->cluster;
}

static void free_map(struct cbt_map *map)
{
	list_remove(&map->tracker.node);
	tracker_fini(&map->tracker);
	free(map);
}

static void remove_at(struct device *dev, unsigned i)
{
	struct cbt *cbt = &dev->cbt;

	free_map(cbt->maps[i]);
	cbt->n--;
	memmove(&cbt->maps[i], &cbt->maps[i + 1], (cbt->n - i) * sizeof(cbt->maps[0]));
}

int cbt_add(struct device *dev, const uint8_t id[CBT_ID], uint64_t unit, struct cbt_map **ret)
{
	struct cbt_map *map = calloc(1, sizeof(*map));
	int r = map ? tracker_init_unit(&map->tracker, dev->size, unit) : -ENOMEM;

	if (r) {
		free(map);
		return r;
	}
	memcpy(map->id, id, CBT_ID);
	list_push_back(&dev->trackers, &map->tracker.node);
	dev->cbt.maps[dev->cbt.n++] = map;
	*ret = map;
	return 0;
}

void cbt_fini(struct device *dev)
{
	while (dev->cbt.n)
		remove_at(dev, dev->cbt.n - 1);
}

int device_cbt_start(struct device *dev, const uint8_t id[CBT_ID], struct ploop_error *err)
{
	uint64_t unit = CBT_UNIT;
	struct cbt_map *map;
	int r;

	if (dev->read_only || dev->aborted || dev->closing)
		return error_set(err, -EROFS, PLOOP_EXIT_BUSY, "the device takes no writes, so that no bitmap can be kept");
	if (dev->job && !dev->job->calm)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s is under way on the device", dev->job->name);
	if (dev->under)
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "a merge was stopped half-way; let it end first");
	if (!dev->top->format->has_index)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_NO_CBT, "%s: a raw image has no place for a dirty bitmap",
				 dev->top->file->path);
	if (device_cbt_find(dev, id))
		return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "there is a dirty bitmap of that UUID already");
	if (dev->cbt.n == CBT_MOST)
		return error_set(err, -ENOSPC, PLOOP_EXIT_PARAM,
				 "the disk has %u dirty bitmaps, which is the most; `ploop cbt drop` one", CBT_MOST);
	do
		r = cbt_fits(dev, dev->size, unit) ? cbt_add(dev, id, unit, &map) : -EFBIG;
	while (r == -EFBIG && (unit *= 2));
	return r ? error_sys(err, r, PLOOP_EXIT_MALLOC, "a dirty bitmap") : 0;
}

bool device_cbt_drop(struct device *dev, const uint8_t id[CBT_ID])
{
	unsigned i = find(dev, id);

	if (i == dev->cbt.n)
		return false;
	remove_at(dev, i);
	return true;
}

/* One bitmap for the new size. Where that does not work it goes, which nobody takes for a clean one. */
static bool resize_map(struct device *dev, struct cbt_map *map, uint64_t old, uint64_t size)
{
	struct tracker *tracker = &map->tracker, next;

	if (!cbt_fits(dev, size, CBT_UNIT) || tracker_init_unit(&next, size, tracker->unit))
		return false;
	for (uint64_t bit = 0; (bit = bitmap_next_set(&tracker->dirty, bit)) < min_u64(tracker->dirty.bits, next.dirty.bits);
	     bit++)
		bitmap_set(&next.dirty, bit);
	bitmap_fini(&tracker->dirty);
	tracker->dirty = next.dirty;
	if (size > old)
		tracker_mark(tracker, old, size);
	return true;
}

void cbt_resize(struct device *dev, uint64_t old, uint64_t size)
{
	for (unsigned i = 0; i < dev->cbt.n;) {
		if (resize_map(dev, dev->cbt.maps[i], old, size))
			i++;
		else
			remove_at(dev, i);
	}
}

void device_cbt_plant(struct device *dev, struct cbt_plant *plant)
{
	/* Once a merge that was stopped is over the extension becomes what it shall be. */
	if (dev->read_only || dev->aborted || dev->under || !dev->top->format->has_index) {
		dev->partials->replant = dev->under;
		plant->done(plant, dev->aborted ? -EIO : 0);
		return;
	}
	list_push_back(&dev->partials->planting, &plant->node);
	dev->partials->replant = true;
	partials_poke(dev->partials);
}
