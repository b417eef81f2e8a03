/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* reclaim-watch.c - the limits of giving space back. */
#include <errno.h>
#include <sys/stat.h>
#include <time.h>

#include "base/error.h"
#include "lib/reclaim.h"

#define BLOCKS_UNIT 512u /* of st_blocks */
#define SECOND UINT64_C(1000000000)

int reclaim_measure(const char *const *images, size_t n, uint64_t *ret_length, uint64_t *ret_allocated,
		    struct ploop_error *err)
{
	uint64_t length = 0, allocated = 0;

	for (size_t i = 0; i < n; i++) {
		struct stat st;

		if (!images[i])
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "an image's name");
		if (stat(images[i], &st) < 0)
			return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", images[i]);
		length += (uint64_t)st.st_size;
		allocated += (uint64_t)st.st_blocks * BLOCKS_UNIT;
	}
	*ret_length = length;
	*ret_allocated = allocated;
	return 0;
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

int reclaim_watch_start(struct reclaim_watch *watch, const struct ploop_reclaim *what, const char *const *images,
			size_t n, struct ploop_error *err)
{
	uint64_t length;

	*watch = (struct reclaim_watch){ .what = what, .images = images, .nimages = n };
	if (what->timeout)
		watch->deadline = now_ns() + what->timeout * SECOND;
	return reclaim_measure(images, n, &length, &watch->allocated, err);
}

int reclaim_watch_look(void *data, const char *stage, uint64_t done, uint64_t total)
{
	struct reclaim_watch *watch = data;
	const struct ploop_reclaim *what = watch->what;
	uint64_t length, allocated;

	if (what->progress && what->progress(what->progress_data, stage, done, total))
		watch->stopped = true;
	if (watch->deadline && now_ns() >= watch->deadline)
		watch->enough = true;
	if (what->to_free && reclaim_measure(watch->images, watch->nimages, &length, &allocated, NULL) == 0 &&
	    allocated + what->to_free <= watch->allocated)
		watch->enough = true;
	return watch->stopped || watch->enough;
}

int reclaim_watch_result(const struct reclaim_watch *watch, int r)
{
	return r == -ECANCELED && watch->enough && !watch->stopped ? 0 : r;
}
