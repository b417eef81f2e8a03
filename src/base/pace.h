/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * pace.h - background work that leaves others most of their speed: in turns, each followed by a rest.
 *
 * How long the rest is depends on how much the turn hurt: what others get done in a second is compared, while there was work and
 * while there was none. Of their speed they lose at most PACE_LOSS, and the rest is never shorter than the turn. Where nobody
 * else does anything there is no rest.
 */
#ifndef BASE_PACE_H
#define BASE_PACE_H

#include <stdbool.h>
#include <stdint.h>

#define PACE_LOSS 0.3
#define PACE_TURN UINT64_C(50000000) /* ns that a turn should take while others work, too */

struct pace {
	uint64_t at, count; /* when the turn or the rest began, and how much others had done by then */
	double quiet;       /* what others do in a nanosecond of rest, of late */
	bool known;         /* quiet is */
	bool resting;
};

/* `now` is any clock in nanoseconds, `count` what others have done so far: requests, say. */
void pace_begin(struct pace *pace, uint64_t now, uint64_t count);

/* The turn is over: ns to rest, 0 when there are no others. `waiting`: one of them waits for something just now. */
uint64_t pace_end(struct pace *pace, uint64_t now, uint64_t count, bool waiting);

/* How much to do at a time: what `took` so many ns was `size`. Between `least` and `most`, by halves and doubles. */
uint64_t pace_size(uint64_t size, uint64_t took, uint64_t least, uint64_t most);

#endif
