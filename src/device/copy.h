/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy.h - clusters that lie together, from one delta into another or the same: cloned where the file system can, else read and
 * written. */
#ifndef DEVICE_COPY_H
#define DEVICE_COPY_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"
#include "io/io.h"

#define COPY_CHUNK 1048576u

struct device;

struct copy {
	/* The caller's. */
	struct device *device;
	const struct delta *from, *to;
	uint32_t from_cluster, to_cluster;
	uint64_t length; /* bytes that count */
	bool stale;      /* the place may hold old data; else it reads as zeros */
	bool impatient;  /* fails for want of space on the host; else it waits */
	void (*done)(struct copy *copy, int result);
	void *buffer;
	uint32_t buffer_size; /* bytes at a time: COPY_CHUNK, or less */
	bool stored;  /* result: something that is not zero was stored, or may have been */

	/* The engine's. */
	uint64_t chunk, chunk_end;
	struct io_op op;
};

/* Starts it. The new data is not durable when it is done. */
void copy_start(struct copy *copy);

#endif
