/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize.h - what the files of a resize share: the disk that is resized, and what its images allow. */
#ifndef LIB_RESIZE_H
#define LIB_RESIZE_H

#include "format/format.h"
#include "lib/change.h"
#include "lib/resize-run.h"

struct resize {
	const struct ploop_resize *what;
	struct change change;
	struct geometry top;
	uint64_t lower;  /* bytes: the largest of the images below the top; the disk is never smaller. 0: there are none */
	uint64_t target; /* bytes of the disk that is wanted, whole clusters */
	struct ploop_resized result;
};

/* Looks at what is resized: all but `target`. Finishes what one that was interrupted left. The caller ends. */
int resize_begin(struct resize *resize, const char *disk, struct ploop_error *err);

/* The largest disk that its images, and what is on it, can make of it; `why` says which of them. */
uint64_t resize_maximum(const struct resize *resize, const struct resize_disk *disk, char *why, size_t size);

/* A disk that is not in use has `size` bytes then, and its file is no longer than it needs be. */
int resize_files(struct resize *resize, uint64_t size, struct ploop_error *err);

/* Fills the result, of a disk that is not in use. */
int resize_tell(struct resize *resize, struct ploop_error *err);

/* `Unable to change image size ...`, with the size of a disk that would do. */
int resize_too_small(const struct resize *resize, uint64_t minimum, struct ploop_error *err);

/* Tells `progress`; -ECANCELED when that says so. */
int resize_stage(const struct resize *resize, const char *stage, struct ploop_error *err);

/* ---- resize-larger.c ---- */

/* In use: larger, or with a balloon. */
int resize_in_use(struct resize *resize, struct ploop_error *err);
/* Not in use, and larger than it is, or as large. */
int resize_larger(struct resize *resize, struct ploop_error *err);

/* ---- resize-smaller.c ---- */

/* Not in use, and smaller. */
int resize_smaller(struct resize *resize, struct ploop_error *err);

/* The smallest disk that can hold the ext file system of one that runs. */
int resize_minimum(const struct resize_disk *disk, uint64_t *ret, struct ploop_error *err);

/* ---- resize-balloon.c ---- */

/* Of a disk that runs, and whose file system is open: how large a balloon the target takes, 0 for none; refuses one that would not
 * fit. Then: the balloon has that size. */
int resize_plan_balloon(const struct resize *resize, struct resize_disk *disk, uint64_t *ret, struct ploop_error *err);
int resize_set_balloon(struct resize *resize, struct resize_disk *disk, uint64_t size, struct ploop_error *err);

/* The smallest disk that a balloon can make of it. */
int resize_minimum_in_use(struct resize_disk *disk, uint64_t *ret, struct ploop_error *err);

/* The balloon, if there is one, is emptied. The file system stays open. */
int resize_deflate(struct resize_disk *disk, struct ploop_error *err);

/* ---- resize-overlay.c ---- */

/*
 * The disk, which is not in use, runs on an empty delta of its own: whatever is done to it is done to that, which goes when nobody
 * keeps it. Its ext file system, if that is what it holds, has no balloon and is not in need of repair then.
 */
int resize_overlay_start(struct resize *resize, char **ret_name, struct resize_run *run, struct ploop_error *err);

/* The same, then content() on the disk that runs, then that is kept: all of it or nothing. */
typedef int (*resize_content_fn)(struct resize *resize, struct resize_disk *disk, struct ploop_error *err);
int resize_in_overlay(struct resize *resize, resize_content_fn content, struct ploop_error *err);

/* An ext file system on a disk that runs, mounted by nobody, gets `size` bytes. It is checked before and after. */
int resize_ext(struct resize *resize, struct resize_disk *disk, uint64_t size, struct ploop_error *err);

#endif
