/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-grow.c - see fs-grow.h. The questions are those that resize2fs and xfs_growfs ask; these need the mount point in their
 * own namespace, which that of a container is not.
 */
#include "lib/fs-grow.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <sys/ioctl.h>
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

static int refused(const char *partition, const struct fs_shape *shape, int r, struct ploop_error *err)
{
	switch (r) {
	case -EROFS:
		return error_set(err, r, PLOOP_EXIT_RESIZE_FS,
				 "%s: its file system is mounted read-only, and grows only when it is not", partition);
	case -EPERM:
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
