/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim-table.h - pages of a simulated file: counted references to 4 KiB, in a sparse table.
 *
 * A page that more than one thing refers to is never written: whoever changes it makes a new one. So an old state of a file
 * is kept by keeping references.
 */
#ifndef IO_SIM_TABLE_H
#define IO_SIM_TABLE_H

#include <stddef.h>
#include <stdint.h>

#define SIM_PAGE_BYTES 4096u

struct sim_page {
	uint64_t refs;
	uint8_t bytes[SIM_PAGE_BYTES];
};

/* Page number to page, for numbers below 2^36; what is absent reads as zeros. */
struct sim_table {
	void *root;     /* a node of the tree */
	uint64_t count; /* pages present */
};

#define SIM_TABLE_PAGES (UINT64_C(1) << 36)

/* One reference, contents undefined. Never NULL: no memory aborts. */
struct sim_page *sim_page_new(void);
/* A page of zeros; one for all. */
struct sim_page *sim_page_zero(void);
/* NULL is accepted by both. */
struct sim_page *sim_page_ref(struct sim_page *page);
void sim_page_unref(struct sim_page *page);

/* The page, still the table's; NULL when absent. */
struct sim_page *sim_table_get(const struct sim_table *table, uint64_t number);
/* Puts `page` (NULL: nothing) in place; its reference becomes the table's, that of the former page the caller's. */
struct sim_page *sim_table_swap(struct sim_table *table, uint64_t number, struct sim_page *page);
/* The first page present at or after `number`; UINT64_MAX when there is none. */
uint64_t sim_table_next(const struct sim_table *table, uint64_t number);
void sim_table_fini(struct sim_table *table);

/* calloc() that aborts. */
void *sim_alloc(size_t size);

#endif
