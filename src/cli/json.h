/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * json.h - the shape of all JSON that ploop prints: one object whose keys are lower case with underscores, sizes as
 * numbers of bytes, lists as {"devices":[{...}]}.
 */
#ifndef CLI_JSON_H
#define CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>

#include <json-c/json.h>

/* Adds one member. NULL text becomes null. */
void json_add_text(struct json_object *object, const char *key, const char *text);
void json_add_number(struct json_object *object, const char *key, uint64_t number);
void json_add_bool(struct json_object *object, const char *key, bool value);

/* Adds an empty array and returns it; it belongs to `object`. */
struct json_object *json_add_list(struct json_object *object, const char *key);

/* Adds an empty object to an array and returns it. */
struct json_object *json_list_add(struct json_object *list);

/* Prints `object` and frees it. Returns an exit status. */
int json_print(struct json_object *object);

#endif
