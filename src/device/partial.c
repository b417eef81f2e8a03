/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partial.c - partial clusters in memory: slots, units, and what a commit has to do with them. The rules are in partial.h. */
#include "device/partial.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "device/internal.h"

#define LIVE_LIMIT 4096u
#define LIVE_LIMIT_BYTES (UINT64_C(4) << 30) /* what may have to be copied before a snapshot, a merge, a close */
#define LIVE_LEAST 16u
#define CLUSTER_LIMIT (16u << 20) /* the extension is a cluster and has a digest: that must not take long */

static struct list *bucket_of(const struct partials *partials, uint32_t v)
{
	return (struct list *)&partials->buckets[v % PARTIAL_BUCKETS];
}

int partials_new(struct device *device, struct partials **ret)
{
	struct partials *partials = calloc(1, sizeof(*partials));

	if (!partials)
		return -ENOMEM;
	partials->device = device;
	partials->unit = partial_unit(device->cluster);
	list_init(&partials->settling);
	list_init(&partials->waiting);
	list_init(&partials->planting);
	for (unsigned s = 0; s < PARTIAL_STATES; s++)
		list_init(&partials->lists[s]);
	for (unsigned b = 0; b < PARTIAL_BUCKETS; b++)
		list_init(&partials->buckets[b]);
	partials_init_fills(partials);
	*ret = partials;
	return 0;
}

void partials_free(struct partials *partials)
{
	if (!partials)
		return;
	partials_fini_fills(partials);
	bitmap_fini(&partials->dirty);
	bitmap_fini(&partials->newer);
	if (partials->buffer)
		io_buffer_free(partials->buffer, partials->device->cluster);
	free(partials->sequences);
	free(partials->slots);
	free(partials);
}

unsigned partials_live_limit(const struct device *dev)
{
	uint64_t limit = max_u64(LIVE_LEAST, LIVE_LIMIT_BYTES / dev->cluster);

	if (dev->partial_limit)
		limit = dev->partial_limit;
	return (unsigned)min_u64(limit, LIVE_LIMIT);
}

int partials_allot(struct partials *partials, uint32_t pages)
{
	unsigned nslots = pages * PARTIAL_RECORDS;

	bitmap_fini(&partials->dirty);
	bitmap_fini(&partials->newer);
	free(partials->sequences);
	free(partials->slots);
	partials->sequences = calloc(pages, sizeof(*partials->sequences));
	partials->slots = calloc(nslots, sizeof(*partials->slots));
	for (unsigned s = 0; s < PARTIAL_STATES; s++) {
		list_init(&partials->lists[s]);
		partials->count[s] = 0;
	}
	partials->nslots = 0;
	if (!partials->sequences || !partials->slots || bitmap_init(&partials->dirty, pages) ||
	    bitmap_init(&partials->newer, pages))
		return -ENOMEM;
	if (partials->writer->shadow && shadow_level_allot(partials->writer->shadow, nslots))
		return -ENOMEM;
	partials->nslots = nslots;
	partials->count[PARTIAL_FREE] = nslots;
	partials->limit = (unsigned)min_u64(partials_live_limit(partials->device), nslots);
	/* Not in order: what is used together lies in different sectors of a page, so that tests see what tears one. */
	for (unsigned i = 0; i < nslots; i++) {
		unsigned slot = i - i % PARTIAL_RECORDS + i % PARTIAL_RECORDS * 37 % PARTIAL_RECORDS;

		list_init(&partials->slots[slot].bucket);
		list_push_back(&partials->lists[PARTIAL_FREE], &partials->slots[slot].node);
	}
	return 0;
}

/* What should outlive us. */
static void note(const struct partials *partials, const struct partial *partial)
{
	struct shadow_level *shadow = partials->writer->shadow;
	struct shadow_partial record = { .v = partial->v };

	if (!shadow)
		return;
	if (partial->state != PARTIAL_FREE && partial->state != PARTIAL_RESERVED)
		record.cluster = partial->cluster;
	memcpy(record.valid, partial->valid, sizeof(record.valid));
	shadow_note_partial(shadow, (uint32_t)(partial - partials->slots), &record);
}

void partial_set_state(struct partials *partials, struct partial *partial, enum partial_state state)
{
	partials->count[partial->state]--;
	list_remove(&partial->node);
	partial->state = state;
	partials->count[state]++;
	list_push_back(&partials->lists[state], &partial->node);
	note(partials, partial);
}

static uint32_t page_of(const struct partials *partials, const struct partial *partial)
{
	return (uint32_t)(partial - partials->slots) / PARTIAL_RECORDS;
}

void partial_touch(struct partials *partials, const struct partial *partial)
{
	bitmap_set(&partials->dirty, page_of(partials, partial));
	commit_touch(&partials->writer->commit);
}

struct partial *partial_find(const struct partials *partials, uint32_t v)
{
	if (!partials->count[PARTIAL_LIVE])
		return NULL;
	list_for_each (node, bucket_of(partials, v)) {
		struct partial *partial = container_of(node, struct partial, bucket);

		if (partial->v == v)
			return partial;
	}
	return NULL;
}

/* Operations that change what lies below or above, or that need the file as others know it. */
static bool held(const struct partials *partials)
{
	const struct device *dev = partials->device;

	return (partials->holds && !partials->few_yet) || dev->under || dev->closing || dev->aborted;
}

bool partials_may_begin(const struct partials *partials, uint32_t v)
{
	const struct device *dev = partials->device;

	return !held(partials) && device_writer(dev, v) == dev->writer && partials->step == TABLE_ON &&
	       partials->count[PARTIAL_FREE] &&
	       partials->count[PARTIAL_LIVE] + partials->count[PARTIAL_RESERVED] < partials->limit;
}

bool partials_wait(struct partials *partials, struct device_request *request, uint32_t v)
{
	const struct device *dev = partials->device;

	if (held(partials) || device_writer(dev, v) != dev->writer || dev->cluster > CLUSTER_LIMIT)
		return false;
	if (partials->step == TABLE_OFF && loop_now(dev->loop) >= partials->again_at)
		partials_turn(partials, true);
	if (!partials_turning(partials))
		return false;
	request->waiting = true;
	list_push_back(&partials->waiting, &request->wait);
	return true;
}

static unsigned units_of(const struct partials *partials, uint32_t v)
{
	const struct device *dev = partials->device;
	uint64_t bytes = device_cluster_end(dev, v) - (uint64_t)v * dev->cluster;

	return (unsigned)div_round_up(bytes, partials->unit);
}

static void take_slot(struct partials *partials, struct partial *partial, uint32_t v, uint32_t k)
{
	partial->v = v;
	partial->cluster = k;
	partial->units = units_of(partials, v);
	partial->nvalid = 0;
	partial->filling = false;
	memset(partial->valid, 0, sizeof(partial->valid));
}

struct partial *partial_reserve(struct partials *partials, uint32_t v, uint32_t k)
{
	struct partial *partial = container_of(partials->lists[PARTIAL_FREE].next, struct partial, node);

	take_slot(partials, partial, v, k);
	partial->blank = true;
	partial_set_state(partials, partial, PARTIAL_RESERVED);
	return partial;
}

void partial_cancel(struct partials *partials, struct partial *partial)
{
	partial_set_state(partials, partial, PARTIAL_FREE);
	partials_poke(partials);
}

static void go_live(struct partials *partials, struct partial *partial)
{
	partial_set_state(partials, partial, PARTIAL_LIVE);
	list_push_back(bucket_of(partials, partial->v), &partial->bucket);
}

struct partial *partial_restore(struct partials *partials, unsigned slot, const struct partial_record *record,
				uint32_t k)
{
	struct partial *partial = &partials->slots[slot];

	take_slot(partials, partial, record->v, k);
	partial->blank = false;
	memcpy(partial->valid, record->valid, sizeof(partial->valid));
	for (unsigned w = 0; w < PARTIAL_UNITS / 64; w++)
		partial->nvalid += (unsigned)__builtin_popcountll(partial->valid[w]);
	go_live(partials, partial);
	return partial;
}

static bool has_unit(const struct partial *partial, uint64_t u)
{
	return partial->valid[u / 64] >> (u % 64) & 1;
}

void partial_complete(struct partials *partials, struct partial *partial)
{
	struct device *dev = partials->device;

	list_remove(&partial->bucket);
#ifdef DEVICE_BREAK_PARTIAL_SLOT
	partial_set_state(partials, partial, PARTIAL_FREE);
	partial_touch(partials, partial);
#else
	partial_set_state(partials, partial, PARTIAL_DONE);
#endif
	map_cover(&dev->map, partial->v, partials->writer->level, partial->cluster);
	if (dev->read_only)
		return;
	writer_set_entry(partials->writer, partial->v, partial->cluster);
	device_note(dev, (uint64_t)partial->v * dev->cluster, device_cluster_end(dev, partial->v));
	/* Their slots come back with a commit. */
	if (partials->count[PARTIAL_DONE] >= partials->nslots / 4)
		commit_kick(&partials->writer->commit);
}

void partial_publish(struct partials *partials, struct partial *partial, uint64_t from, uint64_t to)
{
	for (uint64_t u = from / partials->unit; u < div_round_up(to, partials->unit); u++) {
		partial->nvalid += !has_unit(partial, u);
		partial->valid[u / 64] |= UINT64_C(1) << (u % 64);
	}
	if (partial->state == PARTIAL_RESERVED)
		go_live(partials, partial);
	else
		note(partials, partial);
	device_note(partials->device, (uint64_t)partial->v * partials->device->cluster + from,
		    (uint64_t)partial->v * partials->device->cluster + to);
	if (partial->nvalid == partial->units)
		partial_complete(partials, partial);
	else
		partial_touch(partials, partial);
	partials_poke(partials);
}

void partial_soil(struct partials *partials, struct partial *partial)
{
	partial->blank = false;
	partials_poke(partials);
}

uint64_t partial_run(const struct partials *partials, const struct partial *partial, uint64_t at, bool *ret_there)
{
	uint64_t u = at / partials->unit;

	*ret_there = has_unit(partial, u);
	while (u < partial->units && has_unit(partial, u) == *ret_there)
		u++;
	return u * partials->unit;
}

bool partial_has(const struct partials *partials, const struct partial *partial, uint64_t from, uint64_t to)
{
	bool there;

	return partial_run(partials, partial, from, &there) >= to && there;
}

bool partial_lacks(const struct partials *partials, const struct partial *partial, uint64_t from, uint64_t to)
{
	bool there;

	return partial_run(partials, partial, from, &there) >= to && !there;
}

void partial_widen(const struct partials *partials, const struct partial *partial, uint64_t *from, uint64_t *to)
{
	const struct device *dev = partials->device;
	uint64_t length = device_cluster_end(dev, partial->v) - (uint64_t)partial->v * dev->cluster;

	if (!has_unit(partial, *from / partials->unit))
		*from = round_down(*from, partials->unit);
	if (!has_unit(partial, (*to - 1) / partials->unit))
		*to = min_u64(round_up(*to, partials->unit), length);
}

/* ---- The commit ---- */

static struct partials *table_of(const struct writer *writer)
{
	struct partials *partials = writer->device->partials;

	return partials && partials->writer == writer ? partials : NULL;
}

bool partials_dirty(const struct writer *writer)
{
	const struct partials *partials = table_of(writer);

	return partials && partials->dirty.set;
}

/* DONE and RETIRING ones are written again: rule 5. */
static void encode_page(const struct partials *partials, uint32_t page, uint64_t sequence, void *bytes)
{
	const struct delta *delta = partials->writer->delta;
	struct partial_record records[PARTIAL_RECORDS] = { 0 };

	for (unsigned i = 0; i < PARTIAL_RECORDS; i++) {
		const struct partial *partial = &partials->slots[page * PARTIAL_RECORDS + i];

		if (partial->state == PARTIAL_FREE || partial->state == PARTIAL_RESERVED)
			continue;
		records[i].v = partial->v;
		records[i].entry = delta->format->encode(&delta->geometry, partial->cluster);
		memcpy(records[i].valid, partial->valid, sizeof(partial->valid));
	}
	partial_page_put(bytes, sequence, records);
}

bool partials_encode(const struct writer *writer, void *page, uint64_t *ret_offset)
{
	struct partials *partials = table_of(writer);
	uint32_t p;
	unsigned copy;

	if (!partials || !partials->dirty.set)
		return false;
	p = (uint32_t)bitmap_next_set(&partials->dirty, partials->sweep);
	if (p == partials->dirty.bits)
		return false;
	partials->sweep = p + 1;
	bitmap_clear(&partials->dirty, p);
#ifdef DEVICE_BREAK_PARTIAL_COPY
	copy = 0;
#else
	copy = !bitmap_test(&partials->newer, p);
#endif
	if (copy)
		bitmap_set(&partials->newer, p);
	else
		bitmap_clear(&partials->newer, p);
	encode_page(partials, p, ++partials->sequences[p], page);
	*ret_offset = partial_page_offset(&partials->table, p, copy);
	return true;
}

void partials_commit_start(const struct writer *writer)
{
	struct partials *partials = table_of(writer);

	if (partials)
		partials->sweep = 0;
	while (partials && partials->count[PARTIAL_DONE])
		partial_set_state(partials, container_of(partials->lists[PARTIAL_DONE].next, struct partial, node),
				  PARTIAL_RETIRING);
}

void partials_commit_done(const struct writer *writer)
{
	struct partials *partials = table_of(writer);

	while (partials && partials->count[PARTIAL_RETIRING])
		partial_set_state(partials, container_of(partials->lists[PARTIAL_RETIRING].next, struct partial, node),
				  PARTIAL_FREE);
}
