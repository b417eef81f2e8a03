/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verbs.h - one line for each verb; each is defined in a file of its name. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli/verb.h"

/* Disks */
extern const struct verb verb_init;
extern const struct verb verb_repair_descriptor;
extern const struct verb verb_restore_descriptor;
extern const struct verb verb_check;
extern const struct verb verb_convert;
extern const struct verb verb_resize;
extern const struct verb verb_export;
extern const struct verb verb_copy;
extern const struct verb verb_backup;
extern const struct verb verb_restore;

/* Snapshots */
extern const struct verb verb_snapshot;
extern const struct verb verb_tsnapshot;
extern const struct verb verb_snapshot_list;
extern const struct verb verb_snapshot_switch;
extern const struct verb verb_snapshot_delete;
extern const struct verb verb_snapshot_merge;
extern const struct verb verb_merge;
extern const struct verb verb_replace;
extern const struct verb verb_gc;

/* Space */
extern const struct verb verb_balloon;
extern const struct verb verb_grow;
extern const struct verb verb_compact;

/* Devices */
extern const struct verb verb_mount;
extern const struct verb verb_umount;
extern const struct verb verb_list;
extern const struct verb verb_getdev;
extern const struct verb verb_start;
extern const struct verb verb_stop;
extern const struct verb verb_clear;
extern const struct verb verb_delete;

/* Look */
extern const struct verb verb_info;
extern const struct verb verb_stat;
extern const struct verb verb_bench;
extern const struct verb verb_map;
extern const struct verb verb_cbt;

/* About ploop itself */
extern const struct verb verb_help;
extern const struct verb verb_modules;
extern const struct verb verb_upgrade;
extern const struct verb verb_version;

#endif
