/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * backup.h - a backup: what a disk held at one moment, or what had changed since an earlier backup, as a stream in a file.
 *
 * Why an increment is whole, whatever is written meanwhile and whatever breaks off:
 *  1. The moment of a backup is one in which the device stands still. In it the next bitmap begins, with no bit set: what is
 *     written later is in it, what was written before is in this backup. The bitmap of before goes on until 3.
 *  2. The file gets its name when all of it is durable.
 *  3. Only then the new bitmap is kept, and the one of before is dropped. Whatever breaks off before leaves the one of before:
 *     the next increment is again since that, and too large at worst. The file, if it has its name, is a good backup all the same.
 *  4. Before 2 a crash leaves the new bitmap, too (device/cbt.h): so that a backup with a name has a bitmap to go on from.
 */
#ifndef LIB_BACKUP_H
#define LIB_BACKUP_H

#include "lib/copy-part.h"
#include "lib/copy-source.h"

struct backup {
	const struct ploop_backup *config;
	struct ploop_backup_report report;
	struct stream_backup record;
	struct copy_since since;
	struct copy_part part; /* when it goes to a file */
	int fd;
	bool opened, finished;
	struct copy_sink *sink;
	uint64_t expected; /* bytes in all, as far as is known; for progress */
};

/* The disk is known: opens the output, and begins the image. */
int backup_begin(struct backup *backup, uint64_t size, uint32_t cluster, uint32_t version, struct ploop_error *err);
/* All of the disk is in it: the file is durable and has its name. */
int backup_finish(struct backup *backup, struct ploop_error *err);
/* -ECANCELED when that is wanted. */
int backup_tell(const struct backup *backup, const char *stage, const struct copy_reader *reader, struct ploop_error *err);
/* A raw image cannot hold a bitmap: says that the next backup is a full one again. */
void backup_warn_raw(const char *image);

/* backup-online.c: of a running device. backup-offline.c: of a disk that nobody uses. */
int backup_online(struct backup *backup, const char *device, struct ploop_error *err);
int backup_offline(struct backup *backup, struct ploop_error *err);

/* restore-read.c */
struct stream_in;
/* Reads what a backup begins with, up to the IMAGE record. */
struct backup_head {
	struct stream_hello hello;
	struct stream_backup backup;
	struct stream_image image;
	uint64_t size;
};
int backup_read_head(struct stream_in *in, struct backup_head *ret, struct ploop_error *err);
/* Of a file. */
int backup_look(const char *path, struct backup_head *ret, struct ploop_error *err);

#endif
