/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stack-private.h - for the files of stack.h among each other. */
#ifndef IMAGE_STACK_PRIVATE_H
#define IMAGE_STACK_PRIVATE_H

#include "image/stack.h"

struct stack *stack_new(unsigned nlevels, bool read_only);

/* All files are open: reads and checks the headers, and prepares for writing. `replay` and `data` as in struct stack_adoption. */
int stack_finish(struct loop *loop, struct stack *stack, uint32_t cluster,
		 int (*replay)(void *data, struct stack *stack, struct ploop_error *err), void *data,
		 struct ploop_error *err);

#endif
