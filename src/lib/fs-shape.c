/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs-shape.c - see fs-shape.h.
 *
 * The superblock on the disk may lag behind that of a mounted file system. That of ext is in the page cache of the partition,
 * through which it is read here. XFS has a cache of its own, and is asked.
 */
#include "lib/fs-shape.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/ioctl.h>
#include <linux/types.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/le.h"
#include "lib/init-mkfs.h"
#include "lib/superblock-fields.h"

/* What XFS answers, in the first form of that question, which stays as it is. */
struct xfs_geometry {
	__u32 block, rt_extent, group_blocks, groups, log_blocks, sector, inode, inodes_percent;
	__u64 blocks, rt_blocks, rt_extents, log_start;
	__u8 uuid[16];
	__u32 stripe[2], version, flags, log_sector, rt_sector, dir_block;
};
#define XFS_GEOMETRY _IOR('X', 100, struct xfs_geometry)

static bool parse_ext(const uint8_t *sb, struct fs_shape *ret)
{
	uint32_t log = le32_get(sb + EXT_BLOCK_LOG), incompat = le32_get(sb + EXT_INCOMPAT);
	bool wide = incompat & EXT_INCOMPAT_64BIT;
	struct fs_shape shape = {
		.kind = FS_EXT,
		.type = incompat & (EXT_INCOMPAT_EXTENTS | EXT_INCOMPAT_64BIT) ?
				"ext4" :
				(le32_get(sb + EXT_COMPAT) & EXT_COMPAT_JOURNAL ? "ext3" : "ext2"),
		.blocks = le32_get(sb + EXT_BLOCKS),
		.inodes = le32_get(sb + EXT_INODES),
		.group_blocks = le32_get(sb + EXT_GROUP_BLOCKS),
		.group_inodes = le32_get(sb + EXT_GROUP_INODES),
		.recover = incompat & EXT_INCOMPAT_RECOVER,
		.errors = le32_get(sb + EXT_STATE) & EXT_STATE_ERRORS,
	};
	uint64_t limit;

	if ((le32_get(sb + EXT_MAGIC) & 0xffff) != EXT_MAGIC_VALUE || log > 6)
		return false;
	shape.block = 1024u << log;
	if (wide)
		shape.blocks |= (uint64_t)le32_get(sb + EXT_BLOCKS_HIGH) << 32;
	if (!shape.blocks || shape.blocks > INT64_MAX / shape.block || !shape.group_blocks || !shape.group_inodes)
		return false;
	/* Numbers of blocks without the feature, and of inodes always, have 32 bits. */
	limit = UINT32_MAX / shape.group_inodes * (uint64_t)shape.group_blocks;
	if (!wide)
		limit = min_u64(limit, UINT32_MAX);
	shape.limit = min_u64(FS_SIZE_MAX, min_u64(limit, INT64_MAX / shape.block) * shape.block);
	*ret = shape;
	return true;
}

static bool parse_xfs(const uint8_t *sb, struct fs_shape *ret)
{
	struct fs_shape shape = {
		.kind = FS_XFS,
		.type = "xfs",
		.block = be32_get(sb + XFS_BLOCK),
		.blocks = be64_get(sb + XFS_BLOCKS),
		.limit = FS_SIZE_MAX,
		.inodes_percent = sb[XFS_INODES_PERCENT],
	};

	if (memcmp(sb, "XFSB", 4) || shape.block < 512 || shape.block > 65536 || !is_power_of_two(shape.block) ||
	    !shape.blocks || shape.blocks > INT64_MAX / shape.block || shape.inodes_percent > 100)
		return false;
	*ret = shape;
	return true;
}

void fs_shape_parse(const uint8_t head[FS_SHAPE_HEAD], struct fs_shape *ret)
{
	*ret = (struct fs_shape){ .kind = FS_UNKNOWN };
	if (!parse_ext(head + EXT_START, ret))
		(void)parse_xfs(head, ret);
}

static int ask_xfs(int mount_fd, struct fs_shape *shape)
{
	struct xfs_geometry geometry;

	if (ioctl(mount_fd, XFS_GEOMETRY, &geometry) < 0)
		return -errno;
	if (geometry.block != shape->block || geometry.blocks > INT64_MAX / shape->block)
		return -EUCLEAN;
	shape->blocks = geometry.blocks;
	return 0;
}

int fs_shape_look(const char *partition, int mount_fd, struct fs_shape *ret, struct ploop_error *err)
{
	_close_ int fd = open(partition, O_RDONLY | O_CLOEXEC);
	uint8_t head[FS_SHAPE_HEAD] = { 0 };
	ssize_t n = fd < 0 ? -errno : fd_pread(fd, head, sizeof(head), 0);
	int r = 0;

	if (n < 0)
		return error_sys(err, (int)n, PLOOP_EXIT_READ, "%s: Can't read the file system", partition);
	fs_shape_parse(head, ret);
	if (ret->kind == FS_XFS && mount_fd >= 0)
		r = ask_xfs(mount_fd, ret);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DEVIOC, "%s: XFS does not say how large it is", partition) : 0;
}

uint64_t fs_shape_inodes_at(const struct fs_shape *shape, uint64_t size)
{
	uint64_t groups;

	if (shape->kind != FS_EXT)
		return 0;
	groups = div_round_up(size / shape->block, shape->group_blocks);
	return groups * shape->group_inodes;
}
