/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* beside.c - see beside.h. */
#include "lib/beside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/descriptor.h"
#include "lib/change.h"

const struct snapshot *beside_snapshot(const struct descriptor *d, const char *image)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		_free_ char *file = d->snapshots[i].file ? descriptor_file(d, &d->snapshots[i]) : NULL;

		if (file && change_same_file(file, image))
			return &d->snapshots[i];
	}
	return NULL;
}

int beside_find(const char *image, char **ret, struct ploop_error *err)
{
	_free_ char *path = realpath(image, NULL);
	char *slash;

	if (!path)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", image);
	slash = strrchr(path, '/');
	if (asprintf(ret, "%.*s/" DESCRIPTOR_NAME, (int)(slash - path), path) < 0) {
		*ret = NULL;
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", image);
	}
	if (access(*ret, F_OK) < 0)
		free(take_ptr(*ret));
	return 0;
}
