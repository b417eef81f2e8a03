/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sim-table.c - counted pages, and a radix tree of four levels that holds them. */
#include "io/sim-table.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NODE_BITS 9
#define NODE_SLOTS (1u << NODE_BITS)
#define LEVELS 4

struct sim_node {
	void *slots[NODE_SLOTS];
};

_Static_assert(SIM_TABLE_PAGES == UINT64_C(1) << (NODE_BITS * LEVELS), "the tree covers the numbers");

void *sim_alloc(size_t size)
{
	void *p = calloc(1, size);

	if (!p) {
		fprintf(stderr, "sim: out of memory\n");
		abort();
	}
	return p;
}

struct sim_page *sim_page_new(void)
{
	struct sim_page *page = malloc(sizeof(*page));

	if (!page) {
		fprintf(stderr, "sim: out of memory\n");
		abort();
	}
	page->refs = 1;
	return page;
}

struct sim_page *sim_page_zero(void)
{
	static struct sim_page zero = { .refs = 1 };

	return sim_page_ref(&zero);
}

struct sim_page *sim_page_ref(struct sim_page *page)
{
	if (page)
		page->refs++;
	return page;
}

void sim_page_unref(struct sim_page *page)
{
	if (page && --page->refs == 0)
		free(page);
}

static unsigned slot_of(uint64_t number, unsigned level)
{
	return number >> (NODE_BITS * level) & (NODE_SLOTS - 1);
}

struct sim_page *sim_table_get(const struct sim_table *table, uint64_t number)
{
	void *at = table->root;

	for (unsigned level = LEVELS; at && level-- > 0;)
		at = ((struct sim_node *)at)->slots[slot_of(number, level)];
	return at;
}

struct sim_page *sim_table_swap(struct sim_table *table, uint64_t number, struct sim_page *page)
{
	void **at = &table->root;
	struct sim_page *former;

	assert(number < SIM_TABLE_PAGES);
	for (unsigned level = LEVELS; level-- > 0;) {
		if (!*at && !page)
			return NULL;
		if (!*at)
			*at = sim_alloc(sizeof(struct sim_node));
		at = &((struct sim_node *)*at)->slots[slot_of(number, level)];
	}
	former = *at;
	*at = page;
	table->count += (page != NULL) - (former != NULL);
	return former;
}

static uint64_t next_in(const struct sim_node *node, unsigned level, uint64_t base, uint64_t from)
{
	uint64_t span = UINT64_C(1) << (NODE_BITS * level);

	for (uint64_t i = from > base ? (from - base) / span : 0; i < NODE_SLOTS; i++) {
		uint64_t found = base + i * span;

		if (node->slots[i] && level)
			found = next_in(node->slots[i], level - 1, found, from);
		if (node->slots[i] && found != UINT64_MAX)
			return found;
	}
	return UINT64_MAX;
}

uint64_t sim_table_next(const struct sim_table *table, uint64_t number)
{
	if (!table->root || !table->count || number >= SIM_TABLE_PAGES)
		return UINT64_MAX;
	return next_in(table->root, LEVELS - 1, 0, number);
}

static void free_node(struct sim_node *node, unsigned level)
{
	for (unsigned i = 0; i < NODE_SLOTS; i++) {
		if (level && node->slots[i])
			free_node(node->slots[i], level - 1);
		else if (!level)
			sim_page_unref(node->slots[i]);
	}
	free(node);
}

void sim_table_fini(struct sim_table *table)
{
	if (table->root)
		free_node(table->root, LEVELS - 1);
	*table = (struct sim_table){ 0 };
}
