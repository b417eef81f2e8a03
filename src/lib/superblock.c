/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * superblock.c - see superblock.h. The numbers are those that statfs() would give: what the file system keeps for
 * itself is not counted. All is from a stranger: numbers that do not fit one another mean that there is no such file
 * system.
 */
#include "lib/superblock.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/le.h"
#include "lib/superblock-fields.h"

#define LBA 512u
#define LARGE_LBA 4096u
#define GPT_SIGNATURE "EFI PART"
#define GPT_ENTRIES 72 /* LBA of the entries */
#define GPT_ENTRY_SIZE 84
#define GPT_FIRST 32 /* in an entry: its first LBA */

#define HEAD 4096u /* what is read of a file system */

static const char *ext_name(const uint8_t *sb)
{
	if (le32_get(sb + EXT_INCOMPAT) & (EXT_INCOMPAT_EXTENTS | EXT_INCOMPAT_64BIT))
		return "ext4";
	return le32_get(sb + EXT_COMPAT) & EXT_COMPAT_JOURNAL ? "ext3" : "ext2";
}

static uint64_t ext_wide(const uint8_t *sb, int low, int high)
{
	uint64_t wide = le32_get(sb + low);

	if (le32_get(sb + EXT_INCOMPAT) & EXT_INCOMPAT_64BIT)
		wide |= (uint64_t)le32_get(sb + high) << 32;
	return wide;
}

static bool ext_parse(const uint8_t *head, struct ploop_fs *ret)
{
	const uint8_t *sb = head + EXT_START;
	uint32_t block_log = le32_get(sb + EXT_BLOCK_LOG), cluster_log = block_log;
	uint64_t free_blocks = ext_wide(sb, EXT_FREE_BLOCKS, EXT_FREE_BLOCKS_HIGH),
		 overhead = le32_get(sb + EXT_OVERHEAD);
	struct ploop_fs fs = {
		.type = ext_name(sb),
		.blocks = ext_wide(sb, EXT_BLOCKS, EXT_BLOCKS_HIGH),
		.inodes = le32_get(sb + EXT_INODES),
		.inodes_free = le32_get(sb + EXT_FREE_INODES),
		.approximate = le32_get(sb + EXT_INCOMPAT) & EXT_INCOMPAT_RECOVER,
	};

	if ((le32_get(sb + EXT_MAGIC) & 0xffff) != EXT_MAGIC_VALUE || block_log > 6)
		return false;
	fs.block = UINT64_C(1024) << block_log;
	if (le32_get(sb + EXT_RO_COMPAT) & EXT_RO_COMPAT_BIGALLOC)
		cluster_log = le32_get(sb + EXT_CLUSTER_LOG);
	if (cluster_log < block_log || cluster_log > 20)
		return false;
	/* Free blocks and overhead are counted in clusters. */
	if (!checked_mul(free_blocks, UINT64_C(1) << (cluster_log - block_log), &fs.blocks_free))
		return false;
	overhead <<= cluster_log - block_log;
	if (overhead < fs.blocks)
		fs.blocks -= overhead;
	fs.blocks_free = min_u64(fs.blocks_free, fs.blocks);
	fs.inodes_free = min_u64(fs.inodes_free, fs.inodes);
	*ret = fs;
	return true;
}

static bool xfs_parse(const uint8_t *sb, struct ploop_fs *ret)
{
	uint64_t log = be64_get(sb + XFS_LOG_START) ? be32_get(sb + XFS_LOG_BLOCKS) : 0;
	uint64_t used = be64_get(sb + XFS_INODES), unused = be64_get(sb + XFS_FREE_INODES), most;
	uint8_t inodes_log = sb[XFS_INODES_LOG], percent = sb[XFS_INODES_PERCENT];
	struct ploop_fs fs = {
		.type = "xfs",
		.block = be32_get(sb + XFS_BLOCK),
		.blocks = be64_get(sb + XFS_BLOCKS),
		.blocks_free = be64_get(sb + XFS_FREE_BLOCKS),
	};

	if (memcmp(sb, "XFSB", 4) || fs.block < 512 || fs.block > 65536 || !is_power_of_two(fs.block))
		return false;
	if (fs.blocks > INT64_MAX / fs.block || fs.blocks_free > fs.blocks || log > fs.blocks || inodes_log > 16 ||
	    percent > 100 || unused > used || used > UINT64_MAX / 2)
		return false;
	/* Inodes are made of free blocks as they are wanted, up to a part of the file system. */
	most = fs.blocks / 100 * percent << inodes_log;
	fs.inodes = used + (fs.blocks_free << inodes_log);
	if (percent && fs.inodes > most)
		fs.inodes = max_u64(most, used);
	fs.inodes_free = fs.inodes - (used - unused);
	fs.blocks -= log;
	fs.blocks_free = min_u64(fs.blocks_free, fs.blocks);
	*ret = fs;
	return true;
}

int superblock_find(const struct superblock_source *source, uint64_t *ret)
{
	static const uint32_t sizes[] = { LBA, LARGE_LBA };
	uint8_t header[LBA], entry[128];

	*ret = 0;
	for (unsigned i = 0; i < 2; i++) {
		uint64_t at, first;
		int r;

		if (source->size < sizes[i] + sizeof(header))
			return 0;
		r = source->read(source->data, header, sizeof(header), sizes[i]);
		if (r < 0)
			return r;
		if (memcmp(header, GPT_SIGNATURE, sizeof(GPT_SIGNATURE) - 1))
			continue;
		if (!checked_mul(le64_get(header + GPT_ENTRIES), sizes[i], &at) || at > source->size - sizeof(entry) ||
		    le32_get(header + GPT_ENTRY_SIZE) < sizeof(entry))
			return -ENODATA;
		r = source->read(source->data, entry, sizeof(entry), at);
		if (r < 0)
			return r;
		return checked_mul(le64_get(entry + GPT_FIRST), sizes[i], &first) && (*ret = first) ? 0 : -ENODATA;
	}
	return 0;
}

int superblock_read(const struct superblock_source *source, struct ploop_fs *ret)
{
	uint8_t head[HEAD];
	uint64_t start;
	int r = superblock_find(source, &start);

	if (r < 0)
		return r;
	if (source->size < HEAD || start > source->size - HEAD)
		return -ENODATA;
	r = source->read(source->data, head, sizeof(head), start);
	if (r < 0)
		return r;
	return ext_parse(head, ret) || xfs_parse(head, ret) ? 0 : -ENODATA;
}
