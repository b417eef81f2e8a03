/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shadow.h - what an engine has answered and not yet made durable, in memory that outlives its process.
 *
 * The map in memory is ahead of the index in the file (commit.c). A power cut may take the difference: nobody was promised
 * more. But when only the process dies, the file system above goes on, and was told that its writes are done. So every entry
 * that changes is noted here too, and so is what is known of partial clusters (partial.h). The next engine first makes the
 * files say what the notes say, and then opens them as after any crash.
 *
 * The memory is a memfd. Somebody else must hold a copy of the descriptor.
 *
 * Invariants:
 *  1. A note is made when the map changes: after the data is in the file, before the request is answered.
 *  2. The notes of a delta say for each entry that changed since it was opened what it is now; for others the file does. So notes
 *     are never taken back, be the entry durable or not, and to apply them twice is the same as once.
 *  3. A delta has notes from when it is open and marked in use (shadow_level_activate()) until nothing of it is only in memory.
 *  4. Each note is one store of an aligned word. A process that is killed between two of them has not answered the request that
 *     they are for.
 *  5. Applied, the files are in a state in which a power cut could have left them, had all been flushed: data is synced before
 *     notes are written, lower levels come first, and then all is synced.
 *  6. Nothing of the old process is in flight when they are applied: whoever starts the next engine sees to that.
 */
#ifndef DEVICE_SHADOW_H
#define DEVICE_SHADOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/partial.h"

struct delta;
struct ploop_error;
struct shadow;

/* A partial cluster; `cluster` 0: none. */
struct shadow_partial {
	uint32_t v, cluster;
	uint64_t valid[PARTIAL_UNITS / 64];
};

/* The notes of one delta. */
struct shadow_level {
	struct shadow *shadow;
	unsigned slot;
	uint32_t *entries; /* 0: as in the file, else 1 + file cluster */
	uint32_t count;
	struct shadow_partial *partials;
	uint32_t npartials;
};

/* New memory, or that behind `fd`, which belongs to the shadow from then on (also on failure). -EPROTO: it is no shadow. */
int shadow_new(struct shadow **ret);
int shadow_open(int fd, struct shadow **ret);
/* The memory goes with the last descriptor. NULL is accepted. */
void shadow_close(struct shadow *shadow);
int shadow_fd(const struct shadow *shadow);

/* The delta that is being written to on top; NULL: not known. */
const char *shadow_top(const struct shadow *shadow);
/* Whether there are notes of this file. */
bool shadow_has(const struct shadow *shadow, const char *path);

/* shadow-replay.c: makes the file of the delta, open for writing, say what the notes say, durably. May block. */
int shadow_replay(struct shadow *shadow, const struct delta *delta, struct ploop_error *err);
/* All of it is in the files. */
void shadow_forget(struct shadow *shadow);

/* For the engine. */
int shadow_level_new(struct shadow *shadow, const char *path, uint32_t count, struct shadow_level **ret);
void shadow_level_free(struct shadow_level *level); /* NULL is accepted */
int shadow_level_grow(struct shadow_level *level, uint32_t count);
void shadow_level_activate(struct shadow_level *level);
void shadow_level_set_top(struct shadow_level *level);
/* Makes room for so many partial clusters, none of which is there. */
int shadow_level_allot(struct shadow_level *level, uint32_t npartials);

static inline void shadow_note(struct shadow_level *level, uint32_t v, uint32_t cluster)
{
	__atomic_store_n(&level->entries[v], cluster + 1, __ATOMIC_RELEASE);
}

void shadow_note_partial(struct shadow_level *level, uint32_t slot, const struct shadow_partial *partial);

/* For shadow-replay.c: the notes of a file, mapped. -ENOENT: there are none. */
int shadow_level_find(struct shadow *shadow, const char *path, struct shadow_level **ret);
/* Undoes that. */
void shadow_level_unmap(struct shadow_level *level);

#endif
