/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fs-resize.c - see fs-resize.h. */
#include "lib/fs-resize.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/child.h"
#include "base/error.h"
#include "base/log.h"

#define FSCK_FAILED 4 /* exit statuses below it say that all is well now */
#define SECTOR 512u

static int run(const char *const argv[], const char *partition, int *ret_status, char *last, unsigned size,
	       struct ploop_error *err)
{
	const struct child_request request = { .argv = argv, .fd = -1, .level = LOG_LEVEL_DETAIL };
	int r = child_run(&request, ret_status, last, size);

	if (r == -ENOENT)
		return error_set(err, r, PLOOP_EXIT_RESIZE_FS, "%s: %s is not installed (Debian: package e2fsprogs)",
				 partition, argv[0]);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_RESIZE_FS, "%s: cannot run %s", partition, argv[0]) : 0;
}

int fs_check_ext(const char *partition, enum fs_checking how, struct ploop_error *err)
{
	static const char *const options[] = {
		[FS_CHECK_PREEN] = "-p", [FS_CHECK_FORCE] = "-fp", [FS_CHECK_ONLY] = "-fn"
	};
	const char *argv[] = { "e2fsck", options[how], partition, NULL };
	char last[256];
	int status, r = run(argv, partition, &status, last, sizeof(last), err);

	if (r == 0 && status >= (how == FS_CHECK_ONLY ? 1 : FSCK_FAILED))
		return error_set(err, -EUCLEAN, PLOOP_EXIT_FSCK, "e2fsck failed (exit code %d) on %s: %s", status,
				 partition, last);
	return r;
}

int fs_minimum(const char *partition, uint64_t *ret_blocks, struct ploop_error *err)
{
	const char *argv[] = { "resize2fs", "-P", partition, NULL };
	char last[256], *number, *end = NULL;
	uint64_t blocks = 0;
	int status, r = run(argv, partition, &status, last, sizeof(last), err);

	if (r < 0)
		return r;
	number = strrchr(last, ':'); /* "Estimated minimum size of the filesystem: 1234" */
	if (number)
		blocks = strtoull(number + 1, &end, 10);
	if (status || !blocks || *end)
		return error_set(err, -EIO, PLOOP_EXIT_RESIZE_FS,
				 "%s: resize2fs does not say how small it can become (exit code %d): %s", partition, status,
				 last);
	*ret_blocks = blocks;
	return 0;
}

int fs_resize(const char *partition, uint64_t size, struct ploop_error *err)
{
	char sectors[32], last[256];
	const char *argv[] = { "resize2fs", partition, sectors, NULL };
	int status, r;

	snprintf(sectors, sizeof(sectors), "%" PRIu64 "s", size / SECTOR);
	r = run(argv, partition, &status, last, sizeof(last), err);
	if (r == 0 && status)
		return error_set(err, -ENOSPC, PLOOP_EXIT_RESIZE_FS,
				 "%s: resize2fs does not make it %" PRIu64 " sectors large (exit code %d): %s", partition,
				 size / SECTOR, status, last);
	return r;
}
