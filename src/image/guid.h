/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* guid.h - the names of snapshots: "{8-4-4-4-12}" in hexadecimal, 38 characters. Case is kept and never matters. */
#ifndef IMAGE_GUID_H
#define IMAGE_GUID_H

#include <stdbool.h>
#include <stdint.h>

#define GUID_LEN 38

struct guid {
	char text[GUID_LEN + 1];
};

#define GUID_TOP "{5fbaabe3-6958-40ff-92a7-860e329aab41}"  /* the delta that is written */
#define GUID_NONE "{00000000-0000-0000-0000-000000000000}" /* the parent of a base */

/* Takes a GUID with or without braces; white space around it is ignored. False when it is none; *ret is untouched
 * then. */
bool guid_parse(const char *text, struct guid *ret);

/* A new random one (version 4), in lower case. */
void guid_generate(struct guid *ret);

bool guid_equal(const struct guid *a, const struct guid *b);
bool guid_is(const struct guid *guid, const char *text);
static inline bool guid_is_top(const struct guid *guid)
{
	return guid_is(guid, GUID_TOP);
}
static inline bool guid_is_none(const struct guid *guid)
{
	return guid_is(guid, GUID_NONE);
}

/* The same for GUIDs that are equal. */
uint64_t guid_hash(const struct guid *guid);

#endif
