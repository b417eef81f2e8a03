/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trim.c - FITRIM, a stretch of the file system at a time: the kernel answers only when a call is done, and nothing but a deadly
 * signal ends it before that.
 */
#include "lib/trim.h"

#include <errno.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"

#define STEP_MIN (UINT64_C(1) << 30)
#define STEPS 64 /* at most so many: XFS looks through whole groups for each */

static int refused(int code, struct ploop_error *err)
{
	if (code == -EOPNOTSUPP || code == -ENOTTY)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM,
				 "the file system, or its device, does not tell what is free (FITRIM)");
	if (code == -EROFS)
		return error_set(err, code, PLOOP_EXIT_PARAM,
				 "the file system is mounted read-only, and then does not tell what is free (FITRIM)");
	return error_sys(err, code, PLOOP_EXIT_SYS, "FITRIM");
}

int trim_run(const struct trim *trim, struct ploop_error *err)
{
	uint64_t step = max_u64(STEP_MIN, round_up(div_round_up(trim->size, STEPS), STEP_MIN));

	/* What was freed since the last transaction is not yet free. */
	if (syncfs(trim->root) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSYNC, "cannot sync the file system");
	for (uint64_t at = 0; at < trim->size; at += step) {
		/* The last one goes to the very end, however the file system counts. */
		bool last = at + step >= trim->size;
		struct fstrim_range range = { .start = at, .len = last ? UINT64_MAX : step, .minlen = trim->min_block };
		int r = trim->step ? trim->step(trim->data, at, trim->size) : 0;

		if (r)
			return r < 0 ? error_set(err, r, PLOOP_EXIT_ABORT, "stopped") : 0;
		if (ioctl(trim->root, FITRIM, &range) == 0)
			continue;
		if (errno == EINVAL && at) /* the file system is shorter than its device */
			return 0;
		return refused(-errno, err);
	}
	return 0;
}
