/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format.c - the list of formats. */
#include "format/format.h"

#include <string.h>

#include "format/ploop1.h"

const struct format *const formats[] = { &format_ploop1, &format_raw, NULL };

const struct format *format_find(const char *name)
{
	/* The names that users of the original give to two ways of filling a ploop1 image. */
	if (!strcmp(name, "expanded") || !strcmp(name, "preallocated"))
		return &format_ploop1;
	for (unsigned i = 0; formats[i]; i++)
		if (!strcmp(name, formats[i]->name))
			return formats[i];
	return NULL;
}

const struct format *format_probe(const void *head, size_t len)
{
	struct ploop1_header header;

	return ploop1_header_get(head, len, &header) ? &format_ploop1 : NULL;
}
