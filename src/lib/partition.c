/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* partition.c - from a device to the partition that holds the file system, where no udev helps. */
#include <errno.h>
#include <fcntl.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
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
#define WAIT_TRIES 50 /* of 20 ms */

/* Fields of a GPT header and of its entries, in bytes from their start. */
enum {
	GPT_ENTRIES_LBA = 72,
	GPT_ENTRY_SIZE = 84,
	GPT_ENTRY_FIRST = 32,
	GPT_ENTRY_LAST = 40,
};

static bool kernel_has(const char *node)
{
	const char *disk = strrchr(node, '/') + 1;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "/sys/block/%s/%sp1", disk, disk);
	return access(path, F_OK) == 0;
}

/* A kernel that does not read partition tables is told what stands in the first entry. */
static int tell_kernel(int fd, const unsigned char *header)
{
	struct blkpg_partition partition = { .pno = 1 };
	struct blkpg_ioctl_arg argument = { .op = BLKPG_ADD_PARTITION,
					    .datalen = sizeof(partition),
					    .data = &partition };
	uint64_t at = le64_get(header + GPT_ENTRIES_LBA), first, last;
	unsigned char entry[128];
	ssize_t n;

	if (at > INT64_MAX / GPT_SECTOR || le32_get(header + GPT_ENTRY_SIZE) < sizeof(entry))
		return -EINVAL;
	n = fd_pread(fd, entry, sizeof(entry), at * GPT_SECTOR);
	if (n != sizeof(entry))
		return n < 0 ? (int)n : -EINVAL;
	first = le64_get(entry + GPT_ENTRY_FIRST);
	last = le64_get(entry + GPT_ENTRY_LAST);
	if (!first || last < first || last >= INT64_MAX / GPT_SECTOR)
		return -EINVAL;
	partition.start = (long long)(first * GPT_SECTOR);
	partition.length = (long long)((last - first + 1) * GPT_SECTOR);
	return ioctl(fd, BLKPG, &argument) < 0 && errno != EBUSY ? -errno : 0;
}

static int wait_for_partition(int fd, const char *node, const unsigned char *header)
{
	const struct timespec pause = { .tv_nsec = 20000000 };

	for (int i = 0; i < WAIT_TRIES; i++) {
		if (kernel_has(node))
			return 0;
		if (i == 1)
			(void)ioctl(fd, BLKRRPART);
		nanosleep(&pause, NULL);
	}
	return tell_kernel(fd, header);
}

static int use(const char *name, unsigned partition, char ret[PATH_MAX], struct ploop_error *err)
{
	int r = node_path(name, partition, ret);

	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DEVICE, "%s", name) : 0;
}

int fs_partition(const char *name, const char *node, char ret[PATH_MAX], struct ploop_error *err)
{
	_close_ int fd = open(node, O_RDONLY | O_CLOEXEC);
	unsigned char head[GPT_LARGE_SECTOR + GPT_SECTOR] = { 0 };
	ssize_t n;
	int r;

	n = fd < 0 ? -errno : fd_pread(fd, head, sizeof(head), 0);
	if (n < 0)
		return error_sys(err, (int)n, PLOOP_EXIT_READ, "%s: cannot read the partition table", node);
	if (!memcmp(head + GPT_SECTOR, GPT_SIGNATURE, 8)) {
		r = wait_for_partition(fd, node, head + GPT_SECTOR);
		if (r == 0)
			r = node_partition(name, node, err);
		else
			error_sys(err, r, PLOOP_EXIT_MOUNT, "%s: the kernel does not see partition 1", node);
		return r < 0 ? r : use(name, 1, ret, err);
	}
	if (!memcmp(head + GPT_LARGE_SECTOR, GPT_SIGNATURE, 8))
		return error_set(
			err, -EOPNOTSUPP, PLOOP_EXIT_MOUNT,
			"%s: its partition table counts in sectors of 4096 bytes, which this ploop cannot serve yet",
			node);
	/* A partition table of another kind. */
	return use(name, head[510] == 0x55 && head[511] == 0xaa && kernel_has(node) ? 1 : 0, ret, err);
}
