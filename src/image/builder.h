/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * builder.h - writes a new image from front to back, out of pieces that come in any order: what a copy is received with.
 *
 * An image that is being built is nobody's disk yet: it has a temporary name, and its index is written last. What it is written
 * to is a seam: a file (builder_file_open()), or a stream of writes for another machine.
 */
#ifndef IMAGE_BUILDER_H
#define IMAGE_BUILDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct builder;
struct geometry;
struct ploop_error;

/* Where the bytes go. 0 or a negative errno. What was never written reads as zeros. */
struct builder_out {
	int (*write)(struct builder_out *out, const void *data, size_t len, uint64_t pos);
	int (*zero)(struct builder_out *out, uint64_t pos, uint64_t len); /* written before, zeros from now on */
	/* The image is complete and `size` bytes long: make all of it durable. */
	int (*finish)(struct builder_out *out, uint64_t size);
	/* The bytes of an open file, by sharing its blocks; a negative errno when that cannot be here, and then nothing was done that a
	 * write does not do again. NULL when it never can. */
	int (*clone)(struct builder_out *out, int fd, uint64_t from, uint64_t len, uint64_t pos);
	/* For builder_resume(); NULL when nothing can be read. Zeros beyond the end. */
	int (*read)(struct builder_out *out, void *data, size_t len, uint64_t pos);
	uint64_t size; /* bytes that are there already */
};

struct builder_config {
	bool raw;
	uint32_t version; /* of ploop1 */
	uint32_t cluster; /* bytes */
	uint64_t size;    /* bytes of the disk */
	bool base;        /* nothing lies below: zeros need not be stored */
	bool resumable;   /* the index is written as it grows, so that builder_resume() can read it after a crash */
};

/* `out` stays the caller's, and must live as long as the builder. */
int builder_new(const struct builder_config *config, struct builder_out *out, struct builder **ret,
		struct ploop_error *err);
void builder_free(struct builder *builder); /* NULL is accepted */

/*
 * Goes on with what an earlier, resumable builder left in `out`: its clusters are there again, as far as it was written, which is
 * for the caller to compare. What is no such image is -EINVAL. Trusts nothing in it.
 */
int builder_resume(struct builder *builder);

/* Ranges are in whole sectors and inside the disk: the caller has checked. 0 or a negative errno. */
int builder_write(struct builder *builder, const void *data, uint64_t len, uint64_t offset);
/* As a write of what the open file `fd` has at `from`, by sharing its blocks: fails where that cannot be. */
int builder_clone(struct builder *builder, int fd, uint64_t from, uint64_t len, uint64_t offset);
int builder_zero(struct builder *builder, uint64_t offset, uint64_t len);
/* Whole clusters, the last of the disk may be cut off: -EINVAL for others. */
int builder_discard(struct builder *builder, uint64_t offset, uint64_t len);

/* The first mapped cluster at or after v; UINT32_MAX when there is none. Raw images have none. */
uint32_t builder_next(const struct builder *builder, uint32_t v);
/* The bytes of a mapped cluster. */
int builder_read(struct builder *builder, uint32_t v, void *data);

const struct geometry *builder_geometry(const struct builder *builder);

/* Writes the index and the header of a properly closed image. Nothing may follow but builder_free(). */
int builder_finish(struct builder *builder);

/* A file as what is built to. Mode 0600. */
struct builder_file {
	struct builder_out out;
	int fd;
	uint64_t pushed; /* bytes since the host was last asked to begin writing them to the disk */
};

/* Makes the file `path`, or opens what is there with `resume`. */
int builder_file_open(struct builder_file *file, const char *path, bool resume, struct ploop_error *err);
void builder_file_close(struct builder_file *file);

#endif
