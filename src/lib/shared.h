/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * shared.h - a disk opened in this process and used by many threads at the same time, each of which blocks for its own requests.
 *
 * The engine is entered by one thread at a time; the I/O that a request comes to is done outside, by the thread whose request
 * it is, so that requests of several threads are in flight together and none is handed from one thread to another. Whoever is
 * inside carries on what waits there, whoever it belongs to: a request that waited for another one's cluster is finished by it.
 */
#ifndef LIB_SHARED_H
#define LIB_SHARED_H

#include <stdbool.h>

#include <ploop/ploop.h>

#include "device/device.h"

struct shared;

int shared_open(const struct ploop_files *files, bool write, struct shared **ret, struct ploop_error *err);
/* No request may be under way. Tells how closing the image went. */
int shared_close(struct shared *shared, struct ploop_error *err);

uint64_t shared_size(const struct shared *shared);
/* Whether ranges become zero without being written, as far as the host's file system is asked. */
bool shared_zeroes_fast(const struct shared *shared);

/* As device_submit(), but it returns when it is done: 0 or a negative errno. From any thread. */
int shared_request(struct shared *shared, enum device_kind kind, unsigned flags, void *buffer, uint64_t length,
		   uint64_t offset);

/*
 * What lies at `offset`: the length of the stretch, at most `length`, and whether it is known to read as zeros because nothing
 * is stored there.
 */
int shared_extent(struct shared *shared, uint64_t offset, uint64_t length, uint64_t *ret_length, bool *ret_hole);

#endif
