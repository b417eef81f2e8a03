/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* resize-files.c - the images of a disk that nobody uses become those of a larger or a smaller one: a device in this process. */
#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "image/stack.h"
#include "lib/engine.h"
#include "lib/resize.h"
#include "lib/size.h"

static int compact(struct engine *engine, struct ploop_error *err)
{
	const struct device_compact_config config = {
		.level = device_levels(engine->device) - 1, .done = engine_done, .data = engine
	};
	int r = device_compact(engine->device, &config, err);

	if (r < 0)
		return r;
	r = engine_wait(engine);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_RELOC, "moving clusters") : 0;
}

/* What is in the way of a shorter file moves. That the host has no room for it just now is no failure of a resize. */
static int shorten_file(const struct stack_request *files, struct ploop_error *err)
{
	struct engine engine = { 0 };
	struct ploop_error why;
	int closed, r = engine_open(&engine, files, err);

	if (r == 0 && compact(&engine, &why) < 0)
		log_warning("%s: the disk is smaller, its file not yet: `ploop compact` tries that again", why.text);
	closed = engine_close(&engine, r < 0 ? NULL : err);
	return r < 0 ? r : closed;
}

int resize_files(struct resize *resize, uint64_t size, struct ploop_error *err)
{
	const char *operand = resize->change.path;
	const struct stack_request files = { .operands = &operand, .noperands = 1, .outside = true };
	uint64_t now = resize->top.size;
	int r;

	change_pause(&resize->change);
	r = size == now ? 0 : size_set_files(&files, size, true, &resize->top.size, err);
	if (r == 0 && size <= now)
		r = shorten_file(&files, err);
	return r < 0 ? r : change_resume(&resize->change, err);
}
