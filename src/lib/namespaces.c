/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * namespaces.c - every namespace that a process shows is looked into, and mount points are reached through /proc/PID/root. One
 * that is hidden below another mount opens as that other: what was opened is compared with what was meant, by the number that
 * the kernel gives each mount.
 */
#include "lib/namespaces.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"

#define NAMESPACES_MAX 1024

struct search {
	const struct blockdev *device;
	ino_t seen[NAMESPACES_MAX];
	unsigned nseen;
	namespaces_fn fn;
	void *data;
};

static int look_into(struct search *search, const char *pid)
{
	struct mount_table table;
	int r = 0;

	if (mounts_read(pid, &table) < 0)
		return 0; /* it is gone */
	for (size_t i = 0; i < table.n && r == 0; i++)
		if (mounts_match(&table.entries[i], search->device))
			r = search->fn(search->data, pid, &table.entries[i]);
	mounts_clear(&table);
	return r;
}

static bool is_new(struct search *search, const char *pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/mnt", pid);
	if (stat(path, &st) < 0 || search->nseen == NAMESPACES_MAX)
		return false;
	for (unsigned i = 0; i < search->nseen; i++)
		if (search->seen[i] == st.st_ino)
			return false;
	search->seen[search->nseen++] = st.st_ino;
	return true;
}

int namespaces_mounts(const struct blockdev *device, namespaces_fn fn, void *data)
{
	struct search search = { .device = device, .fn = fn, .data = data };
	struct dirent *entry;
	DIR *dir;
	int r;

	if (!device->n)
		return 0;
	(void)is_new(&search, "self");
	r = look_into(&search, "self");
	dir = opendir("/proc");
	while (dir && r == 0 && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]) && is_new(&search, entry->d_name))
			r = look_into(&search, entry->d_name);
	if (dir)
		closedir(dir);
	return r;
}

int namespaces_open(const char *pid, const struct mount_entry *entry)
{
	_close_ int fd = -EBADF;
	char path[PATH_MAX];
	struct statx st;

	if (snprintf(path, sizeof(path), "/proc/%s/root%s", pid, entry->target) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH, STATX_MNT_ID, &st) < 0)
		return -ESTALE;
	if (st.stx_mask & STATX_MNT_ID)
		return st.stx_mnt_id == entry->id ? take_fd(&fd) : -ESTALE;
	/* Kernels before 5.8. btrfs has numbers of its own for what is in it. */
	if (major(entry->number) && makedev(st.stx_dev_major, st.stx_dev_minor) != entry->number)
		return -ESTALE;
	return take_fd(&fd);
}
