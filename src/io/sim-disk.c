/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sim-disk.c - files of the simulated disk, their changes and syncs. See sim-disk.h for what is promised. */
#include "io/sim-disk.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/sim-disk-private.h"

void sim_disk_init(struct sim_disk *disk)
{
	list_init(&disk->inodes);
	disk->space = UINT64_MAX;
	disk->used = 0;
}

void sim_disk_fini(struct sim_disk *disk)
{
	list_for_each_safe (node, &disk->inodes)
		sim_inode_free(container_of(node, struct sim_inode, node));
}

struct sim_inode *sim_inode_find(const struct sim_disk *disk, const char *path)
{
	list_for_each (node, &disk->inodes) {
		struct sim_inode *inode = container_of(node, struct sim_inode, node);

		if (!strcmp(inode->path, path))
			return inode;
	}
	return NULL;
}

struct sim_inode *sim_inode_new(struct sim_disk *disk, const char *path)
{
	struct sim_inode *inode = sim_alloc(sizeof(*inode));

	inode->disk = disk;
	inode->path = sim_alloc(strlen(path) + 1);
	strcpy(inode->path, path);
	list_init(&inode->log);
	list_push_back(&disk->inodes, &inode->node);
	return inode;
}

void sim_change_free(struct sim_change *change)
{
	list_remove(&change->node);
	if (change->owner)
		*change->owner = 0;
	for (unsigned i = 0; i < change->npatches; i++) {
		sim_page_unref(change->patches[i].before);
		sim_page_unref(change->patches[i].after);
	}
	free(change->patches);
	free(change);
}

void sim_inode_free(struct sim_inode *inode)
{
	assert(!inode->opens);
	list_for_each_safe (node, &inode->log)
		sim_change_free(container_of(node, struct sim_change, node));
	inode->disk->used -= inode->pages.count;
	sim_table_fini(&inode->pages);
	list_remove(&inode->node);
	free(inode->path);
	free(inode);
}

struct sim_page *sim_inode_swap(struct sim_inode *inode, uint64_t number, struct sim_page *page)
{
	struct sim_page *former = sim_table_swap(&inode->pages, number, page);

	inode->disk->used += (page != NULL) - (former != NULL);
	return former;
}

void sim_inode_read(const struct sim_inode *inode, uint64_t offset, uint64_t length, void *buffer)
{
	uint8_t *to = buffer;

	while (length) {
		uint64_t at = offset % SIM_PAGE_BYTES, part = min_u64(length, SIM_PAGE_BYTES - at);
		const struct sim_page *page = NULL;

		if (offset < inode->size)
			page = sim_table_get(&inode->pages, offset / SIM_PAGE_BYTES);
		if (page)
			memcpy(to, page->bytes + at, part);
		else
			memset(to, 0, part);
		to += part;
		offset += part;
		length -= part;
	}
}

/* The bits of the sectors of a page that bytes [from, to) of it touch. */
static uint8_t sectors_of(uint64_t from, uint64_t to)
{
	unsigned first = from / SIM_SECTOR, end = div_round_up(to, SIM_SECTOR);

	return (uint8_t)(((1u << end) - 1) & ~((1u << first) - 1));
}

static struct sim_change *change_new(struct sim_inode *inode, uint64_t start, uint64_t end)
{
	struct sim_change *change = sim_alloc(sizeof(*change));

	change->start = start;
	change->end = end;
	change->size_before = change->size_after = inode->size;
	change->told = UINT64_MAX;
	list_push_back(&inode->log, &change->node);
	change->number = ++inode->changes;
	return change;
}

/* Puts `after` (whose reference it takes) in place and remembers what was there. */
static void change_page(struct sim_inode *inode, struct sim_change *change, uint64_t number, struct sim_page *after,
			uint8_t sectors)
{
	struct sim_patch *patch;

	if (change->npatches == change->capacity) {
		unsigned capacity = change->capacity ? change->capacity * 2 : 1;
		struct sim_patch *more = sim_alloc(capacity * sizeof(*more));

		if (change->npatches)
			memcpy(more, change->patches, change->npatches * sizeof(*more));
		free(change->patches);
		change->patches = more;
		change->capacity = capacity;
	}
	patch = &change->patches[change->npatches++];
	*patch = (struct sim_patch){ .number = number, .after = sim_page_ref(after), .sectors = sectors };
	patch->before = sim_inode_swap(inode, number, after);
}

struct sim_page *sim_page_copy(const struct sim_page *page)
{
	struct sim_page *copy = sim_page_new();

	if (page)
		memcpy(copy->bytes, page->bytes, SIM_PAGE_BYTES);
	else
		memset(copy->bytes, 0, SIM_PAGE_BYTES);
	return copy;
}

static bool room_for(const struct sim_inode *inode, const struct sim_page *present)
{
	return present || inode->disk->used < inode->disk->space;
}

static void grow_to(struct sim_inode *inode, struct sim_change *change, uint64_t size)
{
	if (size > inode->size)
		inode->size = change->size_after = size;
}

int sim_inode_write(struct sim_inode *inode, uint64_t offset, uint64_t length, const void *buffer,
		    struct sim_change **ret)
{
	struct sim_change *change = *ret = change_new(inode, offset, offset + length);
	const uint8_t *from = buffer;

	while (length) {
		uint64_t number = offset / SIM_PAGE_BYTES, at = offset % SIM_PAGE_BYTES;
		uint64_t part = min_u64(length, SIM_PAGE_BYTES - at);
		const struct sim_page *present = sim_table_get(&inode->pages, number);
		struct sim_page *page;

		if (!room_for(inode, present))
			return -ENOSPC;
		page = part == SIM_PAGE_BYTES ? sim_page_new() : sim_page_copy(present);
		memcpy(page->bytes + at, from, part);
		change_page(inode, change, number, page, sectors_of(at, at + part));
		from += part;
		offset += part;
		length -= part;
		grow_to(inode, change, offset);
	}
	return 0;
}

/* Makes bytes [at, end) of one page zero; all of it becomes `whole`. */
static void erase_page(struct sim_inode *inode, struct sim_change *change, uint64_t number, uint64_t at, uint64_t end,
		       struct sim_page *whole)
{
	struct sim_page *page = whole;

	if (at || end != SIM_PAGE_BYTES) {
		page = sim_page_copy(sim_table_get(&inode->pages, number));
		memset(page->bytes + at, 0, end - at);
	}
	change_page(inode, change, number, page, sectors_of(at, end));
}

static void erase(struct sim_inode *inode, struct sim_change *change, uint64_t offset, uint64_t end)
{
	uint64_t number = sim_table_next(&inode->pages, offset / SIM_PAGE_BYTES);

	while (number < div_round_up(end, SIM_PAGE_BYTES)) {
		uint64_t base = number * SIM_PAGE_BYTES;

		erase_page(inode, change, number, max_u64(offset, base) - base, min_u64(end - base, SIM_PAGE_BYTES),
			   NULL);
		number = sim_table_next(&inode->pages, number + 1);
	}
}

int sim_inode_zero(struct sim_inode *inode, uint64_t offset, uint64_t length, struct sim_change **ret)
{
	struct sim_change *change = *ret = change_new(inode, offset, offset + length);
	uint64_t end = min_u64(offset + length, inode->size);

	while (offset < end) {
		uint64_t number = offset / SIM_PAGE_BYTES, at = offset % SIM_PAGE_BYTES;
		uint64_t part = min_u64(end - offset, SIM_PAGE_BYTES - at);

		if (!room_for(inode, sim_table_get(&inode->pages, number)))
			return -ENOSPC;
		erase_page(inode, change, number, at, at + part, part == SIM_PAGE_BYTES ? sim_page_zero() : NULL);
		offset += part;
	}
	return 0;
}

int sim_inode_punch(struct sim_inode *inode, uint64_t offset, uint64_t length, struct sim_change **ret)
{
	*ret = change_new(inode, offset, offset + length);
	erase(inode, *ret, offset, offset + length);
	return 0;
}

int sim_inode_truncate(struct sim_inode *inode, uint64_t size, struct sim_change **ret)
{
	*ret = change_new(inode, min_u64(size, inode->size), UINT64_MAX);
	erase(inode, *ret, size, SIM_TABLE_PAGES * SIM_PAGE_BYTES);
	inode->size = (*ret)->size_after = size;
	return 0;
}

int sim_inode_clone(struct sim_inode *inode, uint64_t offset, uint64_t length, const struct sim_inode *source,
		    uint64_t source_offset, struct sim_change **ret)
{
	struct sim_change *change = *ret = change_new(inode, offset, offset + length);

	for (uint64_t done = 0; done < length; done += SIM_PAGE_BYTES) {
		uint64_t number = (offset + done) / SIM_PAGE_BYTES;
		struct sim_page *page = sim_table_get(&source->pages, (source_offset + done) / SIM_PAGE_BYTES);

		if (page && !room_for(inode, sim_table_get(&inode->pages, number)))
			return -ENOSPC;
		change_page(inode, change, number, sim_page_ref(page), UINT8_MAX);
		grow_to(inode, change, offset + min_u64(length, done + SIM_PAGE_BYTES));
	}
	return 0;
}

static bool share_a_page(const struct sim_change *a, const struct sim_change *b)
{
	return a->start / SIM_PAGE_BYTES <= (b->end - 1) / SIM_PAGE_BYTES &&
	       b->start / SIM_PAGE_BYTES <= (a->end - 1) / SIM_PAGE_BYTES;
}

static bool pins_a_later(const struct sim_inode *inode, const struct sim_change *change, uint64_t when)
{
	for (const struct list *node = change->node.next; node != &inode->log; node = node->next) {
		const struct sim_change *later = container_of(node, const struct sim_change, node);

		if (later->told < when && share_a_page(change, later))
			return true;
	}
	return false;
}

void sim_inode_sync(struct sim_inode *inode, uint64_t when)
{
	/* Backwards, so that what one change drags along may drag an earlier one. */
	for (struct list *node = inode->log.prev; node != &inode->log; node = node->prev) {
		struct sim_change *change = container_of(node, struct sim_change, node);

		if (change->told >= when && pins_a_later(inode, change, when))
			change->told = 0;
	}
	list_for_each_safe (node, &inode->log) {
		struct sim_change *change = container_of(node, struct sim_change, node);

		if (change->told >= when)
			continue;
		/* One that was slow to complete may be older than the length that is durable already. */
		if (change->number > inode->durable_change) {
			inode->durable_size = change->size_after;
			inode->durable_change = change->number;
		}
		sim_change_free(change);
	}
}
