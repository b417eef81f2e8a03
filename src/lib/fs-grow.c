/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-grow.c - see fs-grow.h. The questions are those that resize2fs and xfs_growfs ask; these need the mount point in their
 * own namespace, which that of a container is not.
 */
#include "lib/fs-grow.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"

#define EXT_RESIZE _IOW('f', 16, __u64)

struct xfs_growth {
	__u64 blocks;
	__u32 inodes_percent;
};
#define XFS_GROW _IOW('X', 110, struct xfs_growth)

static int ask(int fd, const struct fs_shape *shape, uint64_t blocks)
{
	const struct xfs_growth xfs = { .blocks = blocks, .inodes_percent = shape->inodes_percent };
	__u64 ext = blocks;
	int r;

	do
		r = shape->kind == FS_EXT ? ioctl(fd, EXT_RESIZE, &ext) : ioctl(fd, XFS_GROW, &xfs);
	while (r < 0 && errno == EINTR);
	return r < 0 ? -errno : 0;
}

int fs_may_grow(const char *partition, const struct fs_shape *shape, struct ploop_error *err)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = { 0 };

	if (shape->kind != FS_EXT || syscall(SYS_capget, &header, data) < 0 ||
	    data[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective & CAP_TO_MASK(CAP_SYS_RESOURCE))
		return 0;
	return error_set(err, -EPERM, PLOOP_EXIT_RESIZE_FS,
			 "%s: CAP_SYS_RESOURCE is missing, without which %s does not grow while it is in use; unmount it, or do it "
			 "from outside of this container",
			 partition, shape->type);
}

static int refused(const char *partition, const struct fs_shape *shape, int r, struct ploop_error *err)
{
	switch (r) {
	case -EROFS:
		return error_set(err, r, PLOOP_EXIT_RESIZE_FS,
				 "%s: its file system is mounted read-only, and grows only when it is not", partition);
	case -EUCLEAN:
		return error_set(err, r, PLOOP_EXIT_RESIZE_FS,
				 "%s: the kernel does not let its %s grow: it has errors; unmount it and run `e2fsck -f`",
				 partition, shape->type);
	case -EOPNOTSUPP:
	case -ENOTTY:
		return error_set(err, r, PLOOP_EXIT_RESIZE_FS, "%s: this kernel cannot grow its %s", partition, shape->type);
	default:
		return error_sys(err, r, PLOOP_EXIT_RESIZE_FS, "%s: its %s does not grow", partition, shape->type);
	}
}

int fs_grow(int fd, const char *partition, const struct fs_shape *shape, uint64_t size, struct fs_shape *ret,
	    struct ploop_error *err)
{
	uint64_t blocks = size / shape->block;
	int r;

	log_info("%s: %s grows from %" PRIu64 " to %" PRIu64 " blocks of %u bytes", partition, shape->type, shape->blocks,
		 blocks, shape->block);
	r = ask(fd, shape, blocks);
	if (r < 0)
		return refused(partition, shape, r, err);
	r = syncfs(fd) < 0 ? -errno : 0;
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_RESIZE_FS, "%s: its %s has grown, and cannot be written", partition,
				 shape->type);
	return fs_shape_look(partition, fd, ret, err);
}
