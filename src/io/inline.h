/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inline.h - I/O by callers who have threads of their own and may block on them.
 *
 * With this module io_submit() only puts an operation into the list of whoever submits it. He then performs it, on his own
 * thread and without holding what keeps the engine to one thread at a time, and hands the result in when he holds that again:
 *
 *	lock();
 *	list_init(&ops);
 *	io_inline_collect(&ops);
 *	device_submit(...);              // operations come into `ops`
 *	while ((node = list_pop(&ops))) {
 *		unlock();
 *		r = io_inline_perform(op);
 *		lock();
 *		io_inline_done(op, r);       // more may come into `ops`
 *	}
 *	io_inline_collect(NULL);
 *	unlock();
 *
 * It is no member of io_modules: nobody can ask for it by name.
 */
#ifndef IO_INLINE_H
#define IO_INLINE_H

#include "io/io.h"

extern const struct io_ops io_inline_ops;

/* Where operations that this thread submits from now on go; NULL: it will submit none. */
void io_inline_collect(struct list *ops);

/* Does it by calls that block. Returns the result for io_inline_done(). */
int io_inline_perform(struct io_op *op);

void io_inline_done(struct io_op *op, int result);

static inline struct io_op *io_inline_op(struct list *node)
{
	return container_of(node, struct io_op, node);
}

#endif
