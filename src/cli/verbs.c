/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verbs.c - the table of verbs, in the order of the summary: one heading after the other. */
#include "cli/verbs.h"

#include <stddef.h>
#include <string.h>

const struct verb *const verbs[] = {
	/* Disks: what works on files */
	&verb_init,
	&verb_restore_descriptor,
	&verb_repair_descriptor,
	&verb_check,
	&verb_copy,
	&verb_backup,
	&verb_restore,
	&verb_convert,
	&verb_resize,
	&verb_export,

	/* Snapshots: what a disk was */
	&verb_snapshot,
	&verb_tsnapshot,
	&verb_snapshot_list,
	&verb_snapshot_switch,
	&verb_snapshot_delete,
	&verb_snapshot_merge,
	&verb_merge,
	&verb_replace,
	&verb_gc,

	/* Space: what a disk takes and gives back */
	&verb_balloon,
	&verb_grow,
	&verb_compact,

	/* Devices: what works on a mounted disk */
	&verb_mount,
	&verb_umount,
	&verb_list,
	&verb_getdev,
	&verb_start,
	&verb_stop,
	&verb_clear,
	&verb_upgrade,
	&verb_delete,

	/* Look: numbers about either */
	&verb_info,
	&verb_stat,
	&verb_map,
	&verb_cbt,
	&verb_bench,

	/* About ploop itself */
	&verb_help,
	&verb_modules,
	&verb_version,
	NULL,
};

const struct verb *verb_find(const char *name)
{
	for (const struct verb *const *v = verbs; *v; v++) {
		if (!strcmp(name, (*v)->name) || ((*v)->alias && !strcmp(name, (*v)->alias)))
			return *v;
	}
	return NULL;
}
