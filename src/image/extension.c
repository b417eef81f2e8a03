/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* extension.c - see extension.h. */
#include "image/extension.h"

#include <errno.h>

#include "base/error.h"
#include "format/extension.h"
#include "io/io.h"

int image_settle_extension(struct delta *delta, struct ploop_error *err)
{
	struct geometry *g = &delta->geometry;
	enum extension_verdict verdict = EXTENSION_DAMAGED;
	uint64_t size;
	void *cluster;
	int r;

	if (!g->extension)
		return 0;
	r = io_size(delta->file, &size);
	if (!r && extension_placed(g, size)) {
		cluster = io_buffer_new(g->cluster);
		if (!cluster)
			return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "out of memory");
		r = io_pread(delta->file, cluster, g->cluster, g->extension);
		if (!r)
			verdict = extension_judge(cluster, g->cluster);
		io_buffer_free(cluster, g->cluster);
	}
	if (r)
		return error_sys(err, r, PLOOP_EXIT_READ, "%s: cannot read the format extension", delta->file->path);
	extension_settle(g, verdict);
	return 0;
}
