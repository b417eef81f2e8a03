/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* Messages of the control socket, state.json and the request to open: what is accepted is written and read as the same. */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "control/message.h"
#include "control/open.h"
#include "control/rundir.h"
#include "control/state.h"
#include "fuzz.h"

static void must(bool good)
{
	if (!good)
		abort();
}

static struct json_object *again(struct json_object *message)
{
	struct message_buffer buffer = { 0 };
	struct json_object *copy = NULL;

	must(message_print(message, &buffer.bytes, &buffer.used) == 0);
	buffer.size = buffer.used;
	must(message_take(&buffer, &copy) == 1 && buffer.used == 0);
	message_buffer_free(&buffer);
	return copy;
}

static void try_open(struct json_object *message)
{
	struct json_object *printed, *copy;
	struct open_request request, same;

	if (open_request_parse(message, &request, NULL) < 0)
		return;
	must(request.noperands > 0 && request.noperands <= OPEN_OPERANDS);
	for (size_t i = 0; i < request.noperands; i++)
		must(request.operands[i][0] == '/');
	must(!request.device || rundir_name_ok(request.device));
	must(open_request_print(&request, &printed) == 0);
	copy = again(printed);
	must(open_request_parse(copy, &same, NULL) == 0);
	must(same.noperands == request.noperands && same.cluster == request.cluster &&
	     same.read_only == request.read_only);
	must(!strcmp(same.operands[0], request.operands[0]));
	open_request_clear(&same);
	open_request_clear(&request);
	json_object_put(copy);
	json_object_put(printed);
}

static void try_state(struct json_object *message)
{
	struct json_object *printed, *copy;
	struct device_state state, same;

	if (state_parse(message, &state, NULL) < 0)
		return;
	must(rundir_name_ok(state.name));
	must(state_print(&state, &printed) == 0);
	copy = again(printed);
	must(state_parse(copy, &same, NULL) == 0);
	must(same.nimages == state.nimages && same.size == state.size && same.diskseq == state.diskseq);
	must(!strcmp(same.name, state.name));
	state_clear(&same);
	state_clear(&state);
	json_object_put(copy);
	json_object_put(printed);
}

static void try_answer(struct json_object *message)
{
	struct json_object *result = NULL;
	struct ploop_error err = { 0 };
	uint64_t id;

	(void)message_number(message, "id", INT64_MAX, &id, NULL);
	if (message_result(message, &result, &err) < 0)
		must(err.code < 0 && err.status > 0 && err.text[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct message_buffer buffer = { .bytes = malloc(size + 1), .used = size, .size = size + 1 };
	struct json_object *message;
	int r;

	must(buffer.bytes != NULL);
	memcpy(buffer.bytes, data, size);
	while ((r = message_take(&buffer, &message)) != 0) {
		if (r < 0)
			continue;
		try_open(message);
		try_state(message);
		try_answer(message);
		json_object_put(message);
	}
	message_buffer_free(&buffer);
	return 0;
}
