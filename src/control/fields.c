/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fields.c - one switch for each direction. */
#include "control/fields.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "control/message.h"

void fields_put(struct json_object *message, const struct field *fields, size_t n, const void *object)
{
	for (size_t i = 0; i < n; i++) {
		const void *at = (const char *)object + fields[i].offset;

		switch (fields[i].type) {
		case FIELD_TEXT:
			message_add_text(message, fields[i].key, *(char *const *)at);
			break;
		case FIELD_BOOL:
			message_add_bool(message, fields[i].key, *(const bool *)at);
			break;
		case FIELD_U32:
			message_add_number(message, fields[i].key, *(const uint32_t *)at);
			break;
		case FIELD_U64:
			message_add_number(message, fields[i].key, *(const uint64_t *)at);
			break;
		}
	}
}

static int get_text(struct json_object *message, const char *key, char **ret, struct ploop_error *err)
{
	const char *text;
	int r;

	r = message_text(message, key, &text, err);
	if (r < 0 || !text)
		return r;
	*ret = strdup(text);
	return *ret ? 0 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "message");
}

static int get_u32(struct json_object *message, const char *key, uint32_t *ret, struct ploop_error *err)
{
	uint64_t number = 0;
	int r;

	r = message_number(message, key, UINT32_MAX, &number, err);
	*ret = (uint32_t)number;
	return r;
}

int fields_get(struct json_object *message, const struct field *fields, size_t n, void *object, struct ploop_error *err)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++) {
		void *at = (char *)object + fields[i].offset;

		switch (fields[i].type) {
		case FIELD_TEXT:
			r = get_text(message, fields[i].key, at, err);
			break;
		case FIELD_BOOL:
			r = message_bool(message, fields[i].key, at, err);
			break;
		case FIELD_U32:
			r = get_u32(message, fields[i].key, at, err);
			break;
		case FIELD_U64:
			r = message_number(message, fields[i].key, INT64_MAX, at, err);
			break;
		}
	}
	return r;
}

void fields_clear(const struct field *fields, size_t n, void *object)
{
	for (size_t i = 0; i < n; i++)
		if (fields[i].type == FIELD_TEXT)
			free(*(char **)((char *)object + fields[i].offset));
}
