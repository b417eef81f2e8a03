/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.h - from what a user names (a descriptor, or image files from base to top) to open, locked, checked deltas
 * that a device can be made of.
 */
#ifndef IMAGE_STACK_H
#define IMAGE_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"
#include "image/lock.h"
#include "io/io.h"

struct dir_ops;
struct loop;
struct ploop_error;

struct stack_request {
	const char *const *operands; /* one descriptor (or its folder), or image files, base first */
	unsigned noperands;
	const char *base_format; /* "raw", "ploop1", or NULL: ploop1. A descriptor has its own word on it */
	uint32_t cluster;        /* bytes; for a raw base without descriptor, else 0 */
	const char *snapshot;    /* GUID of the snapshot to open, or "base"; NULL the top */
	bool read_only;          /* open every file for reading and write nothing */
	bool unlocked;           /* with read_only: take no locks. For headers, which stay as they are under a writer */
	bool outside;            /* allow files that the descriptor names outside its folder */
	const struct io_ops *module;   /* NULL: chosen per file */
	const struct dir_ops *folders; /* NULL: the host's */
};

struct stack {
	struct delta *levels; /* base first; the files are open and belong to the stack */
	unsigned nlevels;
	bool read_only;
	char *descriptor; /* absolute path, or NULL */
	char *snapshot;   /* GUID that is open, or NULL without a descriptor */
	int *locks; /* for each level the descriptor that holds its lock, opened for reading; -1 where there are no locks */
};

/*
 * Opens and locks all files, parses the headers, checks that they fit one another. Blocks. With `loop` NULL the files
 * take what io_open() says.
 *
 * Who opens a disk by its descriptor and goes on to use what that said holds lock_disk() from before until then.
 *
 * The top of a stack that is not read-only is locked against everybody, all other files against writers. A level
 * below the top that is marked as in use was left so by an interrupted merge or snapshot, as we hold its lock: the
 * mark is durably taken off, unless the stack is read-only or the file cannot be written. Not so when it holds partial clusters
 * (geometry.partial): then job_complete() comes before a device.
 */
int stack_open(struct loop *loop, const struct stack_request *request, struct stack **ret, struct ploop_error *err);

/* The files of a disk that another process of ours had open, and whose locks it never gave up. */
struct stack_adoption {
	const char *const *paths; /* base first */
	const int *locks;         /* their descriptors, of which copies are made; -1 where there are no locks */
	unsigned nlevels;
	const char *base_format;
	uint32_t cluster;     /* bytes; for a raw base */
	const char *descriptor, *snapshot; /* or NULL: what struct stack says of them; they are not opened */
	bool read_only;
	const struct io_ops *module; /* NULL: chosen per file */
	/* Called when all files are open and fit one another, before anything is written. */
	int (*replay)(void *data, struct stack *stack, struct ploop_error *err);
	void *data;
};

/* stack-adopt.c: opens them again. Blocks. */
int stack_adopt(struct loop *loop, const struct stack_adoption *what, struct stack **ret, struct ploop_error *err);

/* Changes the lock of one level, see lock_file(). */
int stack_lock(struct stack *stack, unsigned level, enum file_lock from, enum file_lock to, struct ploop_error *err);

/*
 * Opens and locks the image `path` for writing and adds it as the top. Writes nothing, and checks nothing but the file:
 * device_push() does the rest. stack_pop() closes the top again.
 */
int stack_push(struct loop *loop, struct stack *stack, const char *path, struct ploop_error *err);
void stack_pop(struct stack *stack);

/*
 * For a merge. stack_open_writable() opens the file of a level once more, for writing; the caller holds its write lock and closes
 * the file, or lets it take the place of the level's by stack_set_file(). stack_empty() makes a delta whose write lock is
 * held map nothing, durably, and gives its space back. stack_drop() closes the levels first .. last and takes them out.
 */
int stack_open_writable(struct loop *loop, struct stack *stack, unsigned level, struct io_file **ret,
			struct ploop_error *err);
void stack_set_file(struct stack *stack, unsigned level, struct io_file *file);
int stack_empty(struct stack *stack, unsigned level, struct ploop_error *err);
/* Reads the header of a level again, which somebody has written. */
int stack_reread(struct stack *stack, unsigned level, struct ploop_error *err);
void stack_drop(struct stack *stack, unsigned first, unsigned last);

/*
 * For a file that takes the place of another one: opens and locks `path` for reading, as a delta of the form of the level's; and puts
 * it there, which closes the old one. Whether they fit one another is device_replace()'s affair.
 */
int stack_open_other(struct loop *loop, const struct stack *stack, unsigned level, const char *path, struct delta *ret,
		     int *ret_lock, struct ploop_error *err);
void stack_set_level(struct stack *stack, unsigned level, const struct delta *delta, int lock);

/* Closes the files, which gives the locks back. NULL is accepted. */
void stack_close(struct stack *stack);

#endif
