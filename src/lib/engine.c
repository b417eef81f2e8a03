/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* engine.c - see engine.h. */
#include "lib/engine.h"

#include <errno.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "image/stack.h"

#define ENGINE_DEPTH 64
#define REPORT_NS 100000000u

int engine_open(struct engine *engine, const struct stack_request *request, struct ploop_error *err)
{
	struct device_config config = { .on_full = DEVICE_FULL_ERROR };
	int r = loop_new(NULL, ENGINE_DEPTH, &engine->loop, err);

	if (r == 0)
		r = stack_open(engine->loop, request, &engine->stack, err);
	if (r < 0)
		return r;
	config.loop = engine->loop;
	config.levels = engine->stack->levels;
	config.nlevels = engine->stack->nlevels;
	config.read_only = request->read_only;
	return device_open(&config, &engine->device, err);
}

void engine_done(void *data, int result)
{
	struct engine *engine = data;

	engine->done = true;
	engine->result = result;
	loop_stop(engine->loop);
}

static void report(struct loop_timer *timer)
{
	struct engine *engine = container_of(timer, struct engine, timer);
	uint64_t total, done;

	if (!engine->look(engine->device, &total, &done))
		return;
	if (engine->progress(engine->progress_data, engine->stage, done, total))
		engine->stop(engine->device);
	else
		loop_timer_set(engine->loop, timer, REPORT_NS);
}

int engine_wait(struct engine *engine)
{
	int r = 0;

	engine->timer.expired = report;
	if (engine->progress && engine->look)
		report(&engine->timer);
	while (!engine->done && r == 0)
		r = loop_run(engine->loop);
	if (engine->timer.armed)
		loop_timer_cancel(engine->loop, &engine->timer);
	engine->done = false;
	return r < 0 ? r : engine->result;
}

int engine_close(struct engine *engine, struct ploop_error *err)
{
	int r = 0;

	if (engine->device) {
		engine->look = NULL;
		device_close(take_ptr(engine->device), engine_done, engine);
		r = engine_wait(engine);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_WRITE,
				  "%s: cannot be closed properly; `ploop check` tells its state",
				  engine->stack->levels[engine->stack->nlevels - 1].file->path);
	}
	stack_close(take_ptr(engine->stack));
	if (engine->loop)
		loop_free(take_ptr(engine->loop));
	return r;
}
