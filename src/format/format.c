/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* format.c - the list of formats. */
#include "format/format.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
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

int format_round_size(const struct format *format, const struct geometry *g, uint64_t size, uint64_t *ret,
		      struct ploop_error *err)
{
	uint64_t down = round_down(size, g->cluster), up;
	struct geometry unused;
	int r = checked_add(down, size == down ? 0 : g->cluster, &up) ? 0 : -EFBIG;

	if (r == 0)
		r = format->resize(g, up, &unused, err);
	else
		error_set(err, r, PLOOP_EXIT_PARAM, "a disk cannot have %llu bytes", (unsigned long long)size);
	if (r == -EFBIG && down && format->resize(g, down, &unused, NULL) == 0) {
		*ret = down;
		return 0;
	}
	if (r == 0)
		*ret = up;
	return r;
}

const struct format *format_probe(const void *head, size_t len)
{
	struct ploop1_header header;

	return ploop1_header_get(head, len, &header) ? &format_ploop1 : NULL;
}
