/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-sink.h - where a copy goes: a seam between what reads the source (copy.c, or the stream of another machine) and what
 * takes it: files on this host (copy-target.c), a stream of ours (copy-to-stream.c), or the original's (copy-old.c).
 *
 * Calls come in the order of a stream: [stack, then descriptor pieces], image, data and its like, image_end, the next image ...,
 * finish. Every call returns 0 or a negative errno with `err` filled.
 */
#ifndef LIB_COPY_SINK_H
#define LIB_COPY_SINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "format/stream.h"

struct copy_sink;
struct ploop_error;

struct copy_sink_ops {
	/* A whole disk: its descriptor. NULL where only one image can be taken. */
	int (*descriptor)(struct copy_sink *sink, const char *text, size_t len, struct ploop_error *err);
	int (*image)(struct copy_sink *sink, const struct stream_image *image, uint64_t size, struct ploop_error *err);
	int (*data)(struct copy_sink *sink, const void *data, uint64_t len, uint64_t offset, struct ploop_error *err);
	/* The same for what an open file has at `from`, by sharing its blocks. -EOPNOTSUPP and no text when that cannot be: then the data
	 * is given instead. NULL where it never can. */
	int (*clone)(struct copy_sink *sink, int fd, uint64_t from, uint64_t len, uint64_t offset, struct ploop_error *err);
	int (*zero)(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err);
	int (*discard)(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err);
	int (*image_end)(struct copy_sink *sink, struct ploop_error *err);
	/* All that came so far is durable when this returns, or at least: has been told to be. */
	int (*sync)(struct copy_sink *sink, struct ploop_error *err);
	/* The copy is whole, durable, and has its name. */
	int (*finish)(struct copy_sink *sink, struct ploop_error *err);
	/* What the sink has from a copy that broke off, of the image that has begun: digests of whole clusters. Calls
	 * each() until that returns other than 0. NULL where nothing can be there. */
	int (*have)(struct copy_sink *sink, int (*each)(void *data, const struct stream_have *have), void *data,
		    struct ploop_error *err);
	/* After finish(), or instead of it: then nothing is left of the copy, unless it was to be resumed. */
	void (*free)(struct copy_sink *sink);
};

struct copy_sink {
	const struct copy_sink_ops *ops;
};

#endif
