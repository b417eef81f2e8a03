/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* complete.h - levels below the top that a crash in the middle of a snapshot left with partial clusters. */
#ifndef JOB_COMPLETE_H
#define JOB_COMPLETE_H

struct loop;
struct ploop_error;
struct stack;

/*
 * Makes all levels below the top whole: each that needs it is opened once as the top of what lies below it, and closed. The stack
 * is open for writing and belongs to nobody else. Runs the loop; nothing else may be on it yet.
 */
int job_complete(struct loop *loop, struct stack *stack, struct ploop_error *err);

#endif
