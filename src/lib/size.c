/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* size.c - see size.h. */
#include "lib/size.h"

#include <errno.h>

#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"
#include "device/device.h"
#include "image/stack.h"
#include "lib/change.h"
#include "lib/engine.h"

#define GROW_TIMEOUT_MS 600000u

int size_set_device(const char *name, uint64_t size, uint64_t *ret, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	_message_ struct json_object *answer = NULL;
	struct json_object *arguments = json_object_new_object();
	int r = control_connect(name, GROW_TIMEOUT_MS, &client, err);

	if (r == 0 && !arguments)
		r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	if (r < 0) {
		json_object_put(arguments);
		return r;
	}
	message_add_number(arguments, "size", size);
	r = control_call(client, "grow", arguments, &answer, err);
	return r < 0 ? r : message_number(answer, "size", INT64_MAX, ret, err);
}

/* The size that is meant, whole clusters; refuses a smaller one unless that is wanted. */
static int choose(const struct engine *engine, uint64_t size, bool shrink, uint64_t *ret, struct ploop_error *err)
{
	const struct delta *top = &engine->stack->levels[engine->stack->nlevels - 1];
	uint64_t now = device_size(engine->device), wanted = size;
	int r = size == now ? 0 : format_round_size(top->format, &top->geometry, size, &wanted, err);

	if (r < 0)
		return r;
	if (wanted < now && !shrink)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect new size specified %llu current size %llu",
				 (unsigned long long)wanted / SECTOR, (unsigned long long)now / SECTOR);
	*ret = wanted;
	return 0;
}

static int run(struct engine *engine, uint64_t size, struct ploop_error *err)
{
	const char *path = engine->stack->levels[engine->stack->nlevels - 1].file->path;
	int r;

	log_info("Growing %s size=%llu sectors (new size=%llu)", path,
		 (unsigned long long)device_size(engine->device) / SECTOR, (unsigned long long)size / SECTOR);
	r = device_resize(engine->device, size, engine_done, engine, err);
	if (r < 0)
		return r;
	r = engine_wait(engine);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "%s: its size cannot be changed", path);
	return 0;
}

int size_set_files(const struct stack_request *files, uint64_t size, bool shrink, uint64_t *ret,
		   struct ploop_error *err)
{
	_engine_close_ struct engine engine = { 0 };
	uint64_t wanted = 0;
	int r = engine_open(&engine, files, err);

	if (r == 0)
		r = choose(&engine, size, shrink, &wanted, err);
	if (r == 0 && wanted != device_size(engine.device))
		r = run(&engine, wanted, err);
	if (r == 0)
		r = engine_close(&engine, err);
	if (r == 0)
		*ret = wanted;
	return r;
}

int size_set_descriptor(struct change *change, uint64_t size, struct ploop_error *err)
{
	int r;

	if (change->descriptor->size == size)
		return 0;
	r = descriptor_set_size(change->descriptor, size);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s: cannot be changed", change->path);
	return change_commit(change, err);
}

int size_set_disk(struct change *change, uint64_t size, bool shrink, uint64_t *ret, struct ploop_error *err)
{
	const char *operand = change->path;
	const struct stack_request files = { .operands = &operand, .noperands = 1 };
	int r;

	if (change->writer)
		r = size_set_device(change->writer->name, size, ret, err);
	else
		r = size_set_files(&files, size, shrink, ret, err);
	return r < 0 ? r : size_set_descriptor(change, *ret, err);
}
