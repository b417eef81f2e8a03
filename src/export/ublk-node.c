/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ublk-node.c - see ublk-node.h. */
#include "export/ublk-node.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

#define NUMBERS 64

/* The device and its partitions. */
struct numbers {
	dev_t number[NUMBERS];
	unsigned n;
};

void ublk_node_name(uint32_t id, char ret[UBLK_NODE])
{
	snprintf(ret, UBLK_NODE, "/dev/ublkb%u", id);
}

void ublk_unschedule(uint32_t id)
{
	_close_ int fd = -EBADF;
	char path[96];

	snprintf(path, sizeof(path), "/sys/block/ublkb%u/queue/scheduler", id);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)fd_write(fd, "none", 4); /* if not, it works as well */
}

static int read_number(const char *path, dev_t *ret)
{
	_free_ char *text = NULL;
	unsigned major, minor;
	int r = fd_read_file(AT_FDCWD, path, 64, &text, NULL);

	if (r < 0)
		return r;
	if (sscanf(text, "%u:%u", &major, &minor) != 2)
		return -EINVAL;
	*ret = makedev(major, minor);
	return 0;
}

/* Where no devtmpfs and no udev make the node, we do. */
static int open_node(const char *node, const char *sysfs, mode_t type, int flags)
{
	int fd = open(node, flags | O_CLOEXEC);
	dev_t number;

	if (fd < 0 && errno == ENOENT && !read_number(sysfs, &number) && !mknod(node, type | 0600, number))
		fd = open(node, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

int ublk_open_channel(uint32_t id)
{
	char node[UBLK_NODE], sysfs[96];

	snprintf(node, sizeof(node), "/dev/ublkc%u", id);
	snprintf(sysfs, sizeof(sysfs), "/sys/class/ublk-char/ublkc%u/dev", id);
	return open_node(node, sysfs, S_IFCHR, O_RDWR);
}

static void find_numbers(uint32_t id, struct numbers *ret)
{
	char disk[UBLK_NODE], path[384];
	struct dirent *entry;
	DIR *dir;

	ret->n = 0;
	snprintf(disk, sizeof(disk), "ublkb%u", id);
	snprintf(path, sizeof(path), "/sys/block/%s/dev", disk);
	ret->n += !read_number(path, &ret->number[ret->n]);
	snprintf(path, sizeof(path), "/sys/block/%s", disk);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && ret->n < NUMBERS) {
		if (strncmp(entry->d_name, disk, strlen(disk)))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/%s/dev", disk, entry->d_name);
		ret->n += !read_number(path, &ret->number[ret->n]);
	}
	if (dir)
		closedir(dir);
}

static bool is_one_of(const struct numbers *numbers, int dir, const char *name)
{
	struct stat st;

	if (fstatat(dir, name, &st, 0) || !S_ISBLK(st.st_mode))
		return false;
	for (unsigned i = 0; i < numbers->n; i++)
		if (st.st_rdev == numbers->number[i])
			return true;
	return false;
}

static bool process_has(const char *pid, const struct numbers *numbers)
{
	struct dirent *entry;
	bool found = false;
	char path[300];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !found && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			found = is_one_of(numbers, dirfd(dir), entry->d_name);
	if (dir)
		closedir(dir);
	return found;
}

static bool is_open_somewhere(uint32_t id)
{
	struct numbers numbers;
	struct dirent *entry;
	bool found = false;
	DIR *dir;

	find_numbers(id, &numbers);
	dir = opendir("/proc");
	while (dir && !found && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			found = process_has(entry->d_name, &numbers);
	if (dir)
		closedir(dir);
	return found;
}

int ublk_claim(uint32_t id)
{
	char node[UBLK_NODE], sysfs[96];
	_close_ int fd = -EBADF;

	/* Before our own descriptor is one of those that are found. */
	if (is_open_somewhere(id))
		return -EBUSY;
	ublk_node_name(id, node);
	snprintf(sysfs, sizeof(sysfs), "/sys/block/ublkb%u/dev", id);
	fd = open_node(node, sysfs, S_IFBLK, O_RDONLY | O_EXCL);
	if (fd < 0)
		return fd == -ENXIO || fd == -ENOENT ? -ENODEV : fd;
	/* What cannot be written was told to who wrote it, or is by the engine. */
	(void)fsync(fd);
	return take_fd(&fd);
}
