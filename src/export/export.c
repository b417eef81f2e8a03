/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export.c - the list of front ends. */
#include "export/export.h"

#include <stddef.h>
#include <string.h>

#include "export/modules.h"

const struct export_ops *const export_modules[] = { &export_ublk_ops, &export_nbd_ops, &export_fuse_ops,
						    &export_null_ops, NULL };

const struct export_ops *export_find(const char *name)
{
	for (unsigned i = 0; export_modules[i]; i++)
		if (!strcmp(export_modules[i]->name, name))
			return export_modules[i];
	return NULL;
}
