/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* state.c - state.json. */
#include "control/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/fields.h"
#include "control/message.h"
#include "control/open.h"
#include "control/rundir.h"

static const struct field fields[] = {
	{ "name", FIELD_TEXT, offsetof(struct device_state, name) },
	{ "front_end", FIELD_TEXT, offsetof(struct device_state, front_end) },
	{ "node", FIELD_TEXT, offsetof(struct device_state, node) },
	{ "diskseq", FIELD_U64, offsetof(struct device_state, diskseq) },
	{ "descriptor", FIELD_TEXT, offsetof(struct device_state, descriptor) },
	{ "snapshot", FIELD_TEXT, offsetof(struct device_state, snapshot) },
	{ "component", FIELD_TEXT, offsetof(struct device_state, component) },
	{ "read_only", FIELD_BOOL, offsetof(struct device_state, read_only) },
	{ "size", FIELD_U64, offsetof(struct device_state, size) },
	{ "cluster", FIELD_U32, offsetof(struct device_state, cluster) },
};

int state_print(const struct device_state *state, struct json_object **ret)
{
	struct json_object *message = json_object_new_object();

	if (!message)
		return -ENOMEM;
	message_add_number(message, "protocol", MESSAGE_PROTOCOL);
	fields_put(message, fields, ARRAY_SIZE(fields), state);
	message_add_texts(message, "images", (const char *const *)state->images, state->nimages);
	*ret = message;
	return 0;
}

int state_parse(struct json_object *message, struct device_state *ret, struct ploop_error *err)
{
	struct device_state state = { 0 };
	int r;

	r = fields_get(message, fields, ARRAY_SIZE(fields), &state, err);
	if (r == 0)
		r = message_texts(message, "images", OPEN_OPERANDS, &state.images, &state.nimages, err);
	if (r == 0 && (!state.name || !rundir_name_ok(state.name)))
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"name\" is not the name of a device");
	if (r < 0) {
		state_clear(&state);
		return r;
	}
	*ret = state;
	return 0;
}

void state_clear(struct device_state *state)
{
	fields_clear(fields, ARRAY_SIZE(fields), state);
	message_texts_free(state->images, state->nimages);
	*state = (struct device_state){ 0 };
}

int state_save(const struct device_state *state, struct ploop_error *err)
{
	_message_ struct json_object *message = NULL;
	_free_ char *line = NULL;
	size_t len;
	int r;

	r = state_print(state, &message);
	if (r == 0)
		r = message_print(message, &line, &len);
	if (r == 0)
		r = rundir_write(state->name, "state.json", line, len);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s/%s/state.json", rundir_base(), state->name) : 0;
}

int state_load(const char *name, struct device_state *ret, struct ploop_error *err)
{
	_message_ struct json_object *message = NULL;
	struct message_buffer buffer = { 0 };
	char path[PATH_MAX];
	int r;

	r = rundir_path(name, "state.json", path);
	if (r == 0)
		r = fd_read_file(-1, path, MESSAGE_MAX, &buffer.bytes, &buffer.used);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "%s", path);
	r = message_take(&buffer, &message);
	message_buffer_free(&buffer);
	if (r <= 0)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s is not a state of ploopd", path);
	r = state_parse(message, ret, err);
	return r < 0 ? error_prefix(err, r, "%s", path) : 0;
}

/* The last number in a file of sysfs; 0 when there is none. */
static uint64_t read_number(const char *node, const char *file, const char *prefix, int base)
{
	const char *slash = strrchr(node, '/'), *colon;
	char path[PATH_MAX];
	_free_ char *text = NULL;
	size_t len;

	snprintf(path, sizeof(path), "/sys/block/%s/%s", slash ? slash + 1 : node, file);
	if (fd_read_file(-1, path, 256, &text, &len) < 0 || strncmp(text, prefix, strlen(prefix)))
		return 0;
	colon = strrchr(text, ':');
	return strtoull(colon ? colon + 1 : text, NULL, base);
}

/* An nbd device has the same number in all its uses, but each of ours a name, "ploop:NAME:NUMBER". */
uint64_t state_diskseq(const char *node)
{
	uint64_t number = read_number(node, "backend", "ploop:", 16);

	return number ? number : read_number(node, "diskseq", "", 10);
}
