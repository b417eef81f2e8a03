/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-start.c - what must be right before a merge, and what it needs: the low level as a writer, the index of the others. */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "device/merge.h"

static int merge_check(const struct device *dev, const struct device_merge_config *config, struct ploop_error *err)
{
	const struct delta *low;
	int r;

	r = job_check(dev, "nothing can be merged", err);
	if (r)
		return r;
	if (config->low >= config->high || config->high >= dev->nlevels)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "there are no levels %u to %u in a stack of %u deltas",
				 config->low, config->high, dev->nlevels);
	if (config->high == device_top_level(dev) && config->high != config->low + 1)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "levels %u to %u must be merged before the top",
				 config->low, config->high - 1);
	if (dev->under && (config->low != dev->under->level || config->high != device_top_level(dev)))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "the merge of levels %u..%u that was stopped must end first", dev->under->level,
				 device_top_level(dev));
	low = &dev->levels[config->low];
	return writer_check(low, err);
}

/* The low level will be the top, or all that there is: what lies over it maps nothing. */
static bool merge_inherits(const struct device *dev, unsigned high)
{
	if (high == device_top_level(dev))
		return true;
	for (uint32_t v = 0; v < dev->map.count; v++)
		if (dev->map.cluster[v] && dev->map.level[v] > high)
			return false;
	return true;
}

/* Makes the low level one that is written to. */
static int merge_open_target(struct device_merge *merge, struct ploop_error *err)
{
	struct device *dev = merge->device;
	struct delta *delta = &dev->levels[merge->low];
	const struct geometry before = delta->geometry;
	int r = writer_open_lower(dev, merge->low, merge_inherits(dev, merge->high), &merge->target, err);

	if (!r)
		r = merge_fit(merge, err);
	if (r) {
		delta->geometry = before;
		writer_free(merge->target);
		return r;
	}
	dev->under = merge->target;
	return 0;
}

static int merge_load_sources(struct device_merge *merge, struct ploop_error *err)
{
	struct device *dev = merge->device;
	int r = map_init(&merge->sources, dev->map.count);

	if (r)
		return error_set(err, r, PLOOP_EXIT_MALLOC, "no memory for the indexes of what shall be merged");
	for (unsigned level = merge->low + 1; level <= merge->high && !r; level++)
		r = load_delta(dev, level, &merge->sources, NULL, err);
	merge->total = merge->sources.mapped * dev->cluster;
	return r;
}

static int merge_prepare(struct device_merge *merge, const struct device_merge_config *config, struct ploop_error *err)
{
	struct device *dev = merge->device;
	int r = 0;

	merge->buffers = io_buffer_new_large((size_t)MERGE_COPIES * COPY_CHUNK);
	if (!merge->buffers)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for a merge");
	merge_init(merge);
	merge->low = config->low;
	merge->high = config->high;
	merge->top = config->high == device_top_level(dev);
	if (!merge->top)
		r = merge_load_sources(merge, err);
	if (!r && !dev->under)
		r = merge_plan_fit(merge, err);
	if (!r && !dev->under)
		r = merge_open_target(merge, err);
	merge->target = dev->under;
	return r;
}

int device_merge(struct device *dev, const struct device_merge_config *config, struct ploop_error *err)
{
	struct device_merge *merge;
	int r = merge_check(dev, config, err);

	if (r)
		return r;
	merge = calloc(1, sizeof(*merge));
	if (!merge)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "no memory for a merge");
	merge->device = dev;
	merge->rate = config->bytes_a_second;
	merge->started = loop_now(dev->loop);
	merge->done = config->done;
	merge->data = config->data;
	merge->old_file = dev->levels[config->low].file;
	dev->levels[config->low].file = config->file;
	r = merge_prepare(merge, config, err);
	if (r) {
		dev->levels[config->low].file = merge->old_file;
		merge_free(merge);
		return r;
	}
	dev->merge = merge;
	job_begin(dev, &merge->job);
	return 0;
}
