/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* recover.c - see recover.h. The order of writes is that of a device that is opened and closed (job/complete.h). */
#include "lib/recover.h"

#include <stdlib.h>

#include <ploop/ploop.h>

#include "format/format.h"
#include "image/extension.h"
#include "image/stack.h"
#include "image/tree.h"
#include "lib/disk.h"

static bool has_partial(struct stack *stack)
{
	bool partial = false;

	for (unsigned i = 0; i < stack->nlevels; i++) {
		struct delta *delta = &stack->levels[i];

		if (delta->geometry.state == FORMAT_IN_USE && image_settle_extension(delta, NULL) == 0)
			partial |= delta->geometry.partial;
	}
	return partial;
}

bool recover_is_needed(const struct descriptor *descriptor, const struct snapshot *snapshot, bool outside)
{
	const char *operand = descriptor->path;
	const struct stack_request request = {
		.operands = &operand,
		.noperands = 1,
		.snapshot = snapshot->guid.text,
		.read_only = true,
		.unlocked = true,
		.outside = outside,
	};
	struct stack *stack;
	bool partial;

	if (stack_open(NULL, &request, &stack, NULL) < 0)
		return false;
	partial = has_partial(stack);
	stack_close(stack);
	return partial;
}

/* Nothing is made on it, so that it may be opened for writing. */
static const struct snapshot *leaf_above(const struct descriptor *d, const struct snapshot *snapshot)
{
	const struct snapshot *top = descriptor_top(d);

	if (top == snapshot || tree_descends(d, top, snapshot))
		return top;
	while (snapshot->children)
		snapshot = &d->snapshots[snapshot->first_child];
	return snapshot;
}

int recover_images(const char *path, const struct descriptor *descriptor, const struct snapshot *snapshot, bool outside,
		   struct ploop_error *err)
{
	const struct ploop_files files = {
		.paths = &path,
		.npaths = 1,
		.snapshot = leaf_above(descriptor, snapshot)->guid.text,
		.outside = outside,
	};
	const struct disk_config config = { .files = &files, .write = true, .depth = 16 };
	struct ploop_disk *disk;
	int r = disk_open(&config, &disk, err);

	return r < 0 ? r : disk_close(disk, err);
}
