/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack-adopt.c - the files of a disk that another process of ours had open and locked. They are opened by the descriptors of the
 * locks, which that process never gave up: no name has to be found again, and nobody else can have got in between. The descriptor
 * of the disk is not asked: who changes that meanwhile may be waiting for us.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/level.h"
#include "image/stack-private.h"

static int adopt_level(struct loop *loop, const struct stack_adoption *what, struct stack *stack, unsigned i,
		       const struct format *format, struct ploop_error *err)
{
	const struct level_request request = { .loop = loop, .module = what->module,
					       .write = !what->read_only && i + 1 == what->nlevels };
	_close_ int lock = what->locks[i] < 0 ? -EBADF : fcntl(what->locks[i], F_DUPFD_CLOEXEC, 3);
	int r;

	if (what->locks[i] >= 0 && lock < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s", what->paths[i]);
	r = level_adopt(&request, lock, what->paths[i], &stack->levels[i].file, err);
	if (r < 0)
		return r;
	stack->levels[i].format = format;
	stack->locks[i] = lock < 0 ? -1 : take_fd(&lock);
	stack->nlevels++;
	return 0;
}

int stack_adopt(struct loop *loop, const struct stack_adoption *what, struct stack **ret, struct ploop_error *err)
{
	const struct format *base = format_find(what->base_format);
	struct stack *stack = stack_new(what->nlevels, what->read_only);
	int r = 0;

	if (!stack || (what->descriptor && !(stack->descriptor = strdup(what->descriptor))) ||
	    (what->snapshot && !(stack->snapshot = strdup(what->snapshot))))
		r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", what->paths[0]);
	if (!r && !base)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "no format is called '%s'", what->base_format);
	for (unsigned i = 0; i < what->nlevels && !r; i++)
		r = adopt_level(loop, what, stack, i, i ? &format_ploop1 : base, err);
	if (!r)
		r = stack_finish(loop, stack, what->cluster, what->replay, what->data, err);
	if (r < 0) {
		stack_close(stack);
		return r;
	}
	*ret = stack;
	return 0;
}
