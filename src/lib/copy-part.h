/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-part.h - what is not whole yet has a name that says so: FILE.ploop-part, beside FILE. Only what is complete and durable
 * gets its own name, in one step, and never in the place of something else.
 */
#ifndef LIB_COPY_PART_H
#define LIB_COPY_PART_H

#include <stdbool.h>

struct dir;
struct ploop_error;

#define COPY_PART ".ploop-part"

struct copy_part {
	struct dir *dir;  /* the folder of both names */
	char *target;     /* as the user named it, for messages */
	char *name, *part; /* in the folder */
	char *path;       /* of the part */
	int lock;         /* keeps others off, from copy_part_lock() on */
	bool folder;      /* it is one, of files */
};

/* -EEXIST, status 1, when the target is there; and when the part is, unless `resume`. Makes nothing. */
int copy_part_open(struct copy_part *part, const char *target, bool resume, struct ploop_error *err);

/* Makes the part a folder, if it is not there already. */
int copy_part_make_folder(struct copy_part *part, struct ploop_error *err);

/* The part, which has been made, is ours alone: -EBUSY, status 17, when another copy has it. */
int copy_part_lock(struct copy_part *part, struct ploop_error *err);

/* The part, which is durable, gets its name. */
int copy_part_publish(struct copy_part *part, struct ploop_error *err);

/* Removes what there is of it. A folder's files first. */
void copy_part_remove(struct copy_part *part);
void copy_part_close(struct copy_part *part);

/* Removes a part that was left over. -EBUSY when somebody copies to it. */
int copy_part_discard(const char *path);

#endif
