/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* level.h - one file of a stack: found, locked, opened, its header read. For stack.c. */
#ifndef IMAGE_LEVEL_H
#define IMAGE_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

#include "image/lock.h"

struct delta;
struct dir;
struct io_file;
struct io_ops;
struct loop;
struct ploop_error;

struct level_request {
	struct loop *loop;
	const struct io_ops *module;
	struct dir *dir; /* names are relative to this folder */
	const char *name;
	bool beneath; /* refuse a file outside the folder: -EXDEV, and no text in the error */
	bool write;
	bool unlocked; /* keep no lock */
};

/*
 * Opens the file and takes its lock. What is locked is what is opened, whatever is renamed meanwhile. Sets
 * delta->file and *ret_lock (-1 where there are no locks).
 */
int level_open(const struct level_request *request, struct delta *delta, int *ret_lock, struct ploop_error *err);

/* Opens a file whose lock another process of ours had, and which the caller holds as `lock` now; -1: there is none, and it is found
 * by its path. Of the request: loop, module and write. */
int level_adopt(const struct level_request *request, int lock, const char *path, struct io_file **ret,
		struct ploop_error *err);

/* Reads the header by delta->format. `cluster` is for formats that do not store one. */
int level_parse(struct delta *delta, uint32_t cluster, struct ploop_error *err);

/*
 * Takes the mark "in use" off a delta below the top, whose read lock is held as `lock`, after what was left unused at the end of
 * the file is cut off. Not being able to write the file is no failure: the mark then stays, and does no harm. It stays, too, where
 * partial clusters are left.
 */
int level_clear_mark(struct loop *loop, struct delta *delta, int lock, struct ploop_error *err);

/* level-tail.c: cuts off what no entry of the index names at the end of a file that is open for writing and nobody else's. */
int level_cut_tail(struct io_file *file, const struct delta *delta);

/* Opens the file of a level once more, for writing: the very file that is locked as `lock`. */
int level_reopen(struct loop *loop, const struct delta *delta, int lock, struct io_file **ret, struct ploop_error *err);

#endif
