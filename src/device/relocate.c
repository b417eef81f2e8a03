/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * relocate.c - clusters of a file move to other places in it.
 *
 *	ALONE   the virtual clusters are locked against writes; waits until nothing is under way on them
 *	COPY    into free clusters of the same file; reads go on
 *	FORGET  waits until nobody reads the old place any more; new reads wait
 *	        the entries name the new place; the lock is released
 *
 * Order of writes:
 *  1. The copy is whole before the entry names it, and an entry reaches the disk only after the data it names (commit.c).
 *  2. The old place is not touched. It is free after a commit that starts later (alloc.h): until the new entry is durable,
 *     the old one is right.
 * A crash anywhere leaves each cluster in the old place or in the new one, with the same data.
 *
 * Which virtual cluster is where is not known in this direction: a scan of the map finds out first, for the part of the file that
 * is to be vacated. What requests do to the map after that is seen when the lock is held.
 */
#include "device/relocate.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/checked.h"

#define GRAIN 4096u /* moving must not fill the holes that the file system's free blocks left */
#define RUN_BYTES (UINT64_C(4) << 20) /* moved under one lock */
#define FLYING (4 * RUN_BYTES) /* no further run is begun */
#define SCAN_STEP (UINT32_C(1) << 20) /* entries looked at in one turn of the loop */

enum relocate_step { SLOT_FREE, SLOT_ALONE, SLOT_COPY, SLOT_FORGET, SLOT_TURN };

static size_t owner_bytes(const struct relocate *relocate)
{
	return (size_t)(relocate->end - relocate->from) * sizeof(*relocate->owner) + 1;
}

bool relocate_over(const struct relocate *relocate)
{
	return relocate->full ||
	       (relocate->scan >= relocate->writer->delta->geometry.clusters && relocate->next == relocate->from);
}

static bool relocate_contains(const struct relocate *relocate, uint32_t cluster)
{
	return cluster >= relocate->from && cluster < relocate->end;
}

/* Is there anything to begin now? */
static bool relocate_wants(const struct relocate *relocate)
{
	return relocate->left && relocate->flying < FLYING && !relocate->result && !relocate->stopped && !relocate_over(relocate);
}

/* Goes on outside whatever called. */
static void relocate_later(struct relocate *relocate)
{
	loop_defer(relocate->device->loop, &relocate->task);
}

static void slot_free(struct relocate_slot *slot)
{
	slot->step = SLOT_FREE;
	slot->relocate->busy--;
	slot->relocate->flying -= slot->bytes;
	relocate_later(slot->relocate);
}

static void slot_release(struct relocate_slot *slot)
{
	slot_free(slot);
	lock_release(slot->relocate->device, &slot->lock);
}

/* The first part of what is left of the slot's run that still is to be moved: slot->now clusters. False: nothing is. */
static bool slot_trim(struct relocate_slot *slot)
{
	const struct relocate *relocate = slot->relocate;
	uint32_t cluster = 0;

	while (slot->count) {
		cluster = writer_entry(relocate->writer, slot->v);
		if (relocate_contains(relocate, cluster))
			break;
		slot->v++;
		slot->count--;
	}
	slot->now = 0;
	while (slot->now < slot->count && relocate_contains(relocate, cluster + slot->now) &&
	       writer_entry(relocate->writer, slot->v + slot->now) == cluster + slot->now)
		slot->now++;
	slot->copy.from_cluster = cluster;
	return slot->now;
}

/* Finds a place for the first slot->now clusters, or for fewer. 0 or a negative errno; -EXFULL: there is none below. */
static int slot_place(struct relocate_slot *slot)
{
	struct relocate *relocate = slot->relocate;
	struct alloc *alloc = &relocate->writer->alloc;
	int r;

	if (relocate->below == UINT32_MAX)
		r = writer_allocate(relocate->writer, slot->now, &slot->copy.to_cluster);
	else
		r = (int)alloc_take_below(alloc, slot->now, relocate->below, &slot->copy.to_cluster);
	if (r <= 0)
		return r ? r : -EXFULL;
	slot->now = (uint32_t)r;
	slot->copy.length = (uint64_t)slot->now * relocate->device->cluster;
	slot->copy.grain = GRAIN;
	slot->copy.stale = alloc_stale(alloc, slot->copy.to_cluster, slot->now);
	return 0;
}

/* Nobody else does anything to the clusters. */
static void slot_begin(struct relocate_slot *slot)
{
	struct relocate *relocate = slot->relocate;
	int r;

	if (relocate->stopped || relocate->result || !slot_trim(slot)) {
		slot_release(slot);
		return;
	}
	r = slot_place(slot);
	if (r) {
		relocate->full |= r == -EXFULL;
		if (r != -EXFULL)
			relocate->result = r;
		slot_release(slot);
		return;
	}
	slot->step = SLOT_COPY;
	copy_start(&slot->copy);
}

/* The copy is whole and nobody uses the old place any more. */
static void slot_turn(struct relocate_slot *slot)
{
	struct relocate *relocate = slot->relocate;
	struct writer *writer = relocate->writer;
	struct map *map = &relocate->device->map;

	for (uint32_t i = 0; i < slot->now; i++) {
		uint32_t v = slot->v + i;

		if (map_in(map, v, writer->level))
			map->cluster[v] = slot->copy.to_cluster + i;
		writer_set_entry(writer, v, slot->copy.to_cluster + i);
		alloc_free(&writer->alloc, slot->copy.from_cluster + i, false);
	}
	relocate->moved += slot->copy.length;
	slot->v += slot->now;
	slot->count -= slot->now;
}

/* What is left of the run is locked anew, so that those who wait get on. */
static void slot_continue(struct relocate_slot *slot)
{
	struct device *dev = slot->relocate->device;

	if (!slot->count) {
		slot_release(slot);
		return;
	}
	lock_release(dev, &slot->lock);
	lock_take(dev, &slot->lock, slot->v, slot->v + slot->count - 1, false);
	slot->step = SLOT_ALONE;
	relocate_later(slot->relocate);
}

static void slot_go_on(struct relocate_slot *slot)
{
	struct device *dev = slot->relocate->device;

	if (slot->step == SLOT_ALONE && (slot->relocate->stopped || lock_alone(dev, &slot->lock))) {
		slot_begin(slot);
	} else if (slot->step == SLOT_FORGET && !lock_in_flight(dev, slot->lock.first, slot->lock.last)) {
		slot->step = SLOT_TURN; /* nobody may go on with it meanwhile */
		slot_turn(slot);
		slot_continue(slot);
	}
}

static void slot_copied(struct copy *copy, int result)
{
	struct relocate_slot *slot = container_of(copy, struct relocate_slot, copy);
	struct relocate *relocate = slot->relocate;

	if (result) {
		alloc_untake(&relocate->writer->alloc, copy->to_cluster, slot->now);
		relocate->result = relocate->result ? relocate->result : result;
		slot_release(slot);
		return;
	}
	slot->step = SLOT_FORGET;
	slot->lock.reads = true;
	slot_go_on(slot);
}

/* The next run, from the end of the file: together in the file, and in the disk. */
static bool relocate_next(struct relocate *relocate, struct relocate_slot *slot)
{
	uint32_t most = (uint32_t)max_u64(1, min_u64(RUN_BYTES, relocate->left) / relocate->device->cluster);
	const uint32_t *owner = relocate->owner;

	while (relocate->next > relocate->from) {
		uint32_t i = --relocate->next - relocate->from, n = 1;

		if (!owner[i])
			continue;
		while (n < most && n <= i && owner[i] > n && owner[i - n] == owner[i] - n)
			n++;
		relocate->next -= n - 1;
		slot->count = n;
		slot->v = owner[i] - n;
		return true;
	}
	return false;
}

static void relocate_start_slot(struct relocate *relocate, struct relocate_slot *slot)
{
	struct device *dev = relocate->device;

	slot->bytes = (uint64_t)slot->count * dev->cluster;
	relocate->left -= min_u64(relocate->left, slot->bytes);
	relocate->flying += slot->bytes;
	relocate->busy++;
	slot->step = SLOT_ALONE;
	slot->copy.from = slot->copy.to = relocate->writer->delta;
	lock_take(dev, &slot->lock, slot->v, slot->v + slot->count - 1, false);
	slot_go_on(slot);
}

/* Looks at some more of the map. */
static void relocate_scan(struct relocate *relocate)
{
	uint32_t end =
		(uint32_t)min_u64(relocate->writer->delta->geometry.clusters, (uint64_t)relocate->scan + SCAN_STEP);

	for (; relocate->scan < end; relocate->scan++) {
		uint32_t cluster = writer_entry(relocate->writer, relocate->scan);

		if (cluster && relocate_contains(relocate, cluster))
			relocate->owner[cluster - relocate->from] = relocate->scan + 1;
	}
	relocate_later(relocate);
}

static void relocate_task(struct loop_task *task)
{
	struct relocate *relocate = container_of(task, struct relocate, task);

	if (!relocate->running)
		return;
	if (relocate_wants(relocate) && relocate->scan < relocate->writer->delta->geometry.clusters) {
		relocate_scan(relocate);
		return;
	}
	relocate_poke(relocate);
	for (unsigned i = 0; i < RELOCATE_SLOTS && relocate_wants(relocate); i++)
		if (relocate->slots[i].step == SLOT_FREE && relocate_next(relocate, &relocate->slots[i]))
			relocate_start_slot(relocate, &relocate->slots[i]);
	/* One that ended while it was started has asked for another turn: whoever is told may free us. */
	if (relocate->busy || relocate->task.queued || relocate_wants(relocate))
		return;
	relocate->running = false;
	relocate->done(relocate, relocate->result ? relocate->result : relocate->stopped ? -ECANCELED : 0);
}

void relocate_run(struct relocate *relocate, uint64_t bytes)
{
	relocate->left = bytes;
	relocate->running = true;
	relocate_later(relocate);
}

void relocate_stop(struct relocate *relocate)
{
	relocate->stopped = true;
	if (relocate->running)
		relocate_later(relocate);
}

void relocate_poke(struct relocate *relocate)
{
	for (unsigned i = 0; i < RELOCATE_SLOTS; i++)
		slot_go_on(&relocate->slots[i]);
}

int relocate_init(struct relocate *relocate)
{
	void *owner;

	relocate->device = relocate->writer->device;
	relocate->scan = 0;
	relocate->next = relocate->end;
	relocate->task.run = relocate_task;
	owner = mmap(NULL, owner_bytes(relocate), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
		     -1, 0);
	relocate->owner = owner == MAP_FAILED ? NULL : owner;
	relocate->buffers = io_buffer_new((size_t)RELOCATE_SLOTS * COPY_CHUNK);
	if (!relocate->owner || !relocate->buffers) {
		relocate_fini(relocate);
		return -ENOMEM;
	}
	for (unsigned i = 0; i < RELOCATE_SLOTS; i++) {
		struct relocate_slot *slot = &relocate->slots[i];

		slot->relocate = relocate;
		slot->copy.device = relocate->device;
		slot->copy.done = slot_copied;
		slot->copy.impatient = true;
		slot->copy.buffer = (char *)relocate->buffers + (size_t)i * COPY_CHUNK;
	}
	return 0;
}

void relocate_fini(struct relocate *relocate)
{
	/* A slot that ended last may have asked for one more turn. */
	if (relocate->task.queued)
		list_remove(&relocate->task.node);
	relocate->task.queued = false;
	if (relocate->owner)
		munmap(relocate->owner, owner_bytes(relocate));
	if (relocate->buffers)
		io_buffer_free(relocate->buffers, (size_t)RELOCATE_SLOTS * COPY_CHUNK);
	relocate->owner = NULL;
	relocate->buffers = NULL;
}
