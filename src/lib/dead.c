/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dead.c - nothing can be saved here: what was flushed is in the image, the rest is lost, and the kernel answers every access
 * with an error; where it would wait for another ploopd it is told not to. So file systems that are busy are taken from view, and
 * the kernel's device goes when its last user does.
 */
#include "lib/dead.h"

#include "base/error.h"
#include "base/log.h"
#include "control/rundir.h"
#include "export/export.h"
#include "lib/device-find.h"
#include "lib/fs.h"

int dead_clear(const struct device_entry *entry, struct ploop_error *err)
{
	const struct ploop_device *device = &entry->device;
	const struct export_ops *ops = device->front_end ? export_find(device->front_end) : NULL;
	struct blockdev blockdev;
	int r = 0;

	log_info("Clearing %s, whose ploopd is dead", device->device);
	device_blockdev(entry, &blockdev); /* of the sequence number that we know, so it is ours; or none */
	if (blockdev.n && ops && ops->fail)
		r = ops->fail(device->node);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DEVIOC, "%s: cannot stop it", device->node);
	for (size_t i = device->nmounts; i-- > 0;) {
		r = fs_umount(device->mounts[i], FS_UMOUNT_DEAD, err);
		if (r < 0)
			return r;
	}
	if (blockdev.n && ops && ops->clear)
		r = ops->clear(device->node);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DEVIOC, "%s: cannot detach it", device->node);
	r = rundir_remove(device->name);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_UNLINK, "%s/%s", rundir_base(), device->name) : 0;
}
