/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ext-free.c - libext2fs reads the block bitmaps, from wherever we can read. It hands its I/O a name and nothing else: the name is
 * the address of ours, as text.
 */
#include "lib/ext-free.h"

#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/range.h"
#include "lib/superblock.h"

#define FIRST_BLOCK_SIZE 1024

struct origin {
	const struct superblock_source *source;
	uint64_t start; /* byte of the disk */
};

static errcode_t origin_open(const char *name, int flags, io_channel *ret);

static errcode_t origin_close(io_channel channel)
{
	if (--channel->refcount > 0)
		return 0;
	free(channel->name);
	free(channel);
	return 0;
}

static errcode_t origin_set_block(io_channel channel, int size)
{
	channel->block_size = size;
	return 0;
}

/* A negative count is one of bytes. */
static errcode_t origin_read(io_channel channel, unsigned long long block, int count, void *data)
{
	const struct origin *origin = channel->private_data;
	uint64_t length = count < 0 ? (uint64_t) - (int64_t)count : (uint64_t)count * (uint64_t)channel->block_size;
	uint64_t at, end;

	if (!checked_mul(block, (uint64_t)channel->block_size, &at) || !checked_add(at, origin->start, &at) ||
	    !checked_add(at, length, &end) || end > origin->source->size)
		return EXT2_ET_SHORT_READ;
	return origin->source->read(origin->source->data, data, (size_t)length, at) < 0 ? EXT2_ET_SHORT_READ : 0;
}

static errcode_t origin_read_old(io_channel channel, unsigned long block, int count, void *data)
{
	return origin_read(channel, block, count, data);
}

static errcode_t origin_write(io_channel channel, unsigned long block, int count, const void *data)
{
	(void)channel, (void)block, (void)count, (void)data;
	return EXT2_ET_RO_FILSYS;
}

static errcode_t origin_flush(io_channel channel)
{
	(void)channel;
	return 0;
}

static struct struct_io_manager manager = {
	.magic = EXT2_ET_MAGIC_IO_MANAGER,
	.name = "ploop",
	.open = origin_open,
	.close = origin_close,
	.set_blksize = origin_set_block,
	.read_blk = origin_read_old,
	.read_blk64 = origin_read,
	.write_blk = origin_write,
	.flush = origin_flush,
};

static errcode_t origin_open(const char *name, int flags, io_channel *ret)
{
	io_channel channel = calloc(1, sizeof(*channel));
	void *origin;

	(void)flags;
	if (!channel || sscanf(name, "%p", &origin) != 1 || !(channel->name = strdup(name))) {
		free(channel);
		return EXT2_ET_NO_MEMORY;
	}
	channel->magic = EXT2_ET_MAGIC_IO_CHANNEL;
	channel->manager = &manager;
	channel->block_size = FIRST_BLOCK_SIZE;
	channel->refcount = 1;
	channel->private_data = origin;
	*ret = channel;
	return 0;
}

static int add_free(ext2_filsys fs, uint64_t start, struct ranges *ranges)
{
	blk64_t at = fs->super->s_first_data_block, end = ext2fs_blocks_count(fs->super) - 1, used;

	while (at <= end && ext2fs_find_first_zero_block_bitmap2(fs->block_map, at, end, &at) == 0) {
		uint64_t offset, length;

		if (ext2fs_find_first_set_block_bitmap2(fs->block_map, at, end, &used))
			used = end + 1;
		if (used <= at || !checked_mul(at, fs->blocksize, &offset) || !checked_add(offset, start, &offset) ||
		    !checked_mul(used - at, fs->blocksize, &length) || offset > UINT64_MAX - length)
			return -EUCLEAN;
		if (ranges_add(ranges, offset, length) < 0)
			return -ENOMEM;
		at = used;
	}
	return 0;
}

int ext_free(const struct superblock_source *source, uint64_t start, struct ranges *ranges, struct ploop_error *err)
{
	struct origin origin = { source, start };
	ext2_filsys fs = NULL;
	char name[32];
	errcode_t code;
	int r = 0;

	snprintf(name, sizeof(name), "%p", (void *)&origin);
	code = ext2fs_open(name, EXT2_FLAG_64BITS | EXT2_FLAG_SKIP_MMP, 0, 0, &manager, &fs);
	if (code == 0 && (!(fs->super->s_state & EXT2_VALID_FS) || fs->super->s_state & EXT2_ERROR_FS ||
			  ext2fs_has_feature_journal_needs_recovery(fs->super)))
		r = error_set(
			err, -EUCLEAN, PLOOP_EXIT_FSCK,
			"the file system was not unmounted cleanly, so what it says is free may be in use; mount it "
			"once, or use --automount");
	if (code == 0 && r == 0)
		code = ext2fs_read_block_bitmap(fs);
	if (code == 0 && r == 0) {
		r = add_free(fs, start, ranges);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_FSCK, "the map of free blocks of the file system");
	}
	if (code && r == 0)
		r = error_set(err, -EUCLEAN, PLOOP_EXIT_FSCK,
			      "the map of free blocks of the file system cannot be read: %s", error_message(code));
	if (fs)
		ext2fs_free(fs);
	return r;
}
