/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim.h - the simulated disk of the tests: named files in memory, and a loop whose time is virtual and whose order is a seed.
 *
 * It keeps exactly the promises of io.h and loop.h, and no more:
 *  1. Operations in flight take effect and complete in any order. The bytes of a write are taken, and those of a read given,
 *     at one moment between submission and completion. The control path acts at once.
 *  2. A power cut leaves of each file what was synced, and of every later change each 512-byte sector old or new. A later
 *     change of the same sector wins over an earlier one where both were applied. The length may be any value between.
 *  3. What a sync makes durable is every operation whose `done` was called before the sync was submitted, and the length.
 *  4. A failed change may have been done in part.
 *
 * Everything is a pure function of the seed and of what the caller does. Files cost memory for what was written, in pages of
 * 4 KiB; an unsynced change costs the pages it touches, so that cutting the power copies no file. Running out of real memory
 * aborts: this is a tool of the tests.
 */
#ifndef IO_SIM_H
#define IO_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "io/io.h"
#include "io/loop.h"

#define SIM_PAGE 4096u

struct sim;

/* The module; io_open() takes it by name of this table, with the loop of a sim. */
extern const struct io_ops io_sim;

struct sim *sim_new(uint64_t seed);
/* All files must be closed. NULL is accepted. */
void sim_free(struct sim *sim);

/* From now on other things are random: so that one moment has many outcomes. */
void sim_reseed(struct sim *sim, uint64_t seed);

/* The loop belongs to the sim: it is not to be freed. */
struct loop *sim_loop(struct sim *sim);

/* How the operation that goes on next is chosen. */
enum sim_order {
	SIM_ORDER_RANDOM,
	SIM_ORDER_FIRST, /* the oldest: as if all were synchronous */
	SIM_ORDER_LAST,  /* the newest: the oldest waits as long as there are others */
};
void sim_set_order(struct sim *sim, enum sim_order order);

/* Whether IO_CLONE works; it does not by default. Ranges must be multiples of SIM_PAGE. */
void sim_set_clone(struct sim *sim, bool on);

/* How many bytes of blocks all files may hold together; UINT64_MAX, the default, is no limit. What is beyond fails with
 * -ENOSPC, perhaps half done. */
void sim_set_space(struct sim *sim, uint64_t bytes);
uint64_t sim_space_used(const struct sim *sim);

/* Operations submitted so far, those of the control path that read, write, sync or set a length included. */
uint64_t sim_operations(const struct sim *sim);

/* The nth (1: the next) operation from now and the `count` - 1 that follow it fail with `error`, a negative errno. A count of
 * 0 fails none. */
void sim_fail(struct sim *sim, uint64_t nth, uint64_t count, int error);
/* How many operations have failed in this way since sim_fail(). */
uint64_t sim_failed(const struct sim *sim);

/*
 * Cuts the power. What is left of each file is decided at once; from then on every operation, those in flight included, fails
 * with -EIO and does nothing, so that the layers above can be taken down. sim_boot() makes the disk usable again, after all
 * files are closed.
 */
void sim_cut(struct sim *sim);
/* Cuts it instead of the nth (1: the next) step from now; a step is an operation of the control path, or an operation that
 * takes effect, or one that completes. 0 cancels. */
void sim_cut_after(struct sim *sim, uint64_t nth);
bool sim_is_cut(const struct sim *sim);
/* What the next cut is: of the power (the default), or only of the process. Then operations in flight happen or not, and
 * nothing is lost nor made durable: a later cut of the power may still take what was not synced. */
enum sim_cut {
	SIM_CUT_POWER,
	SIM_CUT_PROCESS,
};
void sim_set_cut(struct sim *sim, enum sim_cut kind);
/* Called at the moment of each cut, before anybody else notices. */
void sim_on_cut(struct sim *sim, void (*call)(void *data, enum sim_cut kind), void *data);
void sim_boot(struct sim *sim);

/* Changes made to a file since it was created: writes, zeroing, lengths. 0 when there is no such file. */
uint64_t sim_changes(const struct sim *sim, const char *path);
/* Those of them that a power cut may still take. */
uint64_t sim_unsynced(const struct sim *sim, const char *path);
/* A number that tells contents and length apart. */
uint64_t sim_hash(const struct sim *sim, const char *path);
/* Unlinks a file, at once and durably. It must not be open. 0 or -ENOENT. */
int sim_remove(struct sim *sim, const char *path);

#endif
