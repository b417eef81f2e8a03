/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * level-tail.c - the end of an image that was not closed: files grow in large steps, and clusters that were written last may not
 * be in the index yet. What no entry names there is cut off.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/le.h"
#include "format/format.h"
#include "image/level.h"
#include "io/io.h"

#define INDEX_CHUNK (UINT64_C(1) << 20)

/* The end of the last file cluster that an entry names; -EINVAL for an index that is not sound, which is for `ploop check`. */
static int used_end(struct io_file *file, const struct delta *delta, void *buffer, uint64_t *ret)
{
	const struct geometry *g = &delta->geometry;
	uint64_t end = g->index + 4 * (uint64_t)g->clusters;
	uint32_t last = g->first - 1, cluster;

	for (uint64_t at = g->index; at < end; at += INDEX_CHUNK) {
		uint64_t len = min_u64(INDEX_CHUNK, end - at);
		int r = io_pread(file, buffer, len, at);

		for (uint64_t i = 0; i < len && !r; i += 4) {
			r = delta->format->decode(g, le32_get((uint8_t *)buffer + i), &cluster);
			last = !r && cluster > last ? cluster : last;
		}
		if (r < 0)
			return r;
	}
	*ret = geometry_offset(g, last + 1);
	return 0;
}

int level_cut_tail(struct io_file *file, const struct delta *delta)
{
	uint64_t end = 0, size = 0;
	void *buffer;
	int r;

	if (!delta->format->has_index || delta->geometry.extension)
		return 0; /* the extension may lie anywhere */
	buffer = io_buffer_new(INDEX_CHUNK);
	if (!buffer)
		return -ENOMEM;
	r = used_end(file, delta, buffer, &end);
	io_buffer_free(buffer, INDEX_CHUNK);
	if (!r)
		r = io_size(file, &size);
	if (!r && size > end)
		r = io_truncate(file, end);
	return r == -EINVAL ? 0 : r;
}
