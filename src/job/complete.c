/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* complete.c - see complete.h. The order of writes is that of a device that is opened and closed. */
#include "job/complete.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "image/stack.h"
#include "io/loop.h"

struct completion {
	struct loop *loop;
	bool closed;
	int result;
};

static void closed(void *data, int result)
{
	struct completion *completion = data;

	completion->closed = true;
	completion->result = result;
	loop_stop(completion->loop);
}

/* The levels 0..level, the last of them open for writing, are a device for a moment. */
static int open_and_close(struct loop *loop, const struct delta *levels, unsigned nlevels, struct ploop_error *err)
{
	const struct device_config config = {
		.loop = loop, .levels = levels, .nlevels = nlevels, .on_full = DEVICE_FULL_ERROR
	};
	struct completion completion = { .loop = loop };
	struct device *device;
	int r = device_open(&config, &device, err);

	if (r < 0)
		return r;
	device_close(device, closed, &completion);
	while (!completion.closed && !r)
		r = loop_run(loop);
	r = r ? r : completion.result;
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: what was written to it cannot be completed",
				 levels[nlevels - 1].file->path)
		     : 0;
}

static int complete_level(struct loop *loop, struct stack *stack, unsigned level, struct ploop_error *err)
{
	struct delta levels[DEVICE_MAX_LEVELS];
	struct io_file *file;
	int r = stack_lock(stack, level, FILE_LOCK_READ, FILE_LOCK_WRITE, err);

	if (r < 0)
		return r;
	log_info("%s was not closed: it is completed first", stack->levels[level].file->path);
	r = stack_open_writable(loop, stack, level, &file, err);
	if (!r) {
		memcpy(levels, stack->levels, (level + 1) * sizeof(levels[0]));
		levels[level].file = file;
		r = open_and_close(loop, levels, level + 1, err);
		io_close(file);
	}
	if (!r)
		r = stack_reread(stack, level, err);
	stack_lock(stack, level, FILE_LOCK_WRITE, FILE_LOCK_READ, NULL);
	return r;
}

int job_complete(struct loop *loop, struct stack *stack, struct ploop_error *err)
{
	int r = 0;

	for (unsigned level = 0; level + 1 < stack->nlevels && !r; level++)
		if (stack->levels[level].geometry.partial)
			r = complete_level(loop, stack, level, err);
	return r;
}
