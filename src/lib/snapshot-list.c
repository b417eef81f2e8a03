/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* snapshot-list.c - the snapshots of a disk: what the descriptor says, what the files are, and which devices use them. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/descriptor.h"
#include "lib/change.h"

#define BLOCK 512 /* the unit of st_blocks */

void ploop_snapshots_free(struct ploop_snapshot_info *snapshots, size_t n)
{
	for (size_t i = 0; snapshots && i < n; i++) {
		free(snapshots[i].file);
		free(snapshots[i].device);
		free(snapshots[i].owner);
	}
	free(snapshots);
}

static int fill_file(const struct descriptor *d, const struct snapshot *s, struct ploop_snapshot_info *ret)
{
	struct stat st;

	if (!s->file)
		return 0;
	ret->file = descriptor_file(d, s);
	if (!ret->file)
		return -ENOMEM;
	if (stat(ret->file, &st) < 0)
		return 0;
	ret->there = true;
	ret->length = (uint64_t)st.st_size;
	ret->allocated = (uint64_t)st.st_blocks * BLOCK;
	ret->modified = (uint64_t)st.st_mtime;
	return 0;
}

/* The device whose top is this file. One with a component says so by it. */
static int fill_device(const struct ploop_device *devices, size_t n, struct ploop_snapshot_info *ret)
{
	for (size_t i = 0; i < n && ret->there && !ret->device; i++) {
		const struct ploop_device *device = &devices[i];

		if (!device->alive || !device->nimages ||
		    !change_same_file(device->images[device->nimages - 1], ret->file))
			continue;
		ret->device = strdup(device->device);
		ret->owner = device->component ? strdup(device->component) : NULL;
		if (!ret->device || (device->component && !ret->owner))
			return -ENOMEM;
	}
	return 0;
}

static int fill(const struct descriptor *d, const struct ploop_device *devices, size_t n,
		struct ploop_snapshot_info *ret)
{
	int r = 0;

	for (uint32_t i = 0; i < d->nsnapshots && r == 0; i++) {
		const struct snapshot *s = &d->snapshots[i];

		memcpy(ret[i].uuid, s->guid.text, PLOOP_UUID);
		memcpy(ret[i].parent, s->parent.text, PLOOP_UUID);
		ret[i].top = guid_equal(&s->guid, &d->top);
		ret[i].temporary = s->temporary != SNAPSHOT_KEPT;
		ret[i].children = s->children;
		r = fill_file(d, s, &ret[i]);
		if (r == 0)
			r = fill_device(devices, n, &ret[i]);
	}
	return r;
}

int ploop_snapshots(const char *disk, struct ploop_snapshot_info **ret, size_t *ret_n, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	struct ploop_snapshot_info *snapshots;
	struct ploop_device *devices = NULL;
	size_t n = 0;
	int r = descriptor_open(disk, &d, err);

	if (r < 0)
		return r;
	snapshots = calloc(d->nsnapshots, sizeof(*snapshots));
	if (!snapshots)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", disk);
	/* Who may not look at devices still sees the snapshots. */
	(void)ploop_list(&devices, &n, NULL);
	r = fill(d, devices, n, snapshots);
	ploop_list_free(devices, n);
	if (r < 0) {
		ploop_snapshots_free(snapshots, d->nsnapshots);
		return error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", disk);
	}
	*ret = snapshots;
	*ret_n = d->nsnapshots;
	return 0;
}
