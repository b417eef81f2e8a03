/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuse-mount.c - see fuse-mount.h. */
#include "export/fuse-mount.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

int fuse_mount_channel(struct ploop_error *err)
{
	int fd = open("/dev/fuse", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "cannot open /dev/fuse (load the kernel module 'fuse')");
	return fd;
}

int fuse_mount_usable(struct ploop_error *err)
{
	_close_ int fd = fuse_mount_channel(err);
	_close_ int fs = -EBADF;

	if (fd < 0)
		return fd;
	fs = fsopen("fuse", FSOPEN_CLOEXEC);
	if (fs < 0)
		return error_sys(err, -errno, PLOOP_EXIT_MOUNT, "cannot make a FUSE file system (be root; Linux 5.2)");
	return 0;
}

static int fuse_mount_configure(int fs, int fd, const char *name)
{
	char number[16], user[16], group[16], mode[16];

	snprintf(number, sizeof(number), "%d", fd);
	snprintf(mode, sizeof(mode), "%o", S_IFDIR | 0700u);
	snprintf(user, sizeof(user), "%u", getuid());
	snprintf(group, sizeof(group), "%u", getgid());
	if (fsconfig(fs, FSCONFIG_SET_STRING, "source", name, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "fd", number, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "rootmode", mode, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "user_id", user, 0) ||
	    fsconfig(fs, FSCONFIG_SET_STRING, "group_id", group, 0) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	return 0;
}

int fuse_mount_new(int fd, const char *name, struct ploop_error *err)
{
	_close_ int fs = fsopen("fuse", FSOPEN_CLOEXEC);
	int r = fs < 0 ? -errno : fuse_mount_configure(fs, fd, name);

	if (!r) {
		r = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
		if (r >= 0)
			return r;
		r = -errno;
	}
	return error_sys(err, r, PLOOP_EXIT_MOUNT, "%s: cannot make a FUSE file system", name);
}
