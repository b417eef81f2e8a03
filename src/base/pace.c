/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* pace.c - see pace.h. */
#include "base/pace.h"

#include "base/checked.h"

#define REST_MOST 7.0  /* of a turn; however much it hurts, it goes on */
#define REST_PROBE 0.1 /* of a turn, when what looked like others was our own doing, it seems */

void pace_begin(struct pace *pace, uint64_t now, uint64_t count)
{
	if (pace->resting && now > pace->at) {
		double quiet = (double)(count - pace->count) / (double)(now - pace->at);

		/* One rest is short: the last ones count as well. */
		pace->quiet = pace->known && count != pace->count ? (3 * pace->quiet + quiet) / 4 : quiet;
		pace->known = true;
	}
	pace->resting = false;
	pace->at = now;
	pace->count = count;
}

/* How long to rest, in turns. */
static double pace_rest(const struct pace *pace, double busy, bool waiting)
{
	double loss, rest;

	if (!pace->known || waiting)
		return 1;
	if (pace->quiet == 0)
		return REST_PROBE;
	/* Of a turn and a rest, others lose `loss` in the turn only. */
	loss = 1 - busy / pace->quiet;
	rest = loss / PACE_LOSS - 1;
	return rest < 1 ? 1 : rest > REST_MOST ? REST_MOST : rest;
}

uint64_t pace_end(struct pace *pace, uint64_t now, uint64_t count, bool waiting)
{
	uint64_t worked = now > pace->at ? now - pace->at : 1, done = count - pace->count;
	double rest;

	if (!done && !waiting) {
		pace->known = false;
		return 0;
	}
	rest = pace_rest(pace, (double)done / (double)worked, waiting && pace->quiet == 0);
	pace->resting = true;
	pace->at = now;
	pace->count = count;
	return (uint64_t)(rest * (double)worked) + 1;
}

uint64_t pace_size(uint64_t size, uint64_t took, uint64_t least, uint64_t most)
{
	if (took > PACE_TURN)
		size /= 2;
	else if (took < PACE_TURN / 2)
		size *= 2;
	return max_u64(least, min_u64(size, most));
}
