/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy.h - clusters that lie together, from one delta into another or the same: cloned where the file system can, else read and
 * written. */
#ifndef DEVICE_COPY_H
#define DEVICE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"
#include "io/io.h"

#define COPY_CHUNK (UINT32_C(1) << 20) /* bytes at a time */

struct device;

struct copy {
	/* The caller's. */
	struct device *device;
	const struct delta *from, *to;
	uint32_t from_cluster, to_cluster; /* the first of clusters that lie one after the other in both */
	uint64_t length;                   /* bytes that count; copy_most() clusters or fewer for `stored` */
	bool stale;                        /* the place may hold old data; else it reads as zeros */
	uint32_t grain;                    /* bytes: holes from this size on stay holes; 0: COPY_PIECE */
	bool impatient;                    /* fails for want of space on the host; else it waits */
	void (*done)(struct copy *copy, int result);
	void *buffer;    /* COPY_CHUNK bytes */
	uint64_t stored; /* result: bits of clusters of which something that is not zero was stored, or may have been */

	/* The engine's. */
	uint64_t chunk, chunk_end; /* bytes of the run that the buffer holds */
	uint64_t piece, piece_end; /* of them, those that are being written */
	struct io_op op;
};

/* How many clusters one copy can take. */
uint32_t copy_most(const struct device *device, const struct delta *to, const struct delta *from);

/* Whether something was stored in cluster i of the run. */
bool copy_stored(const struct copy *copy, uint32_t i);

/* Starts it. The new data is not durable when it is done. */
void copy_start(struct copy *copy);

#endif
