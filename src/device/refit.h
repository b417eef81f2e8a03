/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * refit.h - one delta gets the index and the header of another size, while requests go on: the top when the device does (resize.c),
 * or a smaller level before larger ones are merged into it (merge.c). Only formats with an index.
 */
#ifndef DEVICE_REFIT_H
#define DEVICE_REFIT_H

#include "device/relocate.h"

struct refit {
	/* The caller's. */
	struct writer *writer;
	struct geometry new; /* of format->resize(); what the extension is like is seen later */
	/* 0: the header says the new size, durably. Else it says the old one, and clusters that have moved stay where they are; or a
	 * commit failed, and the device has aborted. Never called from inside refit_run(). */
	void (*done)(struct refit *refit, int result);

	/* The engine's. */
	struct geometry old;
	unsigned step;
	bool relocating, stopped;
	struct relocate relocate;
	struct device_commit_waiter waiter;
	struct io_op op;
	struct loop_task task;
	struct loop_timer timer;
};

/* The caller's fields are set. Takes the memory that is needed: 0 or -ENOMEM, and then nothing has changed. */
int refit_init(struct refit *refit);

/* The device has settled: from now on nothing is put where the longer index will be. */
void refit_begin(struct refit *refit);
/* Goes to the end. A smaller size: the entries beyond it are removed already. */
void refit_run(struct refit *refit);
/* In place of refit_run(): it shall not be, after all. */
void refit_undo(struct refit *refit);

/* Ends soon with -ECANCELED, if it can. */
void refit_stop(struct refit *refit);
void refit_poke(struct refit *refit);

#endif
