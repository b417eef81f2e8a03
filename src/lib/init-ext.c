/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-ext.c - inodes and attributes in a new ext file system, and its opening and closing. */
#include "lib/init-ext.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <et/com_err.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/init-ext-private.h"

#define CHECK_NEVER (-1)

int ext_error(const struct ext *ext, errcode_t code, struct ploop_error *err)
{
	const char *path = ext->path ? ext->path : "";
	const char *what = *path ? ": " : "";

	switch (code) {
	case 0:
		return 0;
	case EXT2_ET_BLOCK_ALLOC_FAIL:
	case EXT2_ET_DIR_NO_SPACE:
		return error_set(err, -ENOSPC, PLOOP_EXIT_MKFS,
				 "%s%s%s: the disk is too small for all files; make it larger with -s", ext->name, what,
				 path);
	case EXT2_ET_INODE_ALLOC_FAIL:
		return error_set(err, -ENOSPC, PLOOP_EXIT_MKFS,
				 "%s%s%s: no inode is left; make more with -N or -i, or the disk larger with -s",
				 ext->name, what, path);
	case EXT2_ET_EA_NO_SPACE:
	case EXT2_ET_INLINE_DATA_NO_SPACE:
		return error_set(err, -ENOSPC, PLOOP_EXIT_MKFS,
				 "%s%s%s: its extended attributes are larger than the file system takes", ext->name,
				 what, path);
	default:
		/* Codes below the first of libext2fs are those of the system. */
		return error_set(err, code < 4096 ? -(int)code : -EIO, PLOOP_EXIT_MKFS,
				 "%s%s%s: cannot write the file system: %s", ext->name, what, path,
				 error_message(code));
	}
}

static void set_time(const struct timespec *time, uint32_t *ret_seconds, uint32_t *ret_extra)
{
	int64_t seconds = time->tv_sec;

	*ret_seconds = (uint32_t)seconds;
	/* Two more bits of seconds, so that the year 2446 can be told, then the nanoseconds. */
	*ret_extra = (uint32_t)((seconds - (int32_t)seconds) >> 32 & 3) | (uint32_t)time->tv_nsec << 2;
}

/* `inode` is of the full size that the file system has; the part beyond the old 128 bytes is filled where it is there. */
static void set_attributes(struct ext2_inode_large *inode, const struct ext_stat *stat)
{
	uint32_t extra[3];

	inode->i_mode = (uint16_t)stat->mode;
	inode->i_uid = (uint16_t)stat->uid;
	ext2fs_set_i_uid_high(*inode, (uint16_t)(stat->uid >> 16));
	inode->i_gid = (uint16_t)stat->gid;
	ext2fs_set_i_gid_high(*inode, (uint16_t)(stat->gid >> 16));
	set_time(&stat->atime, &inode->i_atime, &extra[0]);
	set_time(&stat->ctime, &inode->i_ctime, &extra[1]);
	set_time(&stat->mtime, &inode->i_mtime, &extra[2]);
	if (inode->i_extra_isize < sizeof(*inode) - EXT2_GOOD_OLD_INODE_SIZE)
		return;
	inode->i_atime_extra = extra[0];
	inode->i_ctime_extra = extra[1];
	inode->i_mtime_extra = extra[2];
	set_time(&stat->crtime, &inode->i_crtime, &inode->i_crtime_extra);
}

/* Reads an inode whole, changes its attributes, writes it. */
int ext_inode_update(struct ext *ext, ext2_ino_t ino, const struct ext_stat *stat, struct ploop_error *err)
{
	int size = EXT2_INODE_SIZE(ext->fs->super);
	_free_ struct ext2_inode *inode =
		calloc(1, size < (int)sizeof(struct ext2_inode_large) ? sizeof(struct ext2_inode_large) : (size_t)size);
	errcode_t r;

	if (!inode)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", ext->name);
	r = ext2fs_read_inode_full(ext->fs, ino, inode, size);
	if (!r) {
		set_attributes((struct ext2_inode_large *)inode, stat);
		r = ext2fs_write_inode_full(ext->fs, ino, inode, size);
	}
	return ext_error(ext, r, err);
}

/* The encoding that takes all numbers, or the older one for those that fit. */
static void set_device(struct ext2_inode *inode, uint32_t major, uint32_t minor)
{
	if (major < 256 && minor < 256)
		inode->i_block[0] = major << 8 | minor;
	else
		inode->i_block[1] = (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

static void set_no_extents(struct ext2_inode *inode)
{
	struct ext3_extent_header *header = (void *)inode->i_block;

	header->eh_magic = EXT3_EXT_MAGIC;
	header->eh_max = (sizeof(inode->i_block) - sizeof(*header)) / sizeof(struct ext3_extent);
	inode->i_flags |= EXT4_EXTENTS_FL;
}

static bool symlink_is_fast(const char *target)
{
	return strlen(target) < sizeof(((struct ext2_inode *)0)->i_block);
}

static errcode_t set_content(struct ext *ext, struct ext2_inode *inode, const struct ext_stat *stat)
{
	uint64_t size = 0;

	if (S_ISCHR(stat->mode) || S_ISBLK(stat->mode)) {
		set_device(inode, stat->major, stat->minor);
	} else if (S_ISLNK(stat->mode) && symlink_is_fast(stat->target)) {
		size = strlen(stat->target);
		memcpy(inode->i_block, stat->target, size);
	} else if (S_ISREG(stat->mode) || S_ISDIR(stat->mode) || S_ISLNK(stat->mode)) {
		if (ext2fs_has_feature_extents(ext->fs->super))
			set_no_extents(inode);
		size = S_ISREG(stat->mode) ? stat->size : S_ISLNK(stat->mode) ? strlen(stat->target) : 0;
	}
	return ext2fs_inode_size_set(ext->fs, inode, (ext2_off64_t)size);
}

static int write_symlink(struct ext *ext, ext2_ino_t ino, const char *target, struct ploop_error *err)
{
	_free_ char *block = calloc(1, ext->fs->blocksize);
	size_t len = strlen(target);

	if (!block)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", ext->name);
	if (len >= ext->fs->blocksize)
		return error_set(err, -ENAMETOOLONG, PLOOP_EXIT_MKFS,
				 "%s: %s: the link's target is longer than a block", ext->name, ext->path);
	memcpy(block, target, len);
	return ext_error(ext, ext_blocks_write(ext, ino, 0, 1, block, NULL), err);
}

int ext_inode_new(struct ext *ext, const struct ext_node *parent, const struct ext_stat *stat, ext2_ino_t *ret_ino,
		  struct ploop_error *err)
{
	struct ext2_inode inode = { .i_links_count = 1 };
	ext2_ino_t ino;
	errcode_t r;
	int result;

	r = ext2fs_new_inode(ext->fs, parent->ino, (int)stat->mode, NULL, &ino);
	if (!r)
		r = set_content(ext, &inode, stat);
	if (!r)
		r = ext2fs_write_new_inode(ext->fs, ino, &inode);
	if (r)
		return ext_error(ext, r, err);
	ext2fs_inode_alloc_stats2(ext->fs, ino, 1, S_ISDIR(stat->mode));
	result = ext_inode_update(ext, ino, stat, err);
	if (!result && S_ISLNK(stat->mode) && !symlink_is_fast(stat->target))
		result = write_symlink(ext, ino, stat->target, err);
	if (!result)
		*ret_ino = ino;
	return result;
}

static errcode_t free_inode(struct ext *ext, ext2_ino_t ino, struct ext2_inode *inode)
{
	struct ext2_inode_large large;
	errcode_t r = 0;

	if (ext2fs_inode_has_valid_blocks2(ext->fs, inode))
		r = ext2fs_punch(ext->fs, ino, NULL, NULL, 0, ~0ull);
	if (!r)
		r = ext2fs_read_inode_full(ext->fs, ino, (struct ext2_inode *)&large, sizeof(large));
	if (!r)
		r = ext2fs_free_ext_attr(ext->fs, ino, &large);
	if (r)
		return r;
	memset(&large, 0, sizeof(large));
	large.i_dtime = ext->fs->now ? (uint32_t)ext->fs->now : (uint32_t)time(NULL);
	r = ext2fs_write_inode_full(ext->fs, ino, (struct ext2_inode *)&large, sizeof(large));
	if (!r)
		ext2fs_inode_alloc_stats2(ext->fs, ino, -1, 0);
	return r;
}

int ext_inode_unlink(struct ext *ext, ext2_ino_t ino, struct ploop_error *err)
{
	struct ext2_inode inode;
	errcode_t r = ext2fs_read_inode(ext->fs, ino, &inode);

	if (r)
		return ext_error(ext, r, err);
	if (inode.i_links_count > 1) {
		inode.i_links_count--;
		return ext_error(ext, ext2fs_write_inode(ext->fs, ino, &inode), err);
	}
	return ext_error(ext, free_inode(ext, ino, &inode), err);
}

static errcode_t set_xattrs(struct ext2_xattr_handle *handle, const struct ext_xattr *attrs, unsigned n)
{
	errcode_t r = ext2fs_xattrs_read(handle);

	for (unsigned i = 0; i < n && !r; i++)
		r = ext2fs_xattr_set(handle, attrs[i].name, attrs[i].value, attrs[i].len);
	return r ? r : ext2fs_xattrs_write(handle);
}

int ext_set_xattrs(struct ext *ext, struct ext_node *node, const struct ext_xattr *attrs, unsigned n,
		   struct ploop_error *err)
{
	struct ext2_xattr_handle *handle;
	errcode_t r, closed;

	if (!n)
		return 0;
	r = ext2fs_xattrs_open(ext->fs, node->ino, &handle);
	if (r)
		return ext_error(ext, r, err);
	r = set_xattrs(handle, attrs, n);
	closed = ext2fs_xattrs_close(&handle);
	return ext_error(ext, r ? r : closed, err);
}

void ext_free_space(const struct ext *ext, uint64_t *ret_bytes, uint64_t *ret_inodes)
{
	*ret_bytes = ext2fs_free_blocks_count(ext->fs->super) * ext->fs->blocksize;
	*ret_inodes = ext->fs->super->s_free_inodes_count;
}

/* What `tune2fs -o user_xattr,acl -c0 -i0` does: a disk is not checked because somebody mounted it often. */
static void set_defaults(struct ext2_super_block *super)
{
	super->s_default_mount_opts |= EXT2_DEFM_XATTR_USER | EXT2_DEFM_ACL;
	super->s_max_mnt_count = CHECK_NEVER;
	super->s_checkinterval = 0;
}

int ext_open(int fd, const char *name, struct ext **ret, struct ploop_error *err)
{
	struct ext *ext = calloc(1, sizeof(*ext));
	char number[16];
	errcode_t r;

	if (!ext)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	ext->name = name;
	/* libext2fs takes a descriptor by its number, and closes it. */
	fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	if (fd < 0) {
		free(ext);
		return error_sys(err, -errno, PLOOP_EXIT_MKFS, "%s", name);
	}
	snprintf(number, sizeof(number), "%d", fd);
	r = ext2fs_open(number, EXT2_FLAG_RW | EXT2_FLAG_64BITS, 0, 0, unixfd_io_manager, &ext->fs);
	if (!r)
		r = ext2fs_read_bitmaps(ext->fs);
	if (!r) {
		set_defaults(ext->fs->super);
		ext2fs_mark_super_dirty(ext->fs);
		r = ext_names_init(ext) ? ENOMEM : 0;
	}
	if (r) {
		int result = ext_error(ext, r, err);

		ext_abandon(ext);
		return result;
	}
	*ret = ext;
	return 0;
}

int ext_close(struct ext *ext, bool *ret_large, struct ploop_error *err)
{
	int r = ext_names_write(ext, ret_large, err);

	if (!r) {
		ext->path = NULL;
		r = ext_error(ext, ext2fs_close_free(&ext->fs), err);
	}
	ext_abandon(ext);
	return r;
}

void ext_abandon(struct ext *ext)
{
	if (!ext)
		return;
	if (ext->fs)
		ext2fs_free(ext->fs);
	ext_names_fini(ext);
	free(ext->data.buffer);
	free(ext);
}
