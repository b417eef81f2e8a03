/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * oracle.h - what each sector of a disk may hold, given what was asked of the disk and when it answered.
 *
 * A sector has a list of versions, one for each write that may still be seen. Time is a count of submissions and completions.
 *  1. A write overwrites a version when that version's write was done before it was submitted. Writes in flight together
 *     leave both possible, until a read with nothing in flight settles which.
 *  2. A read may give every version that was not overwritten before the read was submitted.
 *  3. After a power cut a sector may hold every version that was not overwritten before the last completed flush was
 *     submitted. A write with FUA is a flush that covers itself too.
 *  4. A write that failed may have happened or not, in each sector; but reads agree on which.
 */
#ifndef TESTS_SIM_ORACLE_H
#define TESTS_SIM_ORACLE_H

#include <stdbool.h>
#include <stdint.h>

#include "base/list.h"

#define ORACLE_SECTOR 512u

struct oracle_version;

struct oracle {
	uint64_t sectors;
	struct oracle_version **versions; /* per sector; the newest first */
	uint64_t clock;
	uint64_t flushed; /* when the newest completed flush was submitted */
	uint64_t next_id;
	struct list reads;  /* in flight, the oldest first */
	struct list writes; /* in flight */
	char text[512];     /* what is wrong, after a function returned false */
};

/* A write, also one of zeros. Lives as long as a version refers to it. */
struct oracle_write {
	struct list node;
	uint64_t id;              /* 0: zeros */
	uint64_t submitted, done; /* UINT64_MAX while in flight */
	uint64_t refs;
	bool fua;
};

struct oracle_read {
	struct list node;
	uint64_t submitted;
};

void oracle_init(struct oracle *oracle, uint64_t sectors);
void oracle_fini(struct oracle *oracle);

/* The disk has another size. What is beyond a smaller one is forgotten, and reads as zeros should it come back. Nothing may be in
 * flight there. */
void oracle_resize(struct oracle *oracle, uint64_t sectors);

/* The id of what a sector holds; UINT64_MAX when it may be one or the other. */
uint64_t oracle_present(const struct oracle *oracle, uint64_t sector);

/* Bytes that tell which write wrote which sector. Id 0 is all zeros. */
void oracle_fill(uint64_t id, uint64_t sector, uint64_t count, void *buffer);
uint64_t oracle_new_id(struct oracle *oracle);

/* What the disk holds to begin with. Zeros when this is not called. */
void oracle_preset(struct oracle *oracle, uint64_t sector, uint64_t id);

struct oracle_write *oracle_write_submitted(struct oracle *oracle, uint64_t sector, uint64_t count, bool zeros,
					    bool fua);
void oracle_write_done(struct oracle *oracle, struct oracle_write *write, uint64_t sector, uint64_t count, int result);

void oracle_read_submitted(struct oracle *oracle, struct oracle_read *read);
/* False when a sector holds what it may not. */
bool oracle_read_done(struct oracle *oracle, struct oracle_read *read, uint64_t sector, uint64_t count,
		      const void *buffer);
void oracle_read_failed(struct oracle *oracle, struct oracle_read *read);

/* The time to give to oracle_flush_done(). */
uint64_t oracle_flush_submitted(struct oracle *oracle);
void oracle_flush_done(struct oracle *oracle, uint64_t submitted, int result);

/* The power was cut, or the process died: what is in flight will never be done. Then every sector is to be given to
 * oracle_settle(). */
void oracle_cut(struct oracle *oracle);
/* Checks what is left. `durable`: the power was cut, so what is left stays; else a cut before the next flush may still bring
 * back what was there before. */
bool oracle_settle(struct oracle *oracle, uint64_t sector, uint64_t count, const void *buffer, bool durable);

#endif
