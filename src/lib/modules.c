/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* modules.c - the three families in one list. */
#include <stdio.h>

#include <ploop/ploop.h>

#include "export/export.h"
#include "format/format.h"
#include "io/io.h"

static bool module_fill(struct ploop_module *ret, enum ploop_family family, const char *name, const char *summary,
			int (*usable)(struct ploop_error *err))
{
	struct ploop_error err = { 0 };

	*ret = (struct ploop_module){ .family = family, .name = name, .summary = summary };
	ret->usable = !usable || usable(&err) >= 0;
	if (!ret->usable)
		snprintf(ret->reason, sizeof(ret->reason), "%s", err.text);
	return true;
}

bool ploop_module_get(unsigned n, struct ploop_module *ret)
{
	for (const struct format *const *f = formats; *f; f++) {
		if (!n--)
			return module_fill(ret, PLOOP_FAMILY_FORMAT, (*f)->name, (*f)->summary, NULL);
	}
	for (const struct io_ops *const *io = io_modules; *io; io++) {
		if (!n--)
			return module_fill(ret, PLOOP_FAMILY_IO, (*io)->name, (*io)->summary, (*io)->usable);
	}
	for (const struct export_ops *const *export = export_modules; *export; export ++) {
		if (!n--)
			return module_fill(ret, PLOOP_FAMILY_EXPORT, (*export)->name, (*export)->summary,
					   (*export)->usable);
	}
	return false;
}
