/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shadow.c - the memory of shadow.h: a head, and for each slot a region of its own, which costs only what was noted in it.
 *
 *	0          struct head
 *	REGION     entries of slot 0, 4 bytes each; half a region further its partial clusters
 *	2 REGION   those of slot 1
 */
#include "device/shadow.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x776f646168736c70)
#define VERSION 1u
#define SLOTS 8u /* deltas that are written to at a time: three at most */
#define PATH_ROOM 4096u
#define REGION (UINT64_C(1) << 36)
#define PARTIALS_AT (REGION / 2)
#define PARTIALS_MOST (1u << 20)

enum slot_state { SLOT_FREE, SLOT_TAKEN, SLOT_ACTIVE };

struct slot {
	uint32_t state;
	uint32_t count, npartials;
	uint32_t unused;
	char path[PATH_ROOM];
};

struct head {
	uint64_t magic;
	uint32_t version;
	uint32_t top; /* 1 + slot; 0: none */
	struct slot slots[SLOTS];
};

struct shadow {
	int fd;
	struct head *head;
};

static uint64_t region(unsigned slot)
{
	return REGION * (slot + 1);
}

static int map_head(struct shadow *shadow)
{
	void *memory = mmap(NULL, sizeof(struct head), PROT_READ | PROT_WRITE, MAP_SHARED, shadow->fd, 0);

	if (memory == MAP_FAILED)
		return -errno;
	shadow->head = memory;
	return 0;
}

static int open_memory(int fd, bool fresh, struct shadow **ret)
{
	struct shadow *shadow = calloc(1, sizeof(*shadow));
	struct stat st;
	int r = -ENOMEM;

	if (!shadow) {
		close(fd);
		return r;
	}
	shadow->fd = fd;
	r = fresh && ftruncate(fd, (off_t)region(SLOTS)) < 0 ? -errno : 0;
	if (!r && (fstat(fd, &st) < 0 || (uint64_t)st.st_size != region(SLOTS)))
		r = -EPROTO;
	if (!r)
		r = map_head(shadow);
	if (!r && fresh) {
		shadow->head->magic = MAGIC;
		shadow->head->version = VERSION;
	}
	if (!r && (shadow->head->magic != MAGIC || shadow->head->version != VERSION))
		r = -EPROTO;
	if (r) {
		shadow_close(shadow);
		return r;
	}
	*ret = shadow;
	return 0;
}

int shadow_new(struct shadow **ret)
{
	int fd = memfd_create("ploop-shadow", MFD_CLOEXEC);

	return fd < 0 ? -errno : open_memory(fd, true, ret);
}

int shadow_open(int fd, struct shadow **ret)
{
	return open_memory(fd, false, ret);
}

void shadow_close(struct shadow *shadow)
{
	if (!shadow)
		return;
	if (shadow->head)
		munmap(shadow->head, sizeof(struct head));
	close(shadow->fd);
	free(shadow);
}

int shadow_fd(const struct shadow *shadow)
{
	return shadow->fd;
}

const char *shadow_top(const struct shadow *shadow)
{
	uint32_t top = shadow->head->top;

	return top && top <= SLOTS && shadow->head->slots[top - 1].state ? shadow->head->slots[top - 1].path : NULL;
}

/* The slot with the notes of this file; SLOTS: there is none. */
static unsigned find(const struct shadow *shadow, const char *path)
{
	unsigned i = 0;

	while (i < SLOTS && (shadow->head->slots[i].state != SLOT_ACTIVE ||
			     strncmp(shadow->head->slots[i].path, path, PATH_ROOM)))
		i++;
	return i;
}

bool shadow_has(const struct shadow *shadow, const char *path)
{
	return find(shadow, path) < SLOTS;
}

/* First it does not count any more, then it is empty. */
static void clear(struct shadow *shadow, unsigned slot)
{
	__atomic_store_n(&shadow->head->slots[slot].state, SLOT_FREE, __ATOMIC_RELEASE);
	(void)fallocate(shadow->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)region(slot), (off_t)REGION);
}

void shadow_forget(struct shadow *shadow)
{
	for (unsigned i = 0; i < SLOTS; i++)
		clear(shadow, i);
	shadow->head->top = 0;
}

/* A slot's arrays, as long as it says. */
static int map_level(struct shadow_level *level, uint32_t count, uint32_t npartials)
{
	struct shadow *shadow = level->shadow;
	size_t bytes = (size_t)count * sizeof(uint32_t);
	void *memory;

	if (count && !level->entries) {
		memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, shadow->fd,
			      (off_t)region(level->slot));
		if (memory == MAP_FAILED)
			return -errno;
		level->entries = memory;
		level->count = count;
	}
	if (npartials) {
		memory = mmap(NULL, npartials * sizeof(struct shadow_partial), PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_NORESERVE, shadow->fd, (off_t)(region(level->slot) + PARTIALS_AT));
		if (memory == MAP_FAILED)
			return -errno;
		level->partials = memory;
		level->npartials = npartials;
	}
	return 0;
}

void shadow_level_unmap(struct shadow_level *level)
{
	if (level->entries)
		munmap(level->entries, (size_t)level->count * sizeof(uint32_t));
	if (level->partials)
		munmap(level->partials, level->npartials * sizeof(struct shadow_partial));
	free(level);
}

static int level_new(struct shadow *shadow, unsigned slot, uint32_t count, uint32_t npartials,
		     struct shadow_level **ret)
{
	struct shadow_level *level = calloc(1, sizeof(*level));
	int r;

	if (!level)
		return -ENOMEM;
	level->shadow = shadow;
	level->slot = slot;
	r = map_level(level, count, npartials);
	if (r) {
		shadow_level_unmap(level);
		return r;
	}
	*ret = level;
	return 0;
}

int shadow_level_find(struct shadow *shadow, const char *path, struct shadow_level **ret)
{
	unsigned i = find(shadow, path);
	const struct slot *slot = &shadow->head->slots[i < SLOTS ? i : 0];

	if (i == SLOTS)
		return -ENOENT;
	if (slot->npartials > PARTIALS_MOST)
		return -EPROTO;
	return level_new(shadow, i, slot->count, slot->npartials, ret);
}

int shadow_level_new(struct shadow *shadow, const char *path, uint32_t count, struct shadow_level **ret)
{
	struct slot *slot;
	unsigned i = 0;
	int r;

	while (i < SLOTS && shadow->head->slots[i].state)
		i++;
	if (i == SLOTS)
		return -EMFILE;
	slot = &shadow->head->slots[i];
	if (snprintf(slot->path, PATH_ROOM, "%s", path) >= (int)PATH_ROOM)
		return -ENAMETOOLONG;
	r = level_new(shadow, i, count, 0, ret);
	if (r)
		return r;
	slot->count = count;
	slot->npartials = 0;
	slot->state = SLOT_TAKEN;
	return 0;
}

void shadow_level_free(struct shadow_level *level)
{
	if (!level)
		return;
	clear(level->shadow, level->slot);
	shadow_level_unmap(level);
}

int shadow_level_grow(struct shadow_level *level, uint32_t count)
{
	size_t old = (size_t)level->count * sizeof(uint32_t), new = (size_t)count * sizeof(uint32_t);
	void *memory;

	if (count <= level->count || !level->entries)
		return 0;
	memory = mremap(level->entries, old, new, MREMAP_MAYMOVE);
	if (memory == MAP_FAILED)
		return -ENOMEM;
	level->entries = memory;
	level->count = count;
	level->shadow->head->slots[level->slot].count = count;
	return 0;
}

void shadow_level_activate(struct shadow_level *level)
{
	__atomic_store_n(&level->shadow->head->slots[level->slot].state, SLOT_ACTIVE, __ATOMIC_RELEASE);
}

void shadow_level_set_top(struct shadow_level *level)
{
	__atomic_store_n(&level->shadow->head->top, level->slot + 1, __ATOMIC_RELEASE);
}

int shadow_level_allot(struct shadow_level *level, uint32_t npartials)
{
	struct slot *slot = &level->shadow->head->slots[level->slot];

	slot->npartials = 0;
	if (level->partials)
		munmap(level->partials, level->npartials * sizeof(struct shadow_partial));
	level->partials = NULL;
	level->npartials = 0;
	(void)fallocate(level->shadow->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
			(off_t)(region(level->slot) + PARTIALS_AT), (off_t)PARTIALS_AT);
	if (npartials > PARTIALS_MOST || map_level(level, 0, npartials))
		return -ENOMEM;
	slot->npartials = npartials;
	return 0;
}

void shadow_note_partial(struct shadow_level *level, uint32_t slot, const struct shadow_partial *partial)
{
	struct shadow_partial *at = &level->partials[slot];

	if (!partial->cluster) {
		__atomic_store_n(&at->cluster, 0, __ATOMIC_RELEASE);
		return;
	}
	/* Of one that is there only units are added. */
	at->v = partial->v;
	for (unsigned w = 0; w < PARTIAL_UNITS / 64; w++)
		__atomic_store_n(&at->valid[w], partial->valid[w], __ATOMIC_RELEASE);
	__atomic_store_n(&at->cluster, partial->cluster, __ATOMIC_RELEASE);
}
