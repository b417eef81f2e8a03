/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * message.h - one message between ploop and ploopd: a JSON object on one line.
 *
 *	client	{"id":0,"verb":"hello","protocol":1}
 *	daemon	{"id":0,"ok":true,"result":{"protocol":1,"version":"0.1.0","device":"ploop0"}}
 *	client	{"id":1,"verb":"stop"}
 *	daemon	{"id":1,"ok":false,"error":{"code":-16,"status":17,"text":"ploop0 is in use"}}
 *
 * The other side is never trusted: a message is at most MESSAGE_MAX bytes and MESSAGE_DEPTH levels deep, and every field is
 * fetched by a getter that refuses a wrong type, a number out of range and a text with a NUL inside.
 */
#ifndef CONTROL_MESSAGE_H
#define CONTROL_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

struct ploop_error;
struct ranges;

#define MESSAGE_PROTOCOL 1
#define MESSAGE_MAX (1024u * 1024) /* 127 paths of PATH_MAX with all their escapes */
#define MESSAGE_DEPTH 8

/* Bytes that came in and are not yet taken as lines. Zero it to start with. */
struct message_buffer {
	char *bytes;
	size_t used, size;
	size_t scanned; /* bytes known to hold no end of line */
};

/* Reads once from `fd`. Returns the bytes read, 0 at the end, -EAGAIN, -EMSGSIZE when a line is too long, or another errno. */
ssize_t message_fill(struct message_buffer *buffer, int fd);

/* Takes the next whole line off the buffer. Returns 1 and an object, 0 when there is no whole line, -EPROTO when it is not one
 * JSON object. The caller puts the object. */
int message_take(struct message_buffer *buffer, struct json_object **ret);
void message_buffer_free(struct message_buffer *buffer);

/* The line for `message`, ending in \n. The caller frees. -ENOMEM, or -EMSGSIZE. */
int message_print(struct json_object *message, char **ret, size_t *ret_len);

/* Prints and writes to a blocking descriptor. */
int message_write(int fd, struct json_object *message);

/*
 * Fields. All return 0 or -EPROTO with a text in `err` that names the field, status 13. Optional ones that are absent or null
 * give NULL, false, 0. Texts belong to the message.
 */
int message_text(struct json_object *message, const char *key, const char **ret, struct ploop_error *err);
int message_need_text(struct json_object *message, const char *key, const char **ret, struct ploop_error *err);
int message_number(struct json_object *message, const char *key, uint64_t max, uint64_t *ret, struct ploop_error *err);
int message_bool(struct json_object *message, const char *key, bool *ret, struct ploop_error *err);
/* An array of texts; the caller frees with message_texts_free(). */
int message_texts(struct json_object *message, const char *key, size_t max, char ***ret, size_t *ret_n,
		  struct ploop_error *err);
void message_texts_free(char **texts, size_t n);
/* Stretches that end at `limit` at most, as a list of offset, length, offset, length, ... Those of the caller are added to. */
#define MESSAGE_RANGES 16384u /* most of them in a message */
int message_ranges(struct json_object *message, const char *key, uint64_t limit, struct ranges *ranges,
		   struct ploop_error *err);

/* Adding; without memory the member is missing, which the other side's getters notice. NULL text adds nothing. */
void message_add_text(struct json_object *message, const char *key, const char *text);
void message_add_number(struct json_object *message, const char *key, uint64_t number);
void message_add_bool(struct json_object *message, const char *key, bool value);
void message_add_texts(struct json_object *message, const char *key, const char *const *texts, size_t n);
void message_add_ranges(struct json_object *message, const char *key, const struct ranges *ranges);

/* The two shapes of an answer. `result` becomes the answer's. Both return NULL without memory. */
struct json_object *message_answer(uint64_t id, struct json_object *result);
struct json_object *message_refusal(uint64_t id, const struct ploop_error *error);

/* Takes an answer apart: 0 and the result (the message's), or the error that it carries, in `err`. */
int message_result(struct json_object *answer, struct json_object **ret, struct ploop_error *err);

static inline void cleanup_message(struct json_object **message)
{
	json_object_put(*message);
}
#define _message_ __attribute__((cleanup(cleanup_message)))

#endif
