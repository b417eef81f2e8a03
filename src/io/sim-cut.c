/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim-cut.c - what a power cut leaves of the simulated disk.
 *
 * For each file: undo all unsynced changes, the last first, which gives what was synced; then go forwards and let each change
 * happen wholly, in some sectors, or not at all. The styles differ in what they make likely: real cuts lose a little of the
 * end, tests want every mixture.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/sim-disk-private.h"

enum style {
	STYLE_ALL,      /* as after the death of a process */
	STYLE_NONE,     /* as if nothing ever left the cache */
	STYLE_PREFIX,   /* up to some change; that one torn */
	STYLE_BUT_ONE,  /* one is missing or torn */
	STYLE_ONLY_ONE, /* one is there */
	STYLE_RANDOM,
	STYLE_RANDOM_TOO,
	STYLES,
};

enum fate { FATE_APPLIED, FATE_DROPPED, FATE_TORN };

static enum fate any_fate(struct prng *prng)
{
	return prng_below(prng, 3);
}

/* `nth` of all changes of the file; `special` was drawn among them. */
static enum fate draw_fate(enum style style, uint64_t nth, uint64_t special, struct prng *prng)
{
	switch (style) {
	case STYLE_ALL:
		return FATE_APPLIED;
	case STYLE_NONE:
		return FATE_DROPPED;
	case STYLE_PREFIX:
		return nth < special ? FATE_APPLIED : nth == special ? any_fate(prng) : FATE_DROPPED;
	case STYLE_BUT_ONE:
		return nth != special ? FATE_APPLIED : prng_one_in(prng, 2) ? FATE_TORN : FATE_DROPPED;
	case STYLE_ONLY_ONE:
		return nth == special ? FATE_APPLIED : FATE_DROPPED;
	default:
		return any_fate(prng);
	}
}

static void undo(struct sim_inode *inode, struct sim_change *change)
{
	for (unsigned i = change->npatches; i-- > 0;) {
		struct sim_patch *patch = &change->patches[i];

		sim_page_unref(sim_inode_swap(inode, patch->number, sim_page_ref(patch->before)));
	}
}

static void redo_page(struct sim_inode *inode, const struct sim_patch *patch, uint8_t sectors)
{
	struct sim_page *page;

	if (!sectors)
		return;
	if (sectors == UINT8_MAX) {
		page = sim_page_ref(patch->after);
	} else {
		page = sim_page_copy(sim_table_get(&inode->pages, patch->number));
		for (unsigned s = 0; s < SIM_PAGE_BYTES / SIM_SECTOR; s++) {
			if (!(sectors >> s & 1))
				continue;
			if (patch->after)
				memcpy(page->bytes + s * SIM_SECTOR, patch->after->bytes + s * SIM_SECTOR, SIM_SECTOR);
			else
				memset(page->bytes + s * SIM_SECTOR, 0, SIM_SECTOR);
		}
	}
	sim_page_unref(sim_inode_swap(inode, patch->number, page));
}

static void cut_off(struct sim_inode *inode, uint64_t size)
{
	uint64_t number = size / SIM_PAGE_BYTES, at = size % SIM_PAGE_BYTES;
	struct sim_page *page = at ? sim_table_get(&inode->pages, number) : NULL;

	if (page) {
		page = sim_page_copy(page);
		memset(page->bytes + at, 0, SIM_PAGE_BYTES - at);
		sim_page_unref(sim_inode_swap(inode, number, page));
	}
	number = div_round_up(size, SIM_PAGE_BYTES);
	while ((number = sim_table_next(&inode->pages, number)) != UINT64_MAX)
		sim_page_unref(sim_inode_swap(inode, number, NULL));
}

/* Between two lengths; often one of them, and mostly whole sectors. */
static uint64_t length_between(uint64_t low, uint64_t high, struct prng *prng)
{
	uint64_t length = low + prng_below(prng, high - low + 1);

	return prng_one_in(prng, 8) ? length : max_u64(low, round_down(length, SIM_SECTOR));
}

static void redo_length(struct sim_inode *inode, const struct sim_change *change, enum fate fate, struct prng *prng)
{
	uint64_t to = change->size_after;

	if (to == change->size_before || (fate == FATE_DROPPED && !prng_one_in(prng, 4)))
		return; /* the length may have gone ahead of the data */
	if (to > change->size_before && to > inode->size) {
		inode->size = fate == FATE_APPLIED ? to : length_between(inode->size, to, prng);
	} else if (to < change->size_before && to < inode->size) {
		inode->size = fate == FATE_APPLIED ? to : length_between(to, inode->size, prng);
		cut_off(inode, inode->size);
	}
}

static void redo(struct sim_inode *inode, const struct sim_change *change, enum fate fate, struct prng *prng)
{
	/* A torn change: any sectors, or a beginning of it, or an end. */
	uint64_t from = 0, to = UINT64_MAX;
	unsigned tear = (unsigned)prng_below(prng, 3);

	if (fate == FATE_TORN && tear == 1)
		to = prng_below(prng, change->npatches + 1);
	else if (fate == FATE_TORN && tear == 2)
		from = prng_below(prng, change->npatches + 1);
	for (unsigned i = 0; fate != FATE_DROPPED && i < change->npatches; i++) {
		const struct sim_patch *patch = &change->patches[i];
		uint8_t sectors = patch->sectors;

		if (fate == FATE_TORN && (tear == 0 || i == from || i + 1 == to))
			sectors &= (uint8_t)prng_next(prng);
		if (i >= from && i < to)
			redo_page(inode, patch, sectors);
	}
	redo_length(inode, change, fate, prng);
}

static void cut_inode(struct sim_inode *inode, enum style style, struct prng *prng)
{
	uint64_t count = 0, nth = 0, special;

	for (struct list *node = inode->log.prev; node != &inode->log; node = node->prev, count++)
		undo(inode, container_of(node, struct sim_change, node));
	if (!count)
		return;
	inode->size = inode->durable_size;
	special = prng_below(prng, count);
	list_for_each_safe (node, &inode->log) {
		struct sim_change *change = container_of(node, struct sim_change, node);

		redo(inode, change, draw_fate(style, nth++, special, prng), prng);
		sim_change_free(change);
	}
	cut_off(inode, inode->size);
	inode->durable_size = inode->size;
}

void sim_disk_cut(struct sim_disk *disk, struct prng *prng)
{
	enum style style = prng_below(prng, STYLES);

	list_for_each (node, &disk->inodes)
		cut_inode(container_of(node, struct sim_inode, node), style, prng);
}
