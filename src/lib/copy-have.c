/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-have.c - see copy-have.h. */
#include "lib/copy-have.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "lib/copy-stream.h"

static int add(void *data, const struct stream_have *entry)
{
	struct copy_have *have = data;

	if (entry->offset >= have->size || entry->offset % have->cluster ||
	    (have->n && entry->offset <= have->entries[have->n - 1].offset))
		return -EPROTO;
	if (have->n == have->room) {
		size_t room = have->room ? 2 * have->room : 1024;
		struct stream_have *entries = reallocarray(have->entries, room, sizeof(*entries));

		if (!entries)
			return -ENOMEM;
		have->entries = entries;
		have->room = room;
	}
	have->entries[have->n++] = *entry;
	return 0;
}

int copy_have_take(struct copy_have *have, struct copy_sink *sink, uint64_t size, uint32_t cluster,
		   struct ploop_error *err)
{
	copy_have_clear(have);
	have->size = size;
	have->cluster = cluster;
	have->buffer = malloc(cluster);
	if (!have->buffer)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	return sink->ops->have ? sink->ops->have(sink, add, have, err) : 0;
}

int copy_have_mark(const struct copy_have *have, struct copy_source *source, struct ploop_error *err)
{
	_free_ uint64_t *offsets = calloc(COPY_MARKS, sizeof(*offsets));
	int r = 0;

	if (!offsets)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	for (size_t done = 0; r == 0 && done < have->n;) {
		size_t n = min_u64(have->n - done, COPY_MARKS);

		for (size_t i = 0; i < n; i++)
			offsets[i] = have->entries[done + i].offset;
		r = copy_source_mark(source, offsets, n, err);
		done += n;
	}
	return r;
}

static int by_offset(const void *a, const void *b)
{
	const struct stream_have *x = a, *y = b;

	return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* 1: the receiver has it; 0: it has not; or a negative errno. */
static int is_there(struct copy_have *have, struct copy_reader *reader, uint64_t size, const struct copy_run *run,
		    struct ploop_error *err)
{
	const struct stream_have key = { .offset = run->offset };
	const struct stream_have *entry;
	uint8_t digest[STREAM_DIGEST];
	int r;

	if (run->level == COPY_NOWHERE || run->offset % have->cluster ||
	    run->length != min_u64(have->cluster, size - run->offset))
		return 0;
	entry = bsearch(&key, have->entries, have->n, sizeof(key), by_offset);
	if (!entry)
		return 0;
	r = copy_reader_read(reader, run, have->buffer, err);
	if (r < 0)
		return r;
	stream_digest(have->buffer, run->length, digest);
	return !memcmp(digest, entry->digest, sizeof(digest));
}

int copy_have_drop(struct copy_have *have, struct copy_reader *reader, uint64_t size, struct copy_run *runs, size_t *n,
		   struct ploop_error *err)
{
	size_t kept = 0;

	if (!have->n)
		return 0;
	for (size_t i = 0; i < *n; i++) {
		int r = is_there(have, reader, size, &runs[i], err);

		if (r < 0)
			return r;
		if (!r)
			runs[kept++] = runs[i];
	}
	*n = kept;
	return 0;
}

void copy_have_clear(struct copy_have *have)
{
	free(have->entries);
	free(have->buffer);
	*have = (struct copy_have){ 0 };
}
