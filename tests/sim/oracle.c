/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* oracle.c - version lists per sector. See oracle.h for the rules. */
#include "oracle.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "io/sim-table.h"

struct oracle_version {
	struct oracle_version *older;
	struct oracle_write *write;
	uint64_t over; /* known not to be the present one since; UINT64_MAX: may be it */
	bool gone;     /* overwritten by one that is durable */
};

#define WORDS (ORACLE_SECTOR / 8)

void oracle_init(struct oracle *oracle, uint64_t sectors)
{
	*oracle = (struct oracle){ .sectors = sectors, .clock = 1, .next_id = 1 };
	oracle->versions = sim_alloc(sectors * sizeof(struct oracle_version *));
	list_init(&oracle->reads);
	list_init(&oracle->writes);
}

static void unref_write(struct oracle_write *write)
{
	if (--write->refs)
		return;
	list_remove(&write->node);
	free(write);
}

static void drop(struct oracle_version **at)
{
	struct oracle_version *version = *at;

	*at = version->older;
	unref_write(version->write);
	free(version);
}

void oracle_fini(struct oracle *oracle)
{
	for (uint64_t s = 0; s < oracle->sectors; s++)
		while (oracle->versions[s])
			drop(&oracle->versions[s]);
	free(oracle->versions);
	oracle->versions = NULL;
}

void oracle_resize(struct oracle *oracle, uint64_t sectors)
{
	struct oracle_version **versions = sim_alloc(sectors * sizeof(*versions));

	for (uint64_t s = sectors; s < oracle->sectors; s++)
		while (oracle->versions[s])
			drop(&oracle->versions[s]);
	memcpy(versions, oracle->versions, min_u64(sectors, oracle->sectors) * sizeof(*versions));
	free(oracle->versions);
	oracle->versions = versions;
	oracle->sectors = sectors;
}

uint64_t oracle_new_id(struct oracle *oracle)
{
	return oracle->next_id++;
}

static uint64_t word(uint64_t id, uint64_t sector, unsigned at)
{
	return id * 0x9e3779b97f4a7c15u + sector * 0xd1b54a32d192ed03u + at * UINT64_C(0x2545f4914f6cdd1d);
}

void oracle_fill(uint64_t id, uint64_t sector, uint64_t count, void *buffer)
{
	uint64_t *words = buffer;

	if (!id) {
		memset(buffer, 0, count * ORACLE_SECTOR);
		return;
	}
	for (; count; count--, sector++, words += WORDS) {
		words[0] = id;
		for (unsigned i = 1; i < WORDS; i++)
			words[i] = word(id, sector, i);
	}
}

/* The id that a sector holds; UINT64_MAX when it is nothing that was ever written there. */
static uint64_t recognise(uint64_t sector, const void *buffer)
{
	const uint64_t *words = buffer;
	uint64_t id = words[0], wrong = 0;

	for (unsigned i = 1; i < WORDS; i++)
		wrong |= words[i] ^ (id ? word(id, sector, i) : 0);
	return wrong ? UINT64_MAX : id;
}

static struct oracle_write *write_new(struct oracle *oracle, uint64_t id)
{
	struct oracle_write *write = sim_alloc(sizeof(*write));

	write->id = id;
	write->submitted = ++oracle->clock;
	write->done = UINT64_MAX;
	write->refs = 1;
	list_init(&write->node);
	return write;
}

static void push(struct oracle *oracle, uint64_t sector, struct oracle_write *write)
{
	struct oracle_version *version = sim_alloc(sizeof(*version));

	version->write = write;
	version->over = UINT64_MAX;
	version->older = oracle->versions[sector];
	write->refs++;
	oracle->versions[sector] = version;
}

/* A sector without any version is one of zeros since ever; this makes that explicit before another joins. */
static void push_first(struct oracle *oracle, uint64_t sector, struct oracle_write *zeros)
{
	if (!oracle->versions[sector])
		push(oracle, sector, zeros);
}

void oracle_preset(struct oracle *oracle, uint64_t sector, uint64_t id)
{
	struct oracle_write *write = write_new(oracle, id);

	write->submitted = write->done = 0;
	while (oracle->versions[sector])
		drop(&oracle->versions[sector]);
	push(oracle, sector, write);
	unref_write(write);
}

struct oracle_write *oracle_write_submitted(struct oracle *oracle, uint64_t sector, uint64_t count, bool zeros,
					    bool fua)
{
	struct oracle_write *first = write_new(oracle, 0);
	struct oracle_write *write = write_new(oracle, zeros ? 0 : oracle_new_id(oracle));

	first->submitted = first->done = 0;
	for (uint64_t s = sector; s < sector + count; s++) {
		push_first(oracle, s, first);
		push(oracle, s, write);
	}
	unref_write(first);
	write->fua = fua;
	list_push_back(&oracle->writes, &write->node);
	return write;
}

/* The time since when all reads in flight were submitted. */
static uint64_t oldest_read(const struct oracle *oracle)
{
	if (list_empty(&oracle->reads))
		return oracle->clock;
	return container_of(oracle->reads.next, const struct oracle_read, node)->submitted;
}

static bool survives_cut(const struct oracle *oracle, const struct oracle_version *version)
{
	return !version->gone && version->over > oracle->flushed;
}

/* Forgets versions that neither a read nor a cut can bring back. */
static void prune(struct oracle *oracle, uint64_t sector)
{
	uint64_t oldest = oldest_read(oracle);

	for (struct oracle_version **at = &oracle->versions[sector]; *at;) {
		if (!survives_cut(oracle, *at) && (*at)->over <= oldest)
			drop(at);
		else
			at = &(*at)->older;
	}
}

static void overwrite(struct oracle *oracle, uint64_t sector, const struct oracle_write *write)
{
	for (struct oracle_version *v = oracle->versions[sector]; v; v = v->older) {
		if (v->write == write || v->write->done >= write->submitted)
			continue;
		v->over = min_u64(v->over, oracle->clock);
		v->gone |= write->fua;
	}
}

void oracle_write_done(struct oracle *oracle, struct oracle_write *write, uint64_t sector, uint64_t count, int result)
{
	write->done = ++oracle->clock;
	list_remove(&write->node);
	if (!result && write->fua)
		oracle->flushed = max_u64(oracle->flushed, write->submitted);
	for (uint64_t s = sector; s < sector + count; s++) {
		if (!result)
			overwrite(oracle, s, write);
		prune(oracle, s);
	}
	unref_write(write);
}

uint64_t oracle_present(const struct oracle *oracle, uint64_t sector)
{
	const struct oracle_version *v = oracle->versions[sector];
	uint64_t id = v ? UINT64_MAX : 0;

	for (; v; v = v->older) {
		if (v->over != UINT64_MAX)
			continue;
		if (v->write->done == UINT64_MAX || (id != UINT64_MAX && id != v->write->id))
			return UINT64_MAX;
		id = v->write->id;
	}
	return id;
}

void oracle_read_submitted(struct oracle *oracle, struct oracle_read *read)
{
	read->submitted = ++oracle->clock;
	list_push_back(&oracle->reads, &read->node);
}

/* Nothing was in flight on the sector since `when`. */
static bool quiet_since(const struct oracle *oracle, uint64_t sector, uint64_t when)
{
	for (const struct oracle_version *v = oracle->versions[sector]; v; v = v->older)
		if (v->write->done > when)
			return false;
	return true;
}

static bool complain(struct oracle *oracle, uint64_t sector, uint64_t id, const void *buffer, const char *when)
{
	size_t size = sizeof(oracle->text), at;

	at = (size_t)snprintf(oracle->text, size, "%s: sector %" PRIu64 " holds ", when, sector);
	if (id == UINT64_MAX)
		at += (size_t)snprintf(oracle->text + at, size - at, "garbage (%016" PRIx64 " ...)",
				       *(const uint64_t *)buffer);
	else
		at += (size_t)snprintf(oracle->text + at, size - at, "%" PRIu64, id);
	at += (size_t)snprintf(oracle->text + at, size - at, ", may hold (flushed at %" PRIu64 ")", oracle->flushed);
	for (const struct oracle_version *v = oracle->versions[sector]; v && at < size; v = v->older)
		at += (size_t)snprintf(oracle->text + at, size - at,
				       " %" PRIu64 "[%" PRIu64 "..%" PRId64 " over %" PRId64 "%s]", v->write->id,
				       v->write->submitted, (int64_t)v->write->done, (int64_t)v->over,
				       v->gone ? " gone" : "");
	return false;
}

static bool check_read(struct oracle *oracle, uint64_t sector, uint64_t since, const void *buffer)
{
	uint64_t id = recognise(sector, buffer);
	bool found = !oracle->versions[sector] && !id;

	for (struct oracle_version *v = oracle->versions[sector]; v && !found; v = v->older)
		found = v->write->id == id && v->over > since;
	if (!found)
		return complain(oracle, sector, id, buffer, "read");
	if (quiet_since(oracle, sector, since))
		for (struct oracle_version *v = oracle->versions[sector]; v; v = v->older)
			if (v->write->id != id)
				v->over = min_u64(v->over, oracle->clock);
	return true;
}

bool oracle_read_done(struct oracle *oracle, struct oracle_read *read, uint64_t sector, uint64_t count,
		      const void *buffer)
{
	const uint8_t *bytes = buffer;

	oracle->clock++;
	list_remove(&read->node);
	for (uint64_t i = 0; i < count; i++)
		if (!check_read(oracle, sector + i, read->submitted, bytes + i * ORACLE_SECTOR))
			return false;
	return true;
}

void oracle_read_failed(struct oracle *oracle, struct oracle_read *read)
{
	oracle->clock++;
	list_remove(&read->node);
}

uint64_t oracle_flush_submitted(struct oracle *oracle)
{
	return ++oracle->clock;
}

void oracle_flush_done(struct oracle *oracle, uint64_t submitted, int result)
{
	oracle->clock++;
	if (!result)
		oracle->flushed = max_u64(oracle->flushed, submitted);
}

void oracle_cut(struct oracle *oracle)
{
	oracle->clock++;
	list_for_each_safe (node, &oracle->writes) {
		struct oracle_write *write = container_of(node, struct oracle_write, node);

		write->done = oracle->clock;
		list_remove(node);
		unref_write(write);
	}
	list_init(&oracle->reads);
}

/* One version that a crash may have left and that reads as `id` is the present one; NULL when there is none. */
static struct oracle_version *left(const struct oracle *oracle, uint64_t sector, uint64_t id)
{
	struct oracle_version *v = oracle->versions[sector];

	while (v && (v->write->id != id || !survives_cut(oracle, v)))
		v = v->older;
	return v;
}

static void settle(struct oracle *oracle, uint64_t sector, struct oracle_version *kept, bool durable)
{
	kept->over = UINT64_MAX;
	for (struct oracle_version **at = &oracle->versions[sector]; *at;) {
		if (*at != kept)
			(*at)->over = survives_cut(oracle, *at) ? oracle->clock : 0;
		if (*at != kept && (durable || !(*at)->over))
			drop(at);
		else
			at = &(*at)->older;
	}
}

bool oracle_settle(struct oracle *oracle, uint64_t sector, uint64_t count, const void *buffer, bool durable)
{
	const uint8_t *bytes = buffer;

	oracle->clock++;
	for (uint64_t s = sector; s < sector + count; s++, bytes += ORACLE_SECTOR) {
		uint64_t id = recognise(s, bytes);
		struct oracle_version *kept = left(oracle, s, id);

		if (kept)
			settle(oracle, s, kept, durable);
		else if (oracle->versions[s] || id)
			return complain(oracle, s, id, bytes, durable ? "after the cut" : "after the crash");
	}
	return true;
}
