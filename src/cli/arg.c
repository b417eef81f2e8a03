/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* arg.c - see arg.h. The messages are those of the original tool. */
#include "cli/arg.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/error.h"

#define UUID_CHARS 36

static bool uuid_well_formed(const char *text)
{
	for (unsigned i = 0; i < UUID_CHARS; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			return false;
	}
	return true;
}

int arg_uuid(const char *text, char ret[ARG_UUID], struct ploop_error *err)
{
	size_t len = strlen(text);
	bool braces = len == UUID_CHARS + 2 && text[0] == '{' && text[len - 1] == '}';

	if ((!braces && len != UUID_CHARS) || !uuid_well_formed(text + braces))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", text);
	snprintf(ret, ARG_UUID, "{%.*s}", UUID_CHARS, text + braces);
	return 0;
}

int arg_format(const char *text, enum arg_format *ret, struct ploop_error *err)
{
	if (!strcmp(text, "ploop1") || !strcmp(text, "expanded"))
		*ret = ARG_FORMAT_PLOOP1;
	else if (!strcmp(text, "preallocated"))
		*ret = ARG_FORMAT_PREALLOCATED;
	else if (!strcmp(text, "raw"))
		*ret = ARG_FORMAT_RAW;
	else
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Bad -f argument: %s", text);
	return 0;
}

int arg_version(const char *text, unsigned *ret, struct ploop_error *err)
{
	if (strcmp(text, "1") && strcmp(text, "2"))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Invalid -v argument: %s", text);
	*ret = (unsigned)(text[0] - '0');
	return 0;
}
