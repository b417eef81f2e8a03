/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.h - the GUID partition table of a disk whose size changes: read with distrust, fitted to another size, and written so
 * that a crash at any moment leaves a table that is valid.
 */
#ifndef LIB_TABLE_H
#define LIB_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ploop_error;

#define TABLE_SECTOR 512u

/* The disk that holds the table. Offsets and lengths are whole sectors. 0 or a negative errno. */
struct table_disk {
	int (*read)(void *data, void *buffer, size_t len, uint64_t offset);
	int (*write)(void *data, const void *buffer, size_t len, uint64_t offset); /* NULL: it is only read */
	int (*sync)(void *data);
	void *data;
	uint64_t size;    /* bytes of the disk as it is now */
	const char *name; /* for messages */
};

struct table_partition {
	unsigned number; /* counted from 1 */
	uint64_t start, size;
};

struct table {
	uint8_t header[TABLE_SECTOR]; /* the primary one, or made from the other */
	uint8_t *entries;
	size_t entries_len;
	uint32_t count, entry_size;
	uint64_t sectors; /* of the disk that it is made for */
	bool damaged;     /* one of the two copies was not valid */
	unsigned npartitions;
	struct table_partition last; /* the one that ends last; number 0: there is none */
};

/*
 * Reads the table, from its second copy when the first is not valid. -ENODATA: there is none; -EMEDIUMTYPE: there is one of
 * another kind (MBR, or sectors of 4096 bytes); -EUCLEAN: neither copy is valid. The caller clears.
 */
int table_read(const struct table_disk *disk, struct table *ret, struct ploop_error *err);
void table_clear(struct table *table);

/* Where the last partition of a disk of so many bytes ends: one cluster or more is left for the second copy. */
uint64_t table_partition_end(uint64_t disk, uint32_t cluster);

/* Fits the table to a disk of `disk` bytes, on which the last partition ends at `end`. In memory. */
int table_fit(struct table *table, uint64_t disk, uint64_t end, struct ploop_error *err);

/* Writes both copies, durably, onto a disk that is at least as large as the table is for. */
int table_write(const struct table *table, const struct table_disk *disk, struct ploop_error *err);

#endif
