/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dead.c - nothing can be saved here: what was flushed is in the image, the rest is lost, and the kernel answers every access
 * with an error. So file systems that are busy are taken from view, and the loop device goes when its last user does.
 */
#include "lib/dead.h"

#include <string.h>

#include "base/error.h"
#include "base/log.h"
#include "control/rundir.h"
#include "export/loopdev.h"
#include "lib/device-find.h"
#include "lib/fs.h"

int dead_clear(const struct device_entry *entry, struct ploop_error *err)
{
	const struct ploop_device *device = &entry->device;
	const struct loopdev_identity anything = { 0 }; /* the sequence number told already that it is ours */
	struct blockdev blockdev;
	int r;

	log_info("Clearing %s, whose ploopd is dead", device->device);
	for (size_t i = device->nmounts; i-- > 0;) {
		r = fs_umount(device->mounts[i], FS_UMOUNT_DEAD, err);
		if (r < 0)
			return r;
	}
	device_blockdev(entry, &blockdev);
	if (blockdev.n && !strncmp(blockdev.name, "loop", 4)) {
		r = loopdev_detach(device->node, &anything, true);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_DEVIOC, "%s: cannot detach it", device->node);
	}
	r = rundir_remove(device->name);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_UNLINK, "%s/%s", rundir_base(), device->name) : 0;
}
