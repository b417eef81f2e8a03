/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alloc.h - the file clusters of the top delta: which are used, which are free, and which must not be used again yet.
 *
 * Invariants:
 *  1. A cluster is `used` from the moment it is chosen until the index entry that named it is durably gone.
 *  2. A cluster whose entry was removed waits: it is put into `freed` (after its blocks were given back), moves to
 *     `retiring` when a commit starts, and becomes free when that commit is done.
 *  3. A free cluster reads as zeros when it is in `clean`, or lies at `opened` or after it.
 *     Any other free cluster may hold old data (left by a crash or another program) and is punched before a use that does
 *     not overwrite it whole.
 *  4. The lowest free clusters are used first, so that the file stays short.
 */
#ifndef DEVICE_ALLOC_H
#define DEVICE_ALLOC_H

#include <stdbool.h>
#include <stdint.h>

#include "base/bitmap.h"

struct alloc {
	struct bitmap used;
	struct bitmap clean;
	struct bitmap freed, retiring;
	uint32_t first;       /* lowest cluster that may hold data */
	uint64_t limit;       /* one past the highest that may */
	uint64_t lowest_free; /* none below this is free */
	uint64_t file;        /* length of the file in whole clusters, as far as it has been extended */
	uint64_t opened;      /* clusters from here on read as zeros unless they were written since */
};

/* `file` and `limit` in clusters. */
int alloc_init(struct alloc *alloc, uint32_t first, uint64_t file, uint64_t limit);
void alloc_fini(struct alloc *alloc);

/* At open: the index names this cluster. False when it does so twice. */
bool alloc_claim(struct alloc *alloc, uint32_t cluster);

/* Chooses up to `count` free clusters in a row. Returns how many (0: none left) and the first in *ret. They are used now. */
uint32_t alloc_take(struct alloc *alloc, uint32_t count, uint32_t *ret);

/* The same, but only below `end`. */
uint32_t alloc_take_below(struct alloc *alloc, uint32_t count, uint64_t end, uint32_t *ret);

/* Gives clusters back that no index entry, on disk or in the map, ever named. They may hold data. */
void alloc_untake(struct alloc *alloc, uint32_t cluster, uint32_t count);

/* A cluster whose entry was removed from the map; free once a commit that starts later is done. `clean`: it reads as zeros. */
void alloc_free(struct alloc *alloc, uint32_t cluster, bool clean);

void alloc_commit_start(struct alloc *alloc);
void alloc_commit_done(struct alloc *alloc);

/* Whether some of these may hold old data; and: they have been punched. */
bool alloc_stale(const struct alloc *alloc, uint32_t cluster, uint32_t count);
void alloc_cleaned(struct alloc *alloc, uint32_t cluster, uint32_t count);

/* Takes up to `count` free clusters in a row that may hold old data, from `from` on and before the last used one. Returns how many;
 * and: gives them back, clean or not. */
uint32_t alloc_take_stale(struct alloc *alloc, uint64_t from, uint32_t count, uint32_t *ret);
void alloc_return(struct alloc *alloc, uint32_t cluster, uint32_t count, bool clean);

/* One past the last used cluster: what the file must at least hold. */
uint64_t alloc_end(const struct alloc *alloc);

/* Makes room for clusters up to `limit`. 0 or -ENOMEM. */
int alloc_grow(struct alloc *alloc, uint64_t limit);
/* Only clusters from `first` on are given out from now on. Those below that are in use stay so until they are freed. */
void alloc_set_first(struct alloc *alloc, uint32_t first);
/* Whether entries name clusters from..end-1, those apart that wait for a commit only. */
bool alloc_named(const struct alloc *alloc, uint64_t from, uint64_t end);
/* How many clusters are in use; those that wait for a commit are not. */
uint64_t alloc_count(const struct alloc *alloc);

#endif
