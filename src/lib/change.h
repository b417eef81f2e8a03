/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * change.h - a change of a disk as a whole: its lock is held, what was interrupted is settled, the descriptor is read, and
 * what is known of the devices that use its files is known.
 *
 *	change_begin()        lock, settle, read, look at devices, bring the running device in line
 *	change_journal()      the files that are about to be made or removed
 *	...                   new files; edits of change->descriptor in memory
 *	change_commit()       the descriptor is replaced: the change is made
 *	change_undo()         only when something after that was refused: the old descriptor comes back
 *	change_end()          files that the descriptor does not name go, the journal too; the lock is given back
 */
#ifndef LIB_CHANGE_H
#define LIB_CHANGE_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>

#include <ploop/ploop.h>

#include "image/descriptor.h"
#include "image/dir.h"

struct geometry;
struct stack;

struct change {
	struct dir *dir;
	char *path;       /* of the descriptor, absolute */
	const char *name; /* in dir; points into path */
	int lock;
	struct descriptor *descriptor;
	char *old_text; /* the descriptor as it was */
	size_t old_len;
	bool journal; /* there is one of ours */
	bool paused;
	bool leave; /* what was interrupted is not settled at the beginning; set it before change_open() */
	struct ploop_device *devices; /* all that live */
	size_t ndevices;
	const struct ploop_device *writer; /* the device that writes to the disk's top; NULL: none */
};

/* `disk` is a descriptor or its folder. Zero the struct; change_end() it in any case. */
int change_begin(struct change *change, const char *disk, struct ploop_error *err);
/* The first half of change_begin(): devices are not brought in line, and change->writer is not known. */
int change_open(struct change *change, const char *disk, struct ploop_error *err);
int change_journal(struct change *change, const char *operation, const char *const *files, unsigned nfiles,
		   struct ploop_error *err);
int change_commit(struct change *change, struct ploop_error *err);
void change_undo(struct change *change);
void change_end(struct change *change);

/*
 * Around long work: the disk's lock is given back, and others are told that there is such work instead of waiting. Afterwards
 * the descriptor and the devices are read anew; nobody changed them, unless locks do not work there.
 */
void change_pause(struct change *change);
int change_resume(struct change *change, struct ploop_error *err);

/* Parses a GUID of the user and finds its snapshot. Status 43 when there is none. */
int change_find(const struct change *change, const char *uuid, const struct snapshot **ret, struct ploop_error *err);

/* Descriptors of old software give the top a GUID of its own, and their snapshots are not changed: status 38. */
int change_check_format(const struct change *change, struct ploop_error *err);

/* A device that has the file of this snapshot open, after number *from of the list; NULL when there is none any more. */
const struct ploop_device *change_user(const struct change *change, const struct snapshot *snapshot, size_t *from);

/* What the image of `snapshot` and those below it are like. With `ret_stack` they stay open, locked against writers. */
int change_look(const struct change *change, const struct snapshot *snapshot, struct geometry *ret,
		struct stack **ret_stack, struct ploop_error *err);

/* What a crash left in the top, that nobody uses, is put right by opening it for writing once. */
int change_recover_top(const struct change *change, struct ploop_error *err);

/* The name of a new delta: that of the base with a new GUID behind it. The caller frees; NULL: no memory. */
char *change_new_name(const struct change *change);

/* Reads the descriptor anew, as it is now. */
int change_read(struct change *change, struct ploop_error *err);

/* The devices anew: one has changed. Clears change->writer. */
int change_list_devices(struct change *change, struct ploop_error *err);

/* Makes an empty delta for a stack whose top is like `top`, durably. `name` is in the descriptor's folder. */
int change_new_delta(struct dir *dir, const char *name, const struct geometry *top, struct ploop_error *err);

/* Of snapshots that follow one another, the lowest first, one is left: with the file of the lowest, and the uppermost in all
 * else. */
int change_fuse(struct descriptor *d, const struct guid *guids, unsigned n);

/* Are both paths the same file? */
bool change_same_file(const char *a, const char *b);

/* Would a running device take another top now? 0, or the reason: asked before anything is made. */
int push_check(const struct ploop_device *device, struct ploop_error *err);

/*
 * Makes `image` the new top of a running device. Returns 0 when it is; -EINPROGRESS when nobody knows, because the
 * device died or does not answer; another errno when the device is as it was.
 */
int push_delta(const struct ploop_device *device, const char *image, struct ploop_error *err);

static inline void cleanup_change(struct change *change)
{
	change_end(change);
}
#define _change_end_ __attribute__((cleanup(cleanup_change)))

#endif
