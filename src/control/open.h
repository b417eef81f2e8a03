/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* open.h - what a new ploopd is asked to serve, and what it says when it does: the first exchange, on an inherited socket. */
#ifndef CONTROL_OPEN_H
#define CONTROL_OPEN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

struct ploop_error;

#define OPEN_OPERANDS 128
#define OPEN_COMPONENT 63 /* longest name of a component, as the original has it */

/* Paths are absolute. NULL and 0 mean "not said". */
struct open_request {
	char **operands; /* one descriptor, or images, base first */
	size_t noperands;
	char *base_format;
	uint32_t cluster; /* bytes */
	char *snapshot;
	char *component;
	char *device; /* "ploop3": the name wanted */
	char *front_end;
	char *io_module;
	char *log; /* a file; NULL: syslog */
	bool read_only;
	bool outside;
	bool fail_when_full; /* a full host file system is an error, not a reason to wait */
};

int open_request_print(const struct open_request *request, struct json_object **ret);
/* Checks every field. The caller clears. */
int open_request_parse(struct json_object *message, struct open_request *ret, struct ploop_error *err);
void open_request_clear(struct open_request *request);

#endif
