/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rewrite-private.h - shared by rewrite.c and rewrite-verify.c. */
#ifndef JOB_REWRITE_PRIVATE_H
#define JOB_REWRITE_PRIVATE_H

struct delta;
struct device;
struct loop;
struct ploop_error;
struct rewrite;

int rewrite_open_source(const struct rewrite *rewrite, struct device **ret, struct ploop_error *err);
int rewrite_open_device(struct loop *loop, const struct delta *levels, unsigned nlevels, struct device **ret,
			struct ploop_error *err);
void rewrite_close_device(struct loop *loop, struct device *device);

#endif
