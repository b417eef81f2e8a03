/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fsmap.c - see fsmap.h. */
#include "lib/fsmap.h"

#include <errno.h>
#include <linux/fsmap.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/range.h"

#define RECORDS 1024 /* asked for at a time */

static bool is_free(const struct fsmap *record, uint32_t device)
{
	return record->fmr_device == device && record->fmr_flags & FMR_OF_SPECIAL_OWNER &&
	       record->fmr_owner == FMR_OWN_FREE;
}

/* As the kernel writes the number of a device in 32 bits. */
static uint32_t number_of(dev_t device)
{
	uint32_t high = major(device), low = minor(device);

	return (low & 0xff) | high << 8 | (low & ~0xffu) << 12;
}

static void start(struct fsmap_head *head)
{
	memset(head, 0, sizeof(*head));
	head->fmh_count = RECORDS;
	head->fmh_keys[1] = (struct fsmap){
		.fmr_device = UINT32_MAX,
		.fmr_flags = UINT32_MAX,
		.fmr_physical = UINT64_MAX,
		.fmr_owner = UINT64_MAX,
		.fmr_offset = UINT64_MAX,
	};
}

/* Takes one answer; *last is its last record, NULL when that is the last of all. */
static int take(const struct fsmap_head *head, uint32_t device, struct ranges *ranges, const struct fsmap **last)
{
	*last = NULL;
	for (uint32_t i = 0; i < head->fmh_entries; i++) {
		const struct fsmap *record = &head->fmh_recs[i];
		uint64_t end;

		if (!checked_add(record->fmr_physical, record->fmr_length, &end))
			return -EUCLEAN;
		if (is_free(record, device) && ranges_add(ranges, record->fmr_physical, record->fmr_length) < 0)
			return -ENOMEM;
		*last = record->fmr_flags & FMR_OF_LAST ? NULL : record;
	}
	return 0;
}

int fsmap_free(int root, struct ranges *ranges, struct ploop_error *err)
{
	_free_ struct fsmap_head *head = malloc(fsmap_sizeof(RECORDS));
	const struct fsmap *last = NULL;
	struct stat st;
	int r = head ? 0 : -ENOMEM;

	if (r == 0 && fstat(root, &st) < 0)
		r = -errno;
	if (r == 0)
		start(head);
	while (r == 0) {
		r = ioctl(root, FS_IOC_GETFSMAP, head) < 0 ? -errno : 0;
		if (r == 0)
			r = take(head, number_of(st.st_dev), ranges, &last);
		if (r < 0 || !last)
			break;
		head->fmh_keys[0] = *last;
	}
	if (r == -ENOTTY || r == -EOPNOTSUPP)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "the file system does not say what is free in it");
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_SYS, "what is free in the file system") : 0;
}
