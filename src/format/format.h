/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * format.h - what the bytes of an image mean.
 *
 * A format is one const table of pure functions on bytes. They say where things are and what bytes to write; they do no
 * I/O and know no device. The device does the I/O and decides the order of writes.
 *
 * Terms: a *virtual cluster* is a cluster of the disk, a *file cluster* one of the image file. The *index* maps the one to
 * the other. File cluster k lies at byte geometry.base + k * geometry.cluster of the file; k = 0 never holds data, so that
 * 0 can mean "not mapped". Lengths and offsets are bytes.
 *
 * An index entry is 4 bytes. Entry v lies at byte geometry.index + 4 * v. The index is read and written in *index pages* of
 * FORMAT_PAGE bytes of the file, aligned to their size; page 0 also holds the header. A single entry is never torn, as it
 * does not cross a 512-byte sector.
 */
#ifndef FORMAT_FORMAT_H
#define FORMAT_FORMAT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct io_file;
struct ploop_error;

#define FORMAT_PAGE 4096u
#define FORMAT_HEAD 4096u /* bytes from the start of a file that parse() wants to see */
#define SECTOR 512u

enum format_state {
	FORMAT_CLEAN,  /* closed properly */
	FORMAT_IN_USE, /* open for writing, or left so by a crash */
};

/* Everything a header says, checked. */
struct geometry {
	uint32_t version;       /* ploop1: 1 or 2; raw: 0 */
	uint64_t size;          /* bytes of the disk; a multiple of 512 */
	uint32_t cluster;       /* bytes of a cluster */
	uint32_t clusters;      /* virtual clusters = entries of the index */
	int64_t base;           /* byte of the file where file cluster 0 would be; raw: -cluster */
	uint32_t first;         /* the lowest file cluster that may hold data */
	uint64_t index;         /* byte of the file where the index starts; 0 when there is none (raw) */
	enum format_state state;
	uint32_t raw_state;     /* m_DiskInUse as it stands in the header */
	uint32_t flags;         /* m_Flags */
	uint64_t extension;     /* byte of the format extension cluster, 0 when there is none */
	bool partial;           /* the extension has a table of partial clusters; known once somebody has examined it */
	uint32_t heads, cylinders;
	bool read_only;         /* may be read but never written; `reason` says why */
	const char *reason;     /* static text */
};

/* What a new image shall be. */
struct format_params {
	uint32_t version;
	uint64_t size;    /* bytes; a multiple of 512 */
	uint32_t cluster; /* bytes */
};

struct format {
	const char *name;
	const char *summary; /* one line for `ploop modules` */
	bool has_index;      /* false: virtual cluster v is file cluster v + 1, always mapped (raw) */

	/*
	 * Reads a header. `head` is the first `len` bytes of the file (FORMAT_HEAD, or less when the file is shorter).
	 * `cluster` is used by formats that do not store one (raw), 0 otherwise. Refuses with -EINVAL and a text that starts
	 * with a lower-case word; the caller puts the file's name before it. Never reads beyond `len`, never trusts a sum.
	 */
	int (*parse)(const void *head, size_t len, uint64_t file_size, uint32_t cluster, struct geometry *ret,
		     struct ploop_error *err);

	/* Computes the geometry of a new, empty image. Refuses sizes and clusters that are not legal, with 38 as the status. */
	int (*plan)(const struct format_params *params, struct geometry *ret, struct ploop_error *err);

	/* Computes the geometry of the same image for a disk of `size` bytes: larger, or smaller. `first` says where data may lie
	 * then. Refuses as plan() does. */
	int (*resize)(const struct geometry *g, uint64_t size, struct geometry *ret, struct ploop_error *err);

	/* Writes the header (the first geometry.index bytes) into `head`. State, flags and extension as in `g`. */
	void (*build)(const struct geometry *g, void *head);

	/* A stored entry to a file cluster: 0 not mapped, else the number. -EINVAL when no file cluster can be meant
	 * (before the data area, not aligned). The caller compares with the length of the file. */
	int (*decode)(const struct geometry *g, uint32_t entry, uint32_t *ret);
	uint32_t (*encode)(const struct geometry *g, uint32_t file_cluster);

	/* The highest file cluster that an entry can name. */
	uint32_t (*last)(const struct geometry *g);
};

extern const struct format format_raw;
extern const struct format format_ploop1;

/* All formats, NULL-terminated. */
extern const struct format *const formats[];
const struct format *format_find(const char *name);

/* The format that the first bytes of a file name by their signature; NULL when there is none: it may then be raw. */
const struct format *format_probe(const void *head, size_t len);

/* The size that a disk gets for whom `size` bytes are wanted: whole clusters, one more than needed unless that would be too large for
 * the format. Refuses what the format cannot have, with 38 as the status. */
int format_round_size(const struct format *format, const struct geometry *g, uint64_t size, uint64_t *ret,
		      struct ploop_error *err);

/* Byte of the file where file cluster k starts. */
static inline uint64_t geometry_offset(const struct geometry *g, uint32_t k)
{
	return (uint64_t)(g->base + (int64_t)k * (int64_t)g->cluster);
}

/* Number of index pages, the one with the header included. */
static inline uint64_t geometry_pages(const struct geometry *g)
{
	return (g->index + 4 * (uint64_t)g->clusters + FORMAT_PAGE - 1) / FORMAT_PAGE;
}

/* The page that holds the entry of virtual cluster v, and the first and one past the last entry of page p. */
static inline uint64_t geometry_page_of(const struct geometry *g, uint32_t v)
{
	return (g->index + 4 * (uint64_t)v) / FORMAT_PAGE;
}

static inline uint32_t geometry_page_first(const struct geometry *g, uint64_t page)
{
	return page ? (uint32_t)((page * FORMAT_PAGE - g->index) / 4) : 0;
}

static inline uint32_t geometry_page_end(const struct geometry *g, uint64_t page)
{
	uint64_t end = ((page + 1) * FORMAT_PAGE - g->index) / 4;

	return end < g->clusters ? (uint32_t)end : g->clusters;
}

/* One delta of a stack: an open file and what its header said. */
struct delta {
	struct io_file *file;
	const struct format *format;
	struct geometry geometry; /* as parsed from the file */
};

#endif
