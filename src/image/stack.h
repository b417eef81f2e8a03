/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.h - from what a user names (a descriptor, or image files from base to top) to open, locked, checked deltas that a
 * device can be made of.
 */
#ifndef IMAGE_STACK_H
#define IMAGE_STACK_H

#include <stdbool.h>
#include <stdint.h>

#include "format/format.h"
#include "io/io.h"

struct loop;
struct ploop_error;

struct stack_request {
	const char *const *operands; /* one descriptor (or its folder), or image files, base first */
	unsigned noperands;
	const char *base_format;     /* "raw", "ploop1", or NULL: what the descriptor or the file's signature says */
	uint32_t cluster;            /* bytes; for a raw base without descriptor, else 0 */
	const char *snapshot;        /* GUID of the snapshot to open; NULL the top */
	bool read_only;              /* open every file for reading and write nothing */
	bool outside;                /* allow files outside the descriptor's folder */
	const struct io_ops *module; /* NULL: chosen per file */
};

struct stack {
	struct delta *levels; /* base first; the files are open and belong to the stack */
	unsigned nlevels;
	bool read_only;
	char *descriptor;            /* absolute path, or NULL */
	char *snapshot;              /* GUID that is open, or NULL without a descriptor */
};

/* Opens and locks all files, parses the headers, checks that they fit one another. Blocks. */
int stack_open(struct loop *loop, const struct stack_request *request, struct stack **ret, struct ploop_error *err);

/* Closes the files, which gives the locks back. NULL is accepted. */
void stack_close(struct stack *stack);

#endif
