/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fiemap.c - see fiemap.h. */
#include "lib/fiemap.h"

#include <errno.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/range.h"

#define EXTENTS 512 /* asked for at a time */

static bool is_unwritten(const struct fiemap_extent *extent)
{
	return (extent->fe_flags & ~(uint32_t)FIEMAP_EXTENT_LAST) == FIEMAP_EXTENT_UNWRITTEN;
}

/* One extent of a file; anything but 0 ends the search. */
typedef int (*extent_fn)(void *data, const struct fiemap_extent *extent);

/* Takes one answer; *next is where the next begins, UINT64_MAX at the end. */
static int take(const struct fiemap *map, extent_fn fn, void *data, uint64_t *next)
{
	*next = UINT64_MAX;
	for (uint32_t i = 0; i < map->fm_mapped_extents; i++) {
		const struct fiemap_extent *extent = &map->fm_extents[i];
		uint64_t end, last;
		int r;

		if (!checked_add(extent->fe_physical, extent->fe_length, &end) ||
		    !checked_add(extent->fe_logical, extent->fe_length, &last))
			return -EUCLEAN;
		r = fn(data, extent);
		if (r < 0)
			return r;
		*next = extent->fe_flags & FIEMAP_EXTENT_LAST ? UINT64_MAX : last;
	}
	return 0;
}

static int each_extent(int fd, extent_fn fn, void *data)
{
	_free_ struct fiemap *map = malloc(sizeof(*map) + EXTENTS * sizeof(*map->fm_extents));
	uint64_t at = 0;
	int r = map ? 0 : -ENOMEM;

	while (r == 0 && at != UINT64_MAX) {
		uint64_t from = at;

		*map = (struct fiemap){
			.fm_start = at,
			.fm_length = UINT64_MAX - at,
			.fm_flags = FIEMAP_FLAG_SYNC,
			.fm_extent_count = EXTENTS,
		};
		r = ioctl(fd, FS_IOC_FIEMAP, map) < 0 ? -errno : take(map, fn, data, &at);
		if (r == 0 && at <= from)
			r = -EUCLEAN;
	}
	return r;
}

struct unwritten {
	struct ranges *ranges;
	uint64_t skipped;
};

static int add_unwritten(void *data, const struct fiemap_extent *extent)
{
	struct unwritten *unwritten = data;

	if (is_unwritten(extent))
		return ranges_add(unwritten->ranges, extent->fe_physical, extent->fe_length);
	unwritten->skipped += extent->fe_length;
	return 0;
}

int fiemap_unwritten(int fd, struct ranges *ranges, uint64_t *ret_skipped, struct ploop_error *err)
{
	struct unwritten unwritten = { .ranges = ranges };
	int r = each_extent(fd, add_unwritten, &unwritten);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "cannot tell where a file lies (FIEMAP)");
	*ret_skipped = unwritten.skipped;
	return 0;
}

static int add_allocated(void *data, const struct fiemap_extent *extent)
{
	return ranges_add(data, extent->fe_logical, extent->fe_length);
}

int fiemap_allocated(int fd, struct ranges *ranges, struct ploop_error *err)
{
	int r = each_extent(fd, add_allocated, ranges);

	if (r == -EOPNOTSUPP || r == -ENOTTY)
		r = ranges_add(ranges, 0, INT64_MAX);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_SYS, "cannot tell what blocks a file holds (FIEMAP)") : 0;
}
