/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-have.h - what the receiving side has from a copy that broke off. Its clusters are compared by their digests, so nothing needs
 * to be remembered here, and nothing there needs to be believed.
 */
#ifndef LIB_COPY_HAVE_H
#define LIB_COPY_HAVE_H

#include "lib/copy-source.h"

struct copy_have {
	struct stream_have *entries; /* in the order of their offsets */
	size_t n, room;
	uint64_t size;
	uint32_t cluster;
	char *buffer;
};

/* Asks the sink about the image that has begun. */
int copy_have_take(struct copy_have *have, struct copy_sink *sink, uint64_t size, uint32_t cluster,
		   struct ploop_error *err);

/*
 * All that is there counts as changed: what the source has no more will be discarded before anything is written on top of it.
 */
int copy_have_mark(const struct copy_have *have, struct copy_source *source, struct ploop_error *err);

/* Takes those of the runs out that cover a whole cluster which is there already, the same. */
int copy_have_drop(struct copy_have *have, struct copy_reader *reader, uint64_t size, struct copy_run *runs, size_t *n,
		   struct ploop_error *err);

void copy_have_clear(struct copy_have *have);

#endif
