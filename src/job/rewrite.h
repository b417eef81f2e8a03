/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * rewrite.h - what some levels hold, written anew into a file of another form: other version, other format, no space lost.
 *
 * The source is only read. The file is nobody's yet: it has no name that anybody looks for, so that there is only one rule.
 *
 *  1. Data first, then the index, then the header: a file that was cut off is no image. When rewrite_image() returned 0 all of it
 *     is durable.
 */
#ifndef JOB_REWRITE_H
#define JOB_REWRITE_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

#include "format/format.h"

struct io_file;
struct loop;

enum rewrite_form {
	REWRITE_PLOOP1,       /* clusters in the order of the disk, and none that is all zero */
	REWRITE_PREALLOCATED, /* every cluster in its place; the file's blocks were taken before */
	REWRITE_RAW,
	REWRITE_QCOW2, /* version 3, with the clusters of the source; see job/qcow2.h */
};

struct rewrite {
	struct loop *loop;
	const struct delta *levels; /* base first; their merged content is what is written */
	unsigned nlevels;
	enum rewrite_form form;
	struct geometry to;                   /* of the new file, as planned for it; REWRITE_QCOW2: by qcow2_plan() */
	struct io_file *file;                 /* open for writing, nothing but zeros in it */
	bool keep_zeros;                      /* what is mapped stays mapped: it hides what lies below */
	const char *backing, *backing_format; /* REWRITE_QCOW2: the file below, as it is named there; NULL: none */
	ploop_progress_fn progress;           /* NULL: none */
	void *progress_data;

	/* Results. */
	uint64_t clusters; /* with data */
	bool shared;       /* all of them share the blocks of the source */
};

/* -ECANCELED when `progress` said so. */
int rewrite_image(struct rewrite *rewrite, struct ploop_error *err);

/*
 * Reads both sides through the engine, the new one as `target` (a delta of the file, opened anew), and compares them: -EUCLEAN
 * when they differ. Of clusters that share their blocks only the first 4 KiB are read.
 */
int rewrite_verify(const struct rewrite *rewrite, const struct delta *target, struct ploop_error *err);

#endif
