/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge-size.c - what is merged into must be as large as the largest of what is merged, and no larger: levels above it may be smaller
 * than the device, and nothing may lie above a larger one.
 *
 * An image with an index grows by device_resize(), alone, before the merge; a raw one here.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/merge.h"

int merge_fit(struct delta *low, uint64_t size, struct ploop_error *err)
{
	int r;

	if (low->geometry.size >= size)
		return 0;
	if (low->format->has_index)
		return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
				 "%s: is smaller than what shall be merged into it, and cannot grow while it is in use; merge "
				 "while the disk is not mounted",
				 low->file->path);
	r = io_truncate(low->file, size);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_FTRUNCATE, "%s: cannot make it longer", low->file->path);
	low->geometry.size = size;
	low->geometry.clusters = (uint32_t)div_round_up(size, low->geometry.cluster);
	return 0;
}
