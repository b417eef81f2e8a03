/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * merge-size.c - what is merged into must be as large as the largest of what is merged, and no larger: levels above it may be smaller
 * than the device, and nothing may lie above a larger one.
 *
 * That comes first, before any data: refit.c has the order of writes for an image with an index, and a raw one becomes longer at
 * once. What lies beyond the old end reads as zeros, and levels above cover it: the stack in the files is the same disk.
 */
#include <errno.h>

#include "base/checked.h"
#include "base/error.h"
#include "device/merge.h"

static int fit_raw(struct delta *low, uint64_t size, struct ploop_error *err)
{
	int r = io_truncate(low->file, size);

	if (r)
		return error_sys(err, r, PLOOP_EXIT_FTRUNCATE, "%s: cannot make it longer", low->file->path);
	low->geometry.size = size;
	low->geometry.clusters = (uint32_t)div_round_up(size, low->geometry.cluster);
	return 0;
}

static void fitted(struct refit *refit, int result)
{
	merge_fitted(container_of(refit, struct device_merge, refit), result);
}

/* Others' images may end inside a cluster: what that holds beyond the end would show through, and nobody makes such ones. */
static int check_end(const struct delta *delta, const char *what, struct ploop_error *err)
{
	if (!delta->format->has_index || delta->geometry.size % delta->geometry.cluster == 0)
		return 0;
	return error_set(err, -EFBIG, PLOOP_EXIT_FORMAT, "%s ends inside a cluster, %s", delta->file->path, what);
}

/* Nothing lies above a level that is larger, wherever this is cut off. */
static int check_steps(const struct device_merge *merge, uint64_t size, struct ploop_error *err)
{
	const struct device *dev = merge->device;

	for (unsigned level = merge->low + 1; level < merge->high; level++)
		if (dev->levels[level].geometry.size < size)
			return error_set(err, -EFBIG, PLOOP_EXIT_PARAM,
					 "%s is smaller than what lies above it and is merged at once; merge it first",
					 dev->levels[level].file->path);
	return 0;
}

int merge_plan_fit(struct device_merge *merge, struct ploop_error *err)
{
	const struct device *dev = merge->device;
	const struct delta *low = &dev->levels[merge->low];
	uint64_t size = dev->levels[merge->high].geometry.size;
	int r;

	if (low->geometry.size >= size)
		return 0;
	r = check_steps(merge, size, err);
	if (!r)
		r = check_end(low, "and what shall be merged into it is longer", err);
	if (!r && low->format->has_index)
		r = check_end(&dev->levels[merge->high], "so that a smaller image cannot take it", err);
	if (!r)
		r = low->format->resize(&low->geometry, size, &merge->refit.new, err);
	merge->fits = !r;
	return r;
}

int merge_fit(struct device_merge *merge, struct ploop_error *err)
{
	struct delta *low = &merge->device->levels[merge->low];
	int r;

	if (!merge->fits)
		return 0;
	if (!low->format->has_index) {
		merge->fits = false;
		return fit_raw(low, merge->refit.new.size, err);
	}
	merge->refit.writer = merge->target;
	merge->refit.done = fitted;
	r = refit_init(&merge->refit);
	return r ? error_set(err, r, PLOOP_EXIT_MALLOC, "no memory for the index of %s", low->file->path) : 0;
}
