/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * trim.c - FITRIM, a stretch of the file system at a time: the kernel answers only when a call is done, and nothing but a deadly
 * signal ends it before that. How long a stretch is depends on how long the last ones took.
 *
 * Each hole that is made in an image makes its other requests wait. So there are rests while others use the device, as long as what
 * the kernel counts of their requests asks for (pace.h).
 */
#include "lib/trim.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/pace.h"

#define STEP_FIRST (UINT64_C(32) << 20)
#define STEP_LEAST (UINT64_C(1) << 20)
#define STEP_MOST (UINT64_C(4) << 30)
#define XFS_STEPS 1024 /* at most so many: before 6.10 it looks through whole groups for each */
#define SECOND UINT64_C(1000000000)

struct stepper {
	const struct trim *trim;
	struct pace pace;
	uint64_t size, least; /* of a step */
	uint64_t turn;        /* when the turn began */
	int stat;             /* the device's counters; -EBADF: there are none, and no rests */
};

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

static void sleep_ns(uint64_t ns)
{
	const struct timespec time = { .tv_sec = (time_t)(ns / SECOND), .tv_nsec = (long)(ns % SECOND) };

	nanosleep(&time, NULL);
}

/* Reads and writes that are done; and whether anything is under way. */
static uint64_t others(const struct stepper *stepper, bool *ret_waiting)
{
	uint64_t reads, writes, in_flight;
	char text[512];
	ssize_t n = stepper->stat < 0 ? -1 : pread(stepper->stat, text, sizeof(text) - 1, 0);

	*ret_waiting = false;
	if (n <= 0)
		return 0;
	text[n] = '\0';
	if (sscanf(text, "%" SCNu64 " %*u %*u %*u %" SCNu64 " %*u %*u %*u %" SCNu64, &reads, &writes, &in_flight) != 3)
		return 0;
	*ret_waiting = in_flight > 0;
	return reads + writes;
}

static int open_counters(int root)
{
	struct stat st;
	char path[64];

	if (fstat(root, &st) < 0)
		return -EBADF;
	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/stat", major(st.st_dev), minor(st.st_dev));
	return open(path, O_RDONLY | O_CLOEXEC);
}

static uint64_t least_step(const struct trim *trim)
{
	struct statfs fs;
	bool xfs = fstatfs(trim->root, &fs) == 0 && fs.f_type == XFS_SUPER_MAGIC;

	return xfs ? round_up(max_u64(STEP_LEAST, trim->size / XFS_STEPS), STEP_LEAST) : STEP_LEAST;
}

static void begin_turn(struct stepper *stepper)
{
	bool waiting;

	stepper->turn = now_ns();
	pace_begin(&stepper->pace, stepper->turn, others(stepper, &waiting));
}

/* After a step that took so long. A turn is as many steps as fit. */
static void end_step(struct stepper *stepper, uint64_t took)
{
	uint64_t now = now_ns(), rest;
	bool waiting;

	stepper->size = pace_size(stepper->size, took, stepper->least, max_u64(stepper->least, STEP_MOST));
	if (now - stepper->turn < PACE_TURN / 2)
		return;
	rest = others(stepper, &waiting);
	rest = pace_end(&stepper->pace, now, rest, waiting);
	if (rest)
		sleep_ns(rest);
	begin_turn(stepper);
}

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

/* The next stretch, from *at on. 1 when it was the last, 0 or a negative errno. */
static int step(struct stepper *stepper, uint64_t *at)
{
	const struct trim *trim = stepper->trim;
	/* The last one goes to the very end, however the file system counts. */
	bool last = *at + stepper->size >= trim->size;
	struct fstrim_range range = { .start = *at,
				      .len = last ? UINT64_MAX : stepper->size,
				      .minlen = trim->min_block };
	uint64_t start = now_ns();

	if (ioctl(trim->root, FITRIM, &range) < 0)
		return errno == EINVAL && *at ? 1 : -errno; /* the file system is shorter than its device */
	*at += stepper->size;
	end_step(stepper, now_ns() - start);
	return last;
}

int trim_run(const struct trim *trim, struct ploop_error *err)
{
	struct stepper stepper = { .trim = trim, .size = STEP_FIRST, .least = least_step(trim) };
	_close_ int counters = open_counters(trim->root);
	uint64_t at = 0;

	stepper.size = max_u64(stepper.size, stepper.least);
	stepper.stat = counters;
	/* What was freed since the last transaction is not yet free. */
	if (syncfs(trim->root) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSYNC, "cannot sync the file system");
	begin_turn(&stepper);
	for (;;) {
		int r = trim->step ? trim->step(trim->data, at, trim->size) : 0;

		if (r)
			return r < 0 ? error_set(err, r, PLOOP_EXIT_ABORT, "stopped") : 0;
		r = step(&stepper, &at);
		if (r)
			return r < 0 ? refused(r, err) : 0;
	}
}
