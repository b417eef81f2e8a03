/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * engine.h - the device of a disk that nobody uses, in this process, on a loop of its own: for long work on its files. They are
 * locked against everybody else.
 */
#ifndef LIB_ENGINE_H
#define LIB_ENGINE_H

#include <stdbool.h>

#include <ploop/ploop.h>

#include "io/loop.h"

struct device;
struct stack;
struct stack_request;

struct engine {
	struct loop *loop;
	struct stack *stack;
	struct device *device;
	bool done;
	int result;

	/* Set both to be asked now and then: how far it is; and to be told that it shall stop. */
	bool (*look)(const struct device *device, uint64_t *ret_total, uint64_t *ret_done);
	void (*stop)(struct device *device);
	ploop_progress_fn progress;
	void *progress_data;
	const char *stage;
	struct loop_timer timer;
};

/* Zero the struct; engine_close() it in any case. */
int engine_open(struct engine *engine, const struct stack_request *request, struct ploop_error *err);

/* A `done` for what the device is told to do: `data` is the engine. And: waits for it. */
void engine_done(void *data, int result);
int engine_wait(struct engine *engine);

/* Makes all durable and lets go of the files. */
int engine_close(struct engine *engine, struct ploop_error *err);

static inline void cleanup_engine(struct engine *engine)
{
	(void)engine_close(engine, NULL);
}
#define _engine_close_ __attribute__((cleanup(cleanup_engine)))

#endif
