/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* balloon-discard.h - `ploop balloon discard`: what the original called compaction. */
#ifndef CLI_BALLOON_DISCARD_H
#define CLI_BALLOON_DISCARD_H

#include "cli/progress.h"

struct balloon_discard {
	struct ploop_reclaim reclaim;
	bool stat, defrag, json;
	enum progress_mode mode;
};

/* Returns the exit status. */
int balloon_discard(struct balloon_discard *discard);

#endif
