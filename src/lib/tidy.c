/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * tidy.c - see tidy.h.
 *
 * Who owns a temporary snapshot: a device that lives and was opened at it, or a process that holds its byte of the lock file
 * (image/lock.h) as long as it is not mounted yet. Both end with their process, so that a dead owner leaves nothing behind.
 */
#include "lib/tidy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "image/lock.h"
#include "lib/change.h"

static bool has_owner(const struct change *change, const struct snapshot *snapshot)
{
	const struct ploop_device *device;
	size_t from = 0;

	while ((device = change_user(change, snapshot, &from))) {
		_free_ char *file = descriptor_file(change->descriptor, snapshot);

		if (!file || change_same_file(device->images[device->nimages - 1], file))
			return true;
	}
	return lock_owned(change->lock, guid_hash(&snapshot->guid));
}

static bool is_idle(const struct change *change, const struct snapshot *s)
{
	bool alone = !s->children && guid_is_none(&s->parent);

	/* With several children it waits, as the original does, until one is left, or somebody deletes it. */
	return s->temporary == SNAPSHOT_TEMPORARY && s->children <= 1 && !alone && s->file && !has_owner(change, s);
}

/* The first after number `skip` of them. */
static bool find_idle(const char *disk, unsigned skip, struct guid *ret)
{
	_change_end_ struct change change = { .lock = -EBADF };

	if (change_begin(&change, disk, NULL) < 0 || change_check_format(&change, NULL) < 0)
		return false;
	for (uint32_t i = 0; i < change.descriptor->nsnapshots; i++) {
		const struct snapshot *s = &change.descriptor->snapshots[i];

		if (!is_idle(&change, s) || skip--)
			continue;
		*ret = s->guid;
		return true;
	}
	return false;
}

void tidy_disk(const char *disk)
{
	struct ploop_error err;
	unsigned failed = 0;
	struct guid guid;

	while (find_idle(disk, failed, &guid)) {
		log_info("Temporary snapshot %s is not used any more", guid.text);
		if (delete_one(disk, guid.text, &err) == 0)
			continue;
		log_warning("%s", err.text);
		failed++;
	}
}
