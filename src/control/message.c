/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* message.c - lines to JSON objects and back, and getters that trust nothing. */
#include "control/message.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/range.h"

#define READ_STEP 4096u

static int make_room(struct message_buffer *buffer)
{
	size_t size = buffer->size ? 2 * buffer->size : 2 * READ_STEP;
	char *bytes;

	if (buffer->size - buffer->used >= READ_STEP)
		return 0;
	if (buffer->used >= MESSAGE_MAX)
		return -EMSGSIZE;
	bytes = realloc(buffer->bytes, size);
	if (!bytes)
		return -ENOMEM;
	buffer->bytes = bytes;
	buffer->size = size;
	return 0;
}

ssize_t message_fill(struct message_buffer *buffer, int fd)
{
	ssize_t n;
	int r;

	r = make_room(buffer);
	if (r < 0)
		return r;
	do
		n = read(fd, buffer->bytes + buffer->used, buffer->size - buffer->used);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	buffer->used += (size_t)n;
	return n;
}

static int parse(const char *line, size_t len, struct json_object **ret)
{
	struct json_tokener *tokener;
	struct json_object *object;
	bool whole;

	tokener = json_tokener_new_ex(MESSAGE_DEPTH);
	if (!tokener)
		return -ENOMEM;
	/* No check for UTF-8: a path is any bytes. */
	json_tokener_set_flags(tokener, JSON_TOKENER_STRICT);
	object = json_tokener_parse_ex(tokener, line, (int)len);
	whole = json_tokener_get_error(tokener) == json_tokener_success && json_tokener_get_parse_end(tokener) == len;
	json_tokener_free(tokener);
	if (!whole || !json_object_is_type(object, json_type_object)) {
		json_object_put(object);
		return -EPROTO;
	}
	*ret = object;
	return 0;
}

int message_take(struct message_buffer *buffer, struct json_object **ret)
{
	char *end;
	size_t len;
	int r;

	if (buffer->scanned == buffer->used)
		return 0;
	end = memchr(buffer->bytes + buffer->scanned, '\n', buffer->used - buffer->scanned);
	buffer->scanned = buffer->used;
	if (!end)
		return 0;
	len = (size_t)(end - buffer->bytes);
	r = len > MESSAGE_MAX ? -EMSGSIZE : parse(buffer->bytes, len, ret);
	buffer->used -= len + 1;
	memmove(buffer->bytes, end + 1, buffer->used);
	buffer->scanned = 0;
	return r < 0 ? r : 1;
}

void message_buffer_free(struct message_buffer *buffer)
{
	free(buffer->bytes);
	*buffer = (struct message_buffer){ 0 };
}

int message_print(struct json_object *message, char **ret, size_t *ret_len)
{
	const char *text;
	size_t len;
	char *line;

	text = json_object_to_json_string_length(message, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE,
						 &len);
	if (!text)
		return -ENOMEM;
	if (len > MESSAGE_MAX)
		return -EMSGSIZE;
	line = malloc(len + 1);
	if (!line)
		return -ENOMEM;
	memcpy(line, text, len);
	line[len] = '\n';
	*ret = line;
	*ret_len = len + 1;
	return 0;
}

int message_write(int fd, struct json_object *message)
{
	_free_ char *line = NULL;
	size_t len;
	int r;

	r = message_print(message, &line, &len);
	return r < 0 ? r : fd_write(fd, line, len);
}

static int wrong(const char *key, const char *what, struct ploop_error *err)
{
	return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"%s\" %s", key, what);
}

static bool is_plain_text(struct json_object *value)
{
	return json_object_is_type(value, json_type_string) &&
	       strlen(json_object_get_string(value)) == (size_t)json_object_get_string_len(value);
}

int message_text(struct json_object *message, const char *key, const char **ret, struct ploop_error *err)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(message, key, &value);
	if (value && !is_plain_text(value))
		return wrong(key, "is not a text", err);
	*ret = value ? json_object_get_string(value) : NULL;
	return 0;
}

int message_need_text(struct json_object *message, const char *key, const char **ret, struct ploop_error *err)
{
	const char *text;
	int r;

	r = message_text(message, key, &text, err);
	if (r < 0)
		return r;
	if (!text || !*text)
		return wrong(key, "is missing", err);
	*ret = text;
	return 0;
}

int message_number(struct json_object *message, const char *key, uint64_t max, uint64_t *ret, struct ploop_error *err)
{
	struct json_object *value = NULL;
	uint64_t number = 0;

	json_object_object_get_ex(message, key, &value);
	if (value) {
		if (!json_object_is_type(value, json_type_int) || json_object_get_int64(value) < 0)
			return wrong(key, "is not a number", err);
		number = json_object_get_uint64(value);
		if (number > max)
			return wrong(key, "is too large", err);
	}
	*ret = number;
	return 0;
}

int message_bool(struct json_object *message, const char *key, bool *ret, struct ploop_error *err)
{
	struct json_object *value = NULL;

	json_object_object_get_ex(message, key, &value);
	if (value && !json_object_is_type(value, json_type_boolean))
		return wrong(key, "is neither true nor false", err);
	*ret = value && json_object_get_boolean(value);
	return 0;
}

static int copy_texts(struct json_object *list, const char *key, size_t n, char **texts, struct ploop_error *err)
{
	for (size_t i = 0; i < n; i++) {
		struct json_object *value = json_object_array_get_idx(list, i);

		if (!is_plain_text(value))
			return wrong(key, "holds something that is not a text", err);
		texts[i] = strdup(json_object_get_string(value));
		if (!texts[i])
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "message");
	}
	return 0;
}

int message_texts(struct json_object *message, const char *key, size_t max, char ***ret, size_t *ret_n,
		  struct ploop_error *err)
{
	struct json_object *list = NULL;
	char **texts;
	size_t n = 0;
	int r;

	json_object_object_get_ex(message, key, &list);
	if (list) {
		if (!json_object_is_type(list, json_type_array))
			return wrong(key, "is not a list", err);
		n = json_object_array_length(list);
		if (n > max)
			return wrong(key, "is too long", err);
	}
	texts = calloc(n + 1, sizeof(*texts));
	if (!texts)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "message");
	r = copy_texts(list, key, n, texts, err);
	if (r < 0) {
		message_texts_free(texts, n);
		return r;
	}
	*ret = texts;
	*ret_n = n;
	return 0;
}

void message_texts_free(char **texts, size_t n)
{
	for (size_t i = 0; texts && i < n; i++)
		free(texts[i]);
	free(texts);
}

static int take_range(struct json_object *list, size_t i, uint64_t limit, struct ranges *ranges)
{
	struct json_object *offset = json_object_array_get_idx(list, i),
			   *length = json_object_array_get_idx(list, i + 1);
	uint64_t start, size;

	if (!json_object_is_type(offset, json_type_int) || !json_object_is_type(length, json_type_int) ||
	    json_object_get_int64(offset) < 0 || json_object_get_int64(length) <= 0)
		return -EPROTO;
	start = json_object_get_uint64(offset);
	size = json_object_get_uint64(length);
	if (start > limit || size > limit - start)
		return -EPROTO;
	return ranges_add(ranges, start, size);
}

int message_ranges(struct json_object *message, const char *key, uint64_t limit, struct ranges *ranges,
		   struct ploop_error *err)
{
	struct json_object *list = NULL;
	size_t n;

	json_object_object_get_ex(message, key, &list);
	if (!json_object_is_type(list, json_type_array))
		return wrong(key, "is not a list", err);
	n = json_object_array_length(list);
	if (n % 2 || n > 2 * MESSAGE_RANGES)
		return wrong(key, "is no list of ranges", err);
	for (size_t i = 0; i < n; i += 2) {
		int r = take_range(list, i, limit, ranges);

		if (r == -ENOMEM)
			return error_sys(err, r, PLOOP_EXIT_MALLOC, "message");
		if (r < 0)
			return wrong(key, "holds a range that cannot be", err);
	}
	return 0;
}

static void add(struct json_object *message, const char *key, struct json_object *value)
{
	if (value && json_object_object_add(message, key, value) < 0)
		json_object_put(value);
}

void message_add_text(struct json_object *message, const char *key, const char *text)
{
	if (text)
		add(message, key, json_object_new_string(text));
}

void message_add_number(struct json_object *message, const char *key, uint64_t number)
{
	add(message, key, json_object_new_uint64(number));
}

void message_add_bool(struct json_object *message, const char *key, bool value)
{
	add(message, key, json_object_new_boolean(value));
}

void message_add_texts(struct json_object *message, const char *key, const char *const *texts, size_t n)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; list && i < n; i++) {
		struct json_object *text = json_object_new_string(texts[i]);

		if (!text || json_object_array_add(list, text) < 0) {
			json_object_put(text);
			json_object_put(list);
			return;
		}
	}
	add(message, key, list);
}

void message_add_ranges(struct json_object *message, const char *key, const struct ranges *ranges)
{
	struct json_object *list = json_object_new_array();
	bool whole = list != NULL;

	for (size_t i = 0; whole && i < 2 * ranges->n; i++) {
		const struct range *range = &ranges->list[i / 2];
		struct json_object *number = json_object_new_uint64(i % 2 ? range->length : range->offset);

		whole = number && json_object_array_add(list, number) == 0;
		if (!whole)
			json_object_put(number);
	}
	if (whole)
		add(message, key, list);
	else
		json_object_put(list);
}

struct json_object *message_answer(uint64_t id, struct json_object *result)
{
	struct json_object *answer = json_object_new_object();

	if (!answer) {
		json_object_put(result);
		return NULL;
	}
	message_add_number(answer, "id", id);
	message_add_bool(answer, "ok", true);
	add(answer, "result", result);
	return answer;
}

struct json_object *message_refusal(uint64_t id, const struct ploop_error *error)
{
	struct json_object *answer = json_object_new_object(), *inner = json_object_new_object();

	if (!answer || !inner) {
		json_object_put(answer);
		json_object_put(inner);
		return NULL;
	}
	message_add_number(answer, "id", id);
	message_add_bool(answer, "ok", false);
	add(inner, "code", json_object_new_int(error->code));
	message_add_number(inner, "status", error->status);
	message_add_text(inner, "text", error->text);
	add(answer, "error", inner);
	return answer;
}

static int take_error(struct json_object *answer, struct ploop_error *err)
{
	struct json_object *inner = NULL, *code = NULL;
	const char *text;
	uint64_t status;
	int r;

	if (!json_object_object_get_ex(answer, "error", &inner) || !json_object_is_type(inner, json_type_object))
		return wrong("error", "is missing", err);
	r = message_need_text(inner, "text", &text, err);
	if (r < 0)
		return r;
	r = message_number(inner, "status", 255, &status, err);
	if (r < 0)
		return r;
	json_object_object_get_ex(inner, "code", &code);
	if (!json_object_is_type(code, json_type_int) || json_object_get_int(code) >= 0 ||
	    json_object_get_int(code) < -4095)
		return wrong("code", "is not an error number", err);
	return error_set(err, json_object_get_int(code), status ? (enum ploop_exit)status : PLOOP_EXIT_SYS, "%s", text);
}

int message_result(struct json_object *answer, struct json_object **ret, struct ploop_error *err)
{
	struct json_object *result = NULL;
	bool ok;
	int r;

	r = message_bool(answer, "ok", &ok, err);
	if (r < 0)
		return r;
	if (!ok)
		return take_error(answer, err);
	json_object_object_get_ex(answer, "result", &result);
	if (result && !json_object_is_type(result, json_type_object))
		return wrong("result", "is not an object", err);
	if (ret)
		*ret = result;
	return 0;
}
