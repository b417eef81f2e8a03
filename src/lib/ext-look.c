/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext-look.c - see ext-look.h. libext2fs does it, on an I/O manager of ours that reads from a superblock_source and refuses to
 * write.
 */
#include "lib/ext-look.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <ext2fs/ext2fs.h>

#include "base/checked.h"
#include "lib/balloon-name.h"
#include "lib/superblock.h"

#define BLOCK_FIRST 1024 /* what libext2fs reads the superblock in */

/* The part of the disk that the file system has. libext2fs hands managers a name and nothing else: ours is an address. */
struct part {
	const struct superblock_source *source;
	uint64_t start;
};

static struct struct_io_manager manager;

static errcode_t part_open(const char *name, int flags, io_channel *ret)
{
	io_channel channel = calloc(1, sizeof(*channel));
	void *part;

	if (!channel || sscanf(name, "%p", &part) != 1) {
		free(channel);
		return EXT2_ET_NO_MEMORY;
	}
	(void)flags;
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &manager;
	channel->name = strdup("disk");
	channel->block_size = BLOCK_FIRST;
	channel->refcount = 1;
	channel->private_data = part;
	*ret = channel;
	return channel->name ? 0 : EXT2_ET_NO_MEMORY;
}

static errcode_t part_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t part_set_block_size(io_channel channel, int size)
{
	channel->block_size = size;
	return 0;
}

/* A negative count is one of bytes. */
static errcode_t part_read(io_channel channel, unsigned long long block, int count, void *data)
{
	const struct part *part = channel->private_data;
	uint64_t length = count < 0 ? (uint64_t)-count : (uint64_t)count * (uint64_t)channel->block_size, offset, end;

	if (!checked_mul(block, (uint64_t)channel->block_size, &offset) || !checked_add(offset, part->start, &offset) ||
	    !checked_add(offset, length, &end) || end > part->source->size)
		return EXT2_ET_SHORT_READ;
	return part->source->read(part->source->data, data, length, offset) < 0 ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t part_read_old(io_channel channel, unsigned long block, int count, void *data)
{
	return part_read(channel, block, count, data);
}

static errcode_t part_write(io_channel channel, unsigned long block, int count, const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t part_flush(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "ploop disk",
	.open = part_open,
	.close = part_close,
	.set_blksize = part_set_block_size,
	.read_blk = part_read_old,
	.read_blk64 = part_read,
	.write_blk = part_write,
	.flush = part_flush,
};

static uint64_t balloon_size(ext2_filsys fs)
{
	struct ext2_inode inode;
	ext2_ino_t ino;

	if (ext2fs_lookup(fs, EXT2_ROOT_INO, BALLOON_NAME, (int)strlen(BALLOON_NAME), NULL, &ino) ||
	    ext2fs_read_inode(fs, ino, &inode))
		return 0;
	return EXT2_I_SIZE(&inode);
}

static int free_ranges(ext2_filsys fs, uint64_t start, const struct ext_look *look)
{
	blk64_t at = fs->super->s_first_data_block, last = ext2fs_blocks_count(fs->super) - 1, from, to;
	int r = 0;

	while (!r && at <= last && !ext2fs_find_first_zero_block_bitmap2(fs->block_map, at, last, &from)) {
		if (ext2fs_find_first_set_block_bitmap2(fs->block_map, from, last, &to))
			to = last + 1;
		r = look->free_range(look->data, start + from * fs->blocksize, (to - from) * fs->blocksize);
		at = to;
	}
	return r;
}

int ext_look(const struct superblock_source *source, uint64_t start, struct ext_look *look)
{
	struct part part = { .source = source, .start = start };
	ext2_filsys fs;
	char name[32];
	int r = -EINVAL;

	snprintf(name, sizeof(name), "%p", (void *)&part);
	if (ext2fs_open(name, EXT2_FLAG_64BITS | EXT2_FLAG_SOFTSUPP_FEATURES | EXT2_FLAG_IGNORE_CSUM_ERRORS, 0, 0,
			&manager, &fs))
		return -EINVAL;
	if (!ext2fs_read_block_bitmap(fs)) {
		look->balloon = balloon_size(fs);
		r = free_ranges(fs, start, look);
	}
	ext2fs_free(fs);
	return r;
}
