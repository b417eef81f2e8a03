/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-root.c - the root of a file system without a mount point. Whether it is mounted in a container only, below another mount,
 * or nowhere: a mount of our own leads to it, and to its root, where somebody else's may show a folder of it.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/fs.h"

static int make_mount(const char *path, const char *type, bool read_only, int *ret)
{
	_close_ int fs = fsopen(type, FSOPEN_CLOEXEC);

	if (fs < 0 || fsconfig(fs, FSCONFIG_SET_STRING, "source", path, 0) ||
	    (read_only && fsconfig(fs, FSCONFIG_SET_FLAG, "ro", NULL, 0)) ||
	    fsconfig(fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0))
		return -errno;
	*ret = fsmount(fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC);
	return *ret < 0 ? -errno : 0;
}

int fs_open_root(const char *path, const char *type, int *ret_fd, struct ploop_error *err)
{
	_close_ int mount = -EBADF;
	char probed[FS_TYPE];
	int r = 0;

	if (!type) {
		r = fs_probe(path, probed, err);
		if (r < 0)
			return r;
		if (!*probed)
			return error_set(err, -EINVAL, PLOOP_EXIT_MOUNT, "%s holds no file system that is known", path);
		type = probed;
	}
	r = make_mount(path, type, false, &mount);
	if (r == -EBUSY || r == -EROFS || r == -EACCES) /* it is mounted read-only, or the device is */
		r = make_mount(path, type, true, &mount);
	if (r == 0) {
		*ret_fd = openat(mount, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
		r = *ret_fd < 0 ? -errno : 0;
	}
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MOUNT, "%s: cannot reach its file system (%s)", path, type) : 0;
}
