/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* open.c - the request to open a disk, to and from JSON. */
#include "control/open.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/fields.h"
#include "control/message.h"
#include "control/rundir.h"

static const struct field fields[] = {
	{ "cluster", FIELD_U32, offsetof(struct open_request, cluster) },
	{ "base_format", FIELD_TEXT, offsetof(struct open_request, base_format) },
	{ "snapshot", FIELD_TEXT, offsetof(struct open_request, snapshot) },
	{ "component", FIELD_TEXT, offsetof(struct open_request, component) },
	{ "device", FIELD_TEXT, offsetof(struct open_request, device) },
	{ "front_end", FIELD_TEXT, offsetof(struct open_request, front_end) },
	{ "io_module", FIELD_TEXT, offsetof(struct open_request, io_module) },
	{ "log", FIELD_TEXT, offsetof(struct open_request, log) },
	{ "read_only", FIELD_BOOL, offsetof(struct open_request, read_only) },
	{ "outside", FIELD_BOOL, offsetof(struct open_request, outside) },
	{ "fail_when_full", FIELD_BOOL, offsetof(struct open_request, fail_when_full) },
};

int open_request_print(const struct open_request *request, struct json_object **ret)
{
	struct json_object *message = json_object_new_object();

	if (!message)
		return -ENOMEM;
	message_add_number(message, "protocol", MESSAGE_PROTOCOL);
	message_add_texts(message, "operands", (const char *const *)request->operands, request->noperands);
	fields_put(message, fields, ARRAY_SIZE(fields), request);
	*ret = message;
	return 0;
}

static int parse_fields(struct json_object *message, struct open_request *request, struct ploop_error *err)
{
	uint64_t protocol;
	int r;

	r = message_number(message, "protocol", UINT32_MAX, &protocol, err);
	if (r < 0)
		return r;
	if (protocol != MESSAGE_PROTOCOL)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL,
				 "ploop and ploopd are of different versions (protocol %llu and %d); install both from "
				 "one release",
				 (unsigned long long)protocol, MESSAGE_PROTOCOL);
	r = fields_get(message, fields, ARRAY_SIZE(fields), request, err);
	if (r < 0)
		return r;
	return message_texts(message, "operands", OPEN_OPERANDS, &request->operands, &request->noperands, err);
}

static int check_fields(const struct open_request *request, struct ploop_error *err)
{
	if (!request->noperands)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: no image to open");
	for (size_t i = 0; i < request->noperands; i++)
		if (request->operands[i][0] != '/')
			return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: %s is not an absolute path",
					 request->operands[i]);
	if (request->log && request->log[0] != '/')
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: %s is not an absolute path",
				 request->log);
	if (request->device && !rundir_name_ok(request->device))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s is not the name of a ploop device; use /dev/ploopN", request->device);
	if (request->component && strlen(request->component) > OPEN_COMPONENT)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "component name %s is longer than %d characters",
				 request->component, OPEN_COMPONENT);
	return 0;
}

int open_request_parse(struct json_object *message, struct open_request *ret, struct ploop_error *err)
{
	struct open_request request = { 0 };
	int r;

	r = parse_fields(message, &request, err);
	if (r >= 0)
		r = check_fields(&request, err);
	if (r < 0) {
		open_request_clear(&request);
		return r;
	}
	*ret = request;
	return 0;
}

void open_request_clear(struct open_request *request)
{
	fields_clear(fields, ARRAY_SIZE(fields), request);
	message_texts_free(request->operands, request->noperands);
	*request = (struct open_request){ 0 };
}
