/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * resize-disk.c - see resize-disk.h. The table is read and written past the page cache: what it holds of the device may be as
 * old as the first who opened it.
 */
#include "lib/resize-disk.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/blkpg.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/node.h"
#include "lib/fs.h"
#include "lib/fs-grow.h"

static int node_read(void *data, void *buffer, size_t len, uint64_t offset)
{
	struct resize_disk *disk = data;
	ssize_t n;

	if (disk->files)
		return ploop_disk_read(disk->files, buffer, len, offset, NULL);
	n = fd_pread(disk->fd, buffer, len, offset);

	if (n < 0)
		return (int)n;
	return (size_t)n < len ? -EIO : 0;
}

static int node_write(void *data, const void *buffer, size_t len, uint64_t offset)
{
	return fd_pwrite(((struct resize_disk *)data)->fd, buffer, len, offset);
}

static int node_sync_data(void *data)
{
	return fsync(((struct resize_disk *)data)->fd) < 0 ? -errno : 0;
}

static struct table_disk table_disk(struct resize_disk *disk)
{
	return (struct table_disk){
		.read = node_read,
		.write = node_write,
		.sync = node_sync_data,
		.data = disk,
		.size = disk->size,
		.name = disk->name,
	};
}

static int look_at_table(struct resize_disk *disk, struct ploop_error *err)
{
	const struct table_disk at = table_disk(disk);
	int r;

	table_clear(&disk->table);
	r = table_read(&at, &disk->table, err);
	disk->has_table = r == 0;
	disk->start = 0;
	disk->end = disk->size;
	if (r < 0)
		return r == -ENODATA ? 0 : r;
	if (!disk->table.last.number || disk->table.last.number > NODE_PARTITIONS)
		return error_set(err, -EMEDIUMTYPE, PLOOP_EXIT_CHANGE_GPT,
				 "%s: its partition table holds %s; `ploop grow` makes the disk larger, parted its partitions",
				 disk->name, disk->table.last.number ? "more partitions than can be told apart" : "no partition");
	disk->start = disk->table.last.start;
	disk->end = disk->start + disk->table.last.size;
	return 0;
}

static int check_shape(const struct resize_disk *disk, struct ploop_error *err)
{
	if (disk->fs.kind == FS_UNKNOWN || fs_shape_size(&disk->fs) <= disk->end - disk->start)
		return 0;
	return error_set(err, -EUCLEAN, PLOOP_EXIT_RESIZE_FS,
			 "%s: its %s is larger than the place it lies in, and is left alone", disk->name, disk->fs.type);
}

int resize_disk_look(struct resize_disk *disk, struct ploop_error *err)
{
	int r;

	if (ioctl(disk->fd, BLKGETSIZE64, &disk->size) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s", disk->name);
	r = look_at_table(disk, err);
	if (r == 0)
		r = fs_partitions(disk->name, disk->node, err);
	if (r < 0)
		return r;
	r = node_path(disk->name, disk->has_table ? disk->table.last.number : 0, disk->partition);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s", disk->name);
	r = fs_shape_look(disk->partition, disk->root, &disk->fs, err);
	return r < 0 ? r : check_shape(disk, err);
}

int resize_disk_peek(const char *path, struct resize_disk *ret, struct ploop_error *err)
{
	const struct ploop_files files = { .paths = &path, .npaths = 1, .outside = true };
	uint8_t head[FS_SHAPE_HEAD];
	int r = ploop_disk_open(&files, &ret->files, err);

	if (r < 0)
		return r;
	snprintf(ret->name, sizeof(ret->name), "%s", path);
	ret->size = ploop_disk_size(ret->files);
	ret->cluster = ploop_disk_cluster(ret->files);
	r = look_at_table(ret, err);
	if (r == 0 && ret->end - ret->start >= sizeof(head)) {
		r = ploop_disk_read(ret->files, head, sizeof(head), ret->start, err);
		if (r == 0)
			fs_shape_parse(head, &ret->fs);
	}
	return r < 0 ? r : check_shape(ret, err);
}

int resize_disk_open(const char *name, const char *node, uint32_t cluster, struct resize_disk *ret, struct ploop_error *err)
{
	snprintf(ret->name, sizeof(ret->name), "%s", name);
	snprintf(ret->node, sizeof(ret->node), "%s", node);
	ret->cluster = cluster;
	ret->fd = open(node, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (ret->fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s: Can't open %s", name, node);
	return resize_disk_look(ret, err);
}

void resize_disk_close(struct resize_disk *disk)
{
	table_clear(&disk->table);
	ploop_disk_close(disk->files);
	cleanup_close(&disk->root);
	cleanup_close(&disk->fd);
	*disk = (struct resize_disk)RESIZE_DISK_NONE;
}

uint64_t resize_disk_room(const struct resize_disk *disk, uint64_t size)
{
	uint64_t end = disk->has_table ? table_partition_end(size, disk->cluster) : size;

	return end > disk->start ? end - disk->start : 0;
}

uint64_t resize_disk_for(const struct resize_disk *disk, uint64_t bytes)
{
	uint64_t end = round_up(disk->start + bytes, disk->cluster);

	return disk->has_table ? end + disk->cluster : end;
}

static int tell_kernel(const struct resize_disk *disk)
{
	struct blkpg_partition partition = {
		.pno = (int)disk->table.last.number,
		.start = (long long)disk->table.last.start,
		.length = (long long)disk->table.last.size,
	};
	struct blkpg_ioctl_arg argument = { .op = BLKPG_RESIZE_PARTITION,
					    .datalen = sizeof(partition),
					    .data = &partition };

	return ioctl(disk->fd, BLKPG, &argument) < 0 ? -errno : 0;
}

int resize_disk_partition(struct resize_disk *disk, uint64_t size, uint64_t table, struct ploop_error *err)
{
	const struct table_disk at = table_disk(disk);
	uint64_t end = table_partition_end(size, disk->cluster);
	int r;

	if (!disk->has_table)
		return 0;
	if (end != disk->end || disk->table.sectors != table / TABLE_SECTOR || disk->table.damaged) {
		r = table_fit(&disk->table, table, end, err);
		if (r == 0)
			r = table_write(&disk->table, &at, err);
		if (r < 0)
			return r;
	}
	/* Also when it was written before: by whoever was interrupted then. */
	r = tell_kernel(disk);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_CHANGE_GPT, "%s: the kernel does not take the new size of partition %u",
				 disk->name, disk->table.last.number);
	return resize_disk_look(disk, err);
}

int resize_disk_open_fs(struct resize_disk *disk, struct ploop_error *err)
{
	struct statvfs fs;
	int r;

	if (disk->root >= 0)
		return 0;
	r = fs_open_root(disk->partition, disk->fs.type, &disk->root, err);
	if (r < 0)
		return r;
	if (fstatvfs(disk->root, &fs) == 0 && fs.f_flag & ST_RDONLY)
		return error_set(err, -EROFS, PLOOP_EXIT_RESIZE_FS,
				 "%s: its file system is mounted read-only, and grows only when it is not",
				 disk->partition);
	return fs_shape_look(disk->partition, disk->root, &disk->fs, err);
}

int resize_disk_grow_fs(struct resize_disk *disk, uint64_t bytes, struct ploop_error *err)
{
	int r = resize_disk_open_fs(disk, err);

	if (r < 0 || bytes / disk->fs.block <= disk->fs.blocks)
		return r;
	return fs_grow(disk->root, disk->partition, &disk->fs, bytes, &disk->fs, err);
}
