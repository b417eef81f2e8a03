/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * partition.c - from a device to the partition that holds the file system.
 *
 * The kernel has read the partition table when the device appeared. One that was built without a reader for GPT is told what
 * stands there, as parted does it. Only the signature and the ranges are looked at: a damaged table is fsck's and parted's
 * matter, and the kernel refuses what does not fit the device.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/le.h"
#include "control/node.h"
#include "lib/fs.h"

#define GPT_SECTOR 512u
#define GPT_LARGE_SECTOR 4096u
#define GPT_SIGNATURE "EFI PART"
#define GPT_ENTRY 128u /* bytes; larger ones exist on paper only */

/* Fields of a GPT header and of its entries, in bytes from their start. */
enum {
	GPT_ENTRIES_LBA = 72,
	GPT_ENTRY_COUNT = 80,
	GPT_ENTRY_SIZE = 84,
	GPT_ENTRY_FIRST = 32,
	GPT_ENTRY_LAST = 40,
};

enum table {
	TABLE_NONE,
	TABLE_GPT,
	TABLE_GPT_LARGE, /* for sectors of 4096 bytes */
	TABLE_OTHER,
};

static bool kernel_has(const char *node, unsigned number)
{
	const char *disk = strrchr(node, '/') + 1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/block/%s/%sp%u", disk, disk, number);
	return access(path, F_OK) == 0;
}

/* One entry of the table; an empty one is none. */
static int tell_entry(int fd, unsigned number, const unsigned char *entry)
{
	struct blkpg_partition partition = { .pno = (int)number };
	struct blkpg_ioctl_arg argument = { .op = BLKPG_ADD_PARTITION,
					    .datalen = sizeof(partition),
					    .data = &partition };
	uint64_t first = le64_get(entry + GPT_ENTRY_FIRST), last = le64_get(entry + GPT_ENTRY_LAST);

	if (!first || last < first || last >= INT64_MAX / GPT_SECTOR)
		return 0;
	partition.start = (long long)(first * GPT_SECTOR);
	partition.length = (long long)((last - first + 1) * GPT_SECTOR);
	return ioctl(fd, BLKPG, &argument) < 0 && errno != EBUSY ? -errno : 0;
}

static int tell_kernel(int fd, const unsigned char *header)
{
	uint64_t at = le64_get(header + GPT_ENTRIES_LBA);
	uint32_t count = le32_get(header + GPT_ENTRY_COUNT);
	unsigned char entries[NODE_PARTITIONS * GPT_ENTRY];
	int result = 0;
	ssize_t n;

	if (at > INT64_MAX / GPT_SECTOR || le32_get(header + GPT_ENTRY_SIZE) != GPT_ENTRY)
		return -EINVAL;
	n = fd_pread(fd, entries, sizeof(entries), at * GPT_SECTOR);
	if (n != sizeof(entries))
		return n < 0 ? (int)n : -EINVAL;
	for (unsigned i = 0; i < NODE_PARTITIONS && i < count; i++) {
		int r = tell_entry(fd, i + 1, entries + i * GPT_ENTRY);

		if (r < 0 && result == 0)
			result = r;
	}
	return result;
}

static int read_table(int fd, unsigned char head[GPT_LARGE_SECTOR + GPT_SECTOR], enum table *ret)
{
	ssize_t n;

	memset(head, 0, GPT_LARGE_SECTOR + GPT_SECTOR);
	n = fd_pread(fd, head, GPT_LARGE_SECTOR + GPT_SECTOR, 0);
	if (n < 0)
		return (int)n;
	if (!memcmp(head + GPT_SECTOR, GPT_SIGNATURE, 8))
		*ret = TABLE_GPT;
	else if (!memcmp(head + GPT_LARGE_SECTOR, GPT_SIGNATURE, 8))
		*ret = TABLE_GPT_LARGE;
	else
		*ret = head[510] == 0x55 && head[511] == 0xaa ? TABLE_OTHER : TABLE_NONE;
	return 0;
}

/* Reads the table, and sees to it that the kernel and the names know of its partitions. Some drivers have the kernel look for them
 * when their device is opened for the first time, which is here: ploopd need not have heard of them yet. */
static int look(const char *name, const char *node, enum table *ret, struct ploop_error *err)
{
	unsigned char head[GPT_LARGE_SECTOR + GPT_SECTOR];
	_close_ int fd = open(node, O_RDONLY | O_CLOEXEC);
	int r;

	r = fd < 0 ? -errno : read_table(fd, head, ret);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "%s: cannot read the partition table", node);
	r = *ret == TABLE_GPT && !kernel_has(node, 1) ? tell_kernel(fd, head + GPT_SECTOR) : 0;
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MOUNT, "%s: the kernel does not take its partition table", node);
	return node_sync(name, node, err);
}

int fs_partitions(const char *name, const char *node, struct ploop_error *err)
{
	enum table table;

	return look(name, node, &table, err);
}

static int is_block_device(const char *path, struct ploop_error *err)
{
	struct stat st;

	if (stat(path, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_MOUNT, "%s", path);
	if (!S_ISBLK(st.st_mode))
		return error_set(err, -ENOTBLK, PLOOP_EXIT_MOUNT, "%s leads to a file that is no device; remove that",
				 path);
	return 0;
}

int fs_find(const char *name, const char *node, char ret[PATH_MAX], struct ploop_error *err)
{
	enum table table;
	bool first;
	int r;

	r = look(name, node, &table, err);
	if (r < 0)
		return r;
	if (table == TABLE_GPT_LARGE)
		return error_set(
			err, -EOPNOTSUPP, PLOOP_EXIT_MOUNT,
			"%s: its partition table counts in sectors of 4096 bytes, which this ploop cannot serve yet",
			node);
	/* The boot sector of a file system looks like a table of the old kind: the kernel tells them apart. */
	first = table == TABLE_GPT || (table == TABLE_OTHER && kernel_has(node, 1));
	r = node_path(name, first ? 1 : 0, ret);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MOUNT, "%s", name) : is_block_device(ret, err);
}
