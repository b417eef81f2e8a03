/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* null.c - the front end that serves nobody: a device that only its own process uses, for benches and tests. */
#include <errno.h>
#include <stdlib.h>

#include "base/error.h"
#include "export/modules.h"
#include "io/loop.h"

struct null_export {
	struct export export;
	struct loop *loop;
	struct loop_task task;
	void (*answer)(void *data, int result);
	void *data;
};

static struct null_export *null_export(struct export *export)
{
	return container_of(export, struct null_export, export);
}

static void null_answer_started(struct loop_task *task)
{
	struct null_export *self = container_of(task, struct null_export, task);

	self->answer(self->data, 0);
}

static void null_answer_stopped(struct loop_task *task)
{
	struct null_export *self = container_of(task, struct null_export, task);
	void (*answer)(void *data, int result) = self->answer;
	void *data = self->data;

	free(self);
	answer(data, 0);
}

static int null_usable(struct ploop_error *err)
{
	(void)err;
	return 0;
}

static int null_start(const struct export_config *config, void (*started)(void *data, int result), void *data,
		      struct export **ret, struct ploop_error *err)
{
	struct null_export *self = calloc(1, sizeof(*self));

	if (!self)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", config->name);
	*self = (struct null_export){ .export.ops = &export_null_ops, .loop = config->loop, .answer = started,
				      .data = data, .task.run = null_answer_started };
	loop_defer(config->loop, &self->task);
	*ret = &self->export;
	return 0;
}

static const char *null_node(const struct export *export)
{
	(void)export;
	return "";
}

static void null_stop(struct export *export, bool force, void (*stopped)(void *data, int result), void *data)
{
	struct null_export *self = null_export(export);

	(void)force;
	self->answer = stopped;
	self->data = data;
	self->task.run = null_answer_stopped;
	loop_defer(self->loop, &self->task);
}

const struct export_ops export_null_ops = {
	.name = "null",
	.summary = "serves nobody; for benches and tests",
	.usable = null_usable,
	.start = null_start,
	.node = null_node,
	.stop = null_stop,
};
