/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * journal.h - changes of a disk that concern several files, finished or undone whatever happens in between.
 *
 * The descriptor is the commit record: it is replaced in one step, and every file that it names is needed, every other is
 * not. So a journal need only say which files an operation makes or removes. It lies beside the descriptor, as
 * DESCRIPTOR.journal, while the operation goes on.
 *
 * Order of writes of every such operation:
 *  1. The journal is durable, name included, before the first file is made.
 *  2. Files that the new descriptor names are complete and durable, names included, before it replaces the old one.
 *  3. Files that it does not name are removed after it is durable, and the journal goes after that is durable.
 * So at every instant the descriptor alone tells how to open the disk, and journal_settle() puts right what is left:
 * files in the journal that the descriptor, as it stands, does not name are removed. That undoes an operation that did not
 * get as far as its descriptor, and finishes one that did.
 */
#ifndef IMAGE_JOURNAL_H
#define IMAGE_JOURNAL_H

#include <stdbool.h>

struct dir;
struct ploop_error;

#define JOURNAL_SUFFIX ".journal"
#define JOURNAL_FILES 512 /* most that one operation may concern */

/*
 * Writes the journal of an operation on the disk that the descriptor `name` in `dir` describes. `files` are names in the
 * folder; one that leads elsewhere is left out, as it could not be trusted later. Hold the disk's lock.
 */
int journal_begin(struct dir *dir, const char *name, const char *operation, const char *const *files, unsigned nfiles,
		  struct ploop_error *err);

/*
 * Ends an operation, our own or one that was interrupted, as said above. Nothing to do when there is no journal. A file
 * that somebody has open stays, and so does the journal, for the next who comes. Hold the disk's lock.
 */
int journal_settle(struct dir *dir, const char *name, struct ploop_error *err);

/* lock_disk(), then journal_settle(): how every change of a disk begins. That an old operation cannot be settled is told in
 * the log and no failure: the descriptor stands. What belongs to long work that goes on (lock.h) is left to it. */
int journal_lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err);

/* -EBUSY when somebody has a file of the folder open. Where there are no locks nobody can be seen. */
int journal_check_unused(struct dir *dir, const char *file);

/* Removes a file of the folder that nobody has open; -EBUSY when somebody has. */
int journal_remove(struct dir *dir, const char *file);

/* Whether the journal of an operation that was interrupted lists a file of this name, so that settling may remove it. */
bool journal_lists(struct dir *dir, const char *name, const char *file);

/* Whether the descriptor `name` names a file of this name, wherever. A descriptor that cannot be read names all. */
bool journal_named(struct dir *dir, const char *name, const char *file);

#endif
