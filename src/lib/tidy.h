/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tidy.h - temporary snapshots go by themselves when nobody owns them any more. */
#ifndef LIB_TIDY_H
#define LIB_TIDY_H

struct ploop_error;

/*
 * Deletes every temporary snapshot of a disk that nobody owns and that at most one other is made on: before a snapshot is taken,
 * after one is deleted, and when the disk is mounted. What cannot be done now is told in the log, and is for the next time.
 */
void tidy_disk(const char *disk);

/* ploop_snapshot_delete() without that. */
int delete_one(const char *disk, const char *uuid, struct ploop_error *err);

#endif
