/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init-ext-data.c - the content of files in a new ext file system. It is collected into pieces of a megabyte, so that blocks
 * are taken and written in long runs. What nobody writes stays a hole.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "lib/init-ext-private.h"

static int write_plain(struct ext *ext, ext2_ino_t ino, blk64_t block, unsigned count, const char *data)
{
	(void)ino;
	return (int)io_channel_write_blk64(ext->fs->io, block, (int)count, data);
}

/* How many of the blocks from `start` on lie next to one another; where the first of them is. */
static errcode_t find_run(struct ext *ext, ext2_ino_t ino, struct ext2_inode *inode, uint64_t start, uint64_t count,
			  blk64_t *ret_block, unsigned *ret_run)
{
	blk64_t first = 0;
	unsigned run = 0;

	while (run < count) {
		blk64_t block;
		errcode_t r = ext2fs_bmap2(ext->fs, ino, inode, NULL, 0, start + run, NULL, &block);

		if (r)
			return r;
		if (run && block != first + run)
			break;
		if (!run)
			first = block;
		run++;
	}
	*ret_block = first;
	*ret_run = run;
	return first ? 0 : EXT2_ET_BLOCK_ALLOC_FAIL;
}

int ext_blocks_write(struct ext *ext, ext2_ino_t ino, uint64_t start, uint64_t count, const char *data,
		     int (*write)(struct ext *ext, ext2_ino_t ino, blk64_t block, unsigned count, const char *data))
{
	struct ext2_inode inode;
	errcode_t r;

	r = ext2fs_fallocate(ext->fs, EXT2_FALLOCATE_FORCE_INIT, ino, NULL, ~0ull, start, count);
	if (!r)
		r = ext2fs_read_inode(ext->fs, ino, &inode);
	while (!r && count) {
		blk64_t block;
		unsigned run;

		r = find_run(ext, ino, &inode, start, count, &block, &run);
		if (!r)
			r = (write ? write : write_plain)(ext, ino, block, run, data);
		if (!r) {
			start += run;
			count -= run;
			data += (size_t)run * ext->fs->blocksize;
		}
	}
	return (int)r;
}

static int flush(struct ext *ext, struct ploop_error *err)
{
	uint32_t block = ext->fs->blocksize;
	uint64_t blocks = div_round_up(ext->data.used, block);
	int r;

	if (!blocks)
		return 0;
	memset(ext->data.buffer + ext->data.used, 0, blocks * block - ext->data.used);
	r = ext_blocks_write(ext, ext->data.node->ino, ext->data.start / block, blocks, ext->data.buffer, NULL);
	ext->data.start += blocks * block;
	ext->data.used = 0;
	return ext_error(ext, r, err);
}

/* Moves to `offset`. A gap inside a block is filled with zeros, a larger one becomes a hole. */
static int move_to(struct ext *ext, uint64_t offset, struct ploop_error *err)
{
	uint32_t block = ext->fs->blocksize;
	uint64_t at = ext->data.start + ext->data.used;
	uint64_t gap = offset - at;
	int r;

	if (offset < at)
		return error_set(err, -EINVAL, PLOOP_EXIT_READ, "%s: %s: its pieces are out of order", ext->name,
				 ext->path);
	if (round_down(offset, block) < round_up(at, block)) {
		memset(ext->data.buffer + ext->data.used, 0, gap);
		ext->data.used += gap;
		return 0;
	}
	r = flush(ext, err);
	ext->data.start = round_down(offset, block);
	ext->data.used = offset - ext->data.start;
	memset(ext->data.buffer, 0, ext->data.used);
	return r;
}

int ext_data(struct ext *ext, struct ext_node *node, const void *data, size_t len, uint64_t offset,
	     struct ploop_error *err)
{
	int r;

	if (!ext->data.buffer) {
		/* A whole number of blocks of any size. */
		ext->data.buffer = malloc(EXT_PIECE);
		if (!ext->data.buffer)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", ext->name);
	}
	if (ext->data.node != node) {
		ext->data.node = node;
		ext->data.start = ext->data.used = 0;
	}
	if (!len)
		return 0;
	r = move_to(ext, offset, err);
	while (!r && len) {
		size_t n = min_u64(len, EXT_PIECE - ext->data.used);

		memcpy(ext->data.buffer + ext->data.used, data, n);
		ext->data.used += n;
		data = (const char *)data + n;
		len -= n;
		if (ext->data.used == EXT_PIECE)
			r = flush(ext, err);
	}
	return r;
}

int ext_data_end(struct ext *ext, struct ext_node *node, struct ploop_error *err)
{
	int r = ext->data.node == node ? flush(ext, err) : 0;

	ext->data.node = NULL;
	return r;
}
