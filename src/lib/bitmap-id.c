/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* bitmap-id.c - see bitmap-id.h. */
#include "lib/bitmap-id.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"
#include "control/message.h"
#include "image/guid.h"

/* 0 to 15; the text has been checked. */
static uint8_t digit(char c)
{
	return (uint8_t)(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
}

/* The 32 digits, whatever stands between them. */
static void take_digits(const char *text, uint8_t ret[CBT_ID])
{
	for (unsigned i = 0; i < 2 * CBT_ID; text++) {
		if (*text == '{' || *text == '-')
			continue;
		ret[i / 2] = (uint8_t)(i % 2 ? ret[i / 2] | digit(*text) : digit(*text) << 4);
		i++;
	}
}

int bitmap_id_parse(const char *text, uint8_t ret[CBT_ID], struct ploop_error *err)
{
	struct guid guid;

	if (!guid_parse(text, &guid))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect UUID %s", text);
	take_digits(guid.text, ret);
	return 0;
}

void bitmap_id_print(const uint8_t id[CBT_ID], char ret[PLOOP_UUID])
{
	char *at = ret;

	*at++ = '{';
	for (unsigned i = 0; i < CBT_ID; i++)
		at += sprintf(at, "%s%02x", i == 4 || i == 6 || i == 8 || i == 10 ? "-" : "", id[i]);
	*at++ = '}';
	*at = '\0';
}

void bitmap_id_new(uint8_t ret[CBT_ID])
{
	struct guid guid;

	guid_generate(&guid);
	take_digits(guid.text, ret);
}

void bitmap_id_add(struct json_object *message, const char *key, const uint8_t id[CBT_ID])
{
	char text[2 * CBT_ID + 1];

	for (unsigned i = 0; i < CBT_ID; i++)
		snprintf(text + (size_t)(2 * i), 3, "%02x", id[i]);
	message_add_text(message, key, text);
}

int bitmap_id_take(struct json_object *message, const char *key, uint8_t ret[CBT_ID], struct ploop_error *err)
{
	const char *text;
	int r = message_need_text(message, key, &text, err);

	if (r < 0)
		return r;
	if (strlen(text) != (size_t)(2 * CBT_ID) || strspn(text, "0123456789abcdef") != (size_t)(2 * CBT_ID))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"%s\" is no UUID", key);
	take_digits(text, ret);
	return 0;
}
