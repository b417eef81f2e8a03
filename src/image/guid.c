/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guid.c - names of snapshots. */
#include "image/guid.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>
#include <uuid/uuid.h>

/* Whether `text` is 36 characters of the form 8-4-4-4-12. */
static bool guid_body(const char *text)
{
	for (int i = 0; i < GUID_LEN - 2; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return true;
}

bool guid_parse(const char *text, struct guid *ret)
{
	const char *end;
	bool braces;

	while (isspace((unsigned char)*text))
		text++;
	braces = *text == '{';
	text += braces;
	if (!guid_body(text))
		return false;
	end = text + GUID_LEN - 2;
	if (braces && *end++ != '}')
		return false;
	while (isspace((unsigned char)*end))
		end++;
	if (*end)
		return false;
	ret->text[0] = '{';
	memcpy(ret->text + 1, text, GUID_LEN - 2);
	ret->text[GUID_LEN - 1] = '}';
	ret->text[GUID_LEN] = 0;
	return true;
}

void guid_generate(struct guid *ret)
{
	uuid_t uuid;

	uuid_generate_random(uuid);
	ret->text[0] = '{';
	uuid_unparse_lower(uuid, ret->text + 1);
	ret->text[GUID_LEN - 1] = '}';
	ret->text[GUID_LEN] = 0;
}

bool guid_is(const struct guid *guid, const char *text)
{
	return !strcasecmp(guid->text, text);
}

bool guid_equal(const struct guid *a, const struct guid *b)
{
	return guid_is(a, b->text);
}

uint64_t guid_hash(const struct guid *guid)
{
	uint64_t hash = 0xcbf29ce484222325;

	for (const char *c = guid->text; *c; c++)
		hash = (hash ^ (uint64_t)tolower((unsigned char)*c)) * 0x100000001b3;
	return hash ^ hash >> 29;
}
