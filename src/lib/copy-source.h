/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-source.h - the device that is copied: its shape, what has changed, and standing still. One connection to its ploopd. */
#ifndef LIB_COPY_SOURCE_H
#define LIB_COPY_SOURCE_H

#include <ploop/ploop.h>

#include "lib/copy-read.h"

struct copy_source {
	struct ploop_device device;
	struct control_client *client;
	struct copy_reader *reader;
	uint64_t size, dirty; /* bytes; `dirty` as last heard */
	uint32_t cluster, version;
	bool raw, flat;
};

#define COPY_RUNS 8192 /* most in one answer */

/* Finds the device and starts to track what changes. All that there is counts as changed. */
int copy_source_open(struct copy_source *source, const char *device, bool flat, struct ploop_error *err);

/* The same for a backup: all levels as one, and only what has changed since. -ENOENT, status 44, without such a bitmap. */
struct copy_since {
	bool only;        /* what has changed in this dirty bitmap; else all */
	uint8_t id[16];
};
int copy_source_open_since(struct copy_source *source, const char *device, const struct copy_since *since,
			   struct ploop_error *err);
void copy_source_close(struct copy_source *source);

/* What has changed at or after *from, which goes on; UINT64_MAX: that was all of this pass. Fills at most COPY_RUNS runs. */
int copy_source_take(struct copy_source *source, uint64_t *from, struct copy_run *runs, size_t *ret_n,
		     struct ploop_error *err);

/* How much has changed by now: source->dirty. */
int copy_source_ask(struct copy_source *source, struct ploop_error *err);

#define COPY_MARKS 4096 /* most at once */

/* The clusters that start there count as changed. */
int copy_source_mark(struct copy_source *source, const uint64_t *offsets, size_t n, struct ploop_error *err);

/* The device stands still, for so many seconds at most. */
int copy_source_hold(struct copy_source *source, unsigned seconds, struct ploop_error *err);
/* -ETIMEDOUT, status 14, when it went on before. */
int copy_source_release(struct copy_source *source, struct ploop_error *err);

#endif
