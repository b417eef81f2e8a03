/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-read.h - reads stretches of image files ahead, several at a time, and gives them to a sink in their order. */
#ifndef LIB_COPY_READ_H
#define LIB_COPY_READ_H

#include <stddef.h>
#include <stdint.h>

#include "lib/copy-sink.h"

struct copy_reader;
struct ploop_error;

#define COPY_NOWHERE (-1)

/* A stretch of the disk, in one cluster at most when it lies nowhere. */
struct copy_run {
	uint64_t offset, length;
	int level; /* whose file; COPY_NOWHERE: it is not in what is copied */
	uint64_t file_offset;
};

/* `files` are paths, by level. They are read past the page cache, as what writes to them does not go through it either. */
int copy_reader_new(char *const *files, size_t n, struct copy_reader **ret, struct ploop_error *err);
void copy_reader_free(struct copy_reader *reader); /* NULL is accepted */

/* Nobody writes to the first `still` files: a sink on their file system may share their blocks, where that can be. */
void copy_reader_share(struct copy_reader *reader, size_t still);

/* No more than so many bytes a second; 0: as fast as it goes. */
void copy_reader_limit(struct copy_reader *reader, uint64_t bytes_a_second);

/* Reads the runs and gives them to the sink: zeros as zeros, what lies nowhere as a discard. */
int copy_reader_send(struct copy_reader *reader, const struct copy_run *runs, size_t n, struct copy_sink *sink,
		     struct ploop_error *err);

/* Reads one stretch and waits. */
int copy_reader_read(struct copy_reader *reader, const struct copy_run *run, void *buffer, struct ploop_error *err);

/* Bytes given to sinks so far, holes not counted. */
uint64_t copy_reader_bytes(const struct copy_reader *reader);

#endif
