/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* convert.h - one new file from the levels of a stack: made, written, read back. For convert*.c. */
#ifndef LIB_CONVERT_H
#define LIB_CONVERT_H

#include <stdbool.h>
#include <sys/stat.h>

#include <ploop/ploop.h>

#include "image/create.h"
#include "job/rewrite.h"

struct dir;

struct convert_write {
	struct loop *loop;
	struct dir *dir;
	const char *name;           /* in `dir`; not there yet */
	const struct delta *levels; /* what is written: base first, their merged content */
	unsigned nlevels;
	enum rewrite_form form;
	struct image_params params; /* of the new file; REWRITE_QCOW2: only size and cluster count */
	bool keep_zeros, no_verify;
	const char *backing, *backing_format; /* see rewrite.h */
	const struct stat *like;              /* owner and mode of the new file are these; NULL: the caller's, 0600 */
	ploop_progress_fn progress;
	void *progress_data;
};

/* When it returns 0 the file is whole and durable, its name included; else there is none. */
int convert_write(const struct convert_write *what, struct ploop_error *err);

/* Whether files in `dir` can share the blocks of `file`, so that a copy takes no room. */
bool convert_shares(struct dir *dir, const char *file);

/* Refuses (-ENOSPC) when the file system of `dir` has less room than that. */
int convert_check_room(struct dir *dir, uint64_t bytes, struct ploop_error *err);

/* The rewrite_form of an image_mode. */
enum rewrite_form convert_form(enum image_mode mode);

#endif
