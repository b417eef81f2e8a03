/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stack-replace.c - another file in the place of one of a stack. */
#include <errno.h>
#include <unistd.h>

#include "base/error.h"
#include "image/dir.h"
#include "image/level.h"
#include "image/stack.h"

int stack_open_other(struct loop *loop, const struct stack *stack, unsigned level, const char *path, struct delta *ret,
		     int *ret_lock, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	const struct delta *old = &stack->levels[level];
	struct level_request request = { .loop = loop, .beneath = true };
	struct delta delta = { .format = old->format };
	int lock = -1, r = dir_open_parent(NULL, path, &dir, &request.name, err);

	if (r < 0)
		return r;
	request.dir = dir;
	r = level_open(&request, &delta, &lock, err);
	if (r == -EXDEV)
		return error_set(err, r, PLOOP_EXIT_PARAM, "%s is a link that leads elsewhere", path);
	if (r < 0)
		return r;
	r = level_parse(&delta, old->format->has_index ? 0 : old->geometry.cluster, err);
	if (r < 0) {
		io_close(delta.file);
		if (lock >= 0)
			close(lock);
		return r;
	}
	*ret = delta;
	*ret_lock = lock;
	return 0;
}

void stack_set_level(struct stack *stack, unsigned level, const struct delta *delta, int lock)
{
	io_close(stack->levels[level].file);
	if (stack->locks[level] >= 0)
		close(stack->locks[level]);
	stack->levels[level] = *delta;
	stack->locks[level] = lock;
}
