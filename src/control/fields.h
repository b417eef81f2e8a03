/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fields.h - a struct to a message and back by a table, so that no field is written but not read, or read unchecked. */
#ifndef CONTROL_FIELDS_H
#define CONTROL_FIELDS_H

#include <stddef.h>

#include <json-c/json.h>

struct ploop_error;

enum field_type {
	FIELD_TEXT, /* char *, owned by the struct */
	FIELD_BOOL, /* bool */
	FIELD_U32,  /* uint32_t */
	FIELD_U64,  /* uint64_t */
};

struct field {
	const char *key;
	enum field_type type;
	size_t offset; /* in the struct */
};

void fields_put(struct json_object *message, const struct field *fields, size_t n, const void *object);

/* Into a zeroed struct; on failure what was read so far is in it, for fields_clear(). */
int fields_get(struct json_object *message, const struct field *fields, size_t n, void *object,
	       struct ploop_error *err);

/* Frees the texts. */
void fields_clear(const struct field *fields, size_t n, void *object);

#endif
