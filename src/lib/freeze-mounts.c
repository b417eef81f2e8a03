/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * freeze-mounts.c - a file system may be mounted in the namespace of a container and nowhere else. Every namespace that a
 * process shows is looked into, our own first, and mount points are reached through /proc/PID/root. One that is hidden
 * below another mount opens as that other: what was opened is compared with what was meant.
 */
#include "lib/freeze-mounts.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "lib/blockdev.h"

#define NAMESPACES_MAX 1024

struct search {
	struct blockdev device;
	dev_t except;
	ino_t namespaces[NAMESPACES_MAX]; /* seen already */
	unsigned nnamespaces;
	bool hidden; /* one could not be reached */
	struct open_mounts *found;
};

void open_mounts_clear(struct open_mounts *mounts)
{
	for (unsigned i = 0; i < mounts->n; i++)
		close(mounts->fds[i]);
	free(mounts->fds);
	free(mounts->numbers);
	*mounts = (struct open_mounts){ .n = 0 };
}

static bool known(const struct open_mounts *mounts, dev_t number)
{
	for (unsigned i = 0; i < mounts->n; i++)
		if (mounts->numbers[i] == number)
			return true;
	return false;
}

static int keep(struct open_mounts *mounts, int fd, dev_t number)
{
	int *fds = reallocarray(mounts->fds, mounts->n + 1, sizeof(*fds));
	dev_t *numbers;

	if (!fds)
		return -ENOMEM;
	mounts->fds = fds;
	numbers = reallocarray(mounts->numbers, mounts->n + 1, sizeof(*numbers));
	if (!numbers)
		return -ENOMEM;
	mounts->numbers = numbers;
	fds[mounts->n] = fd;
	numbers[mounts->n++] = number;
	return 0;
}

static int add(struct search *search, const char *pid, const struct mount_entry *entry)
{
	_close_ int fd = -EBADF;
	char path[PATH_MAX];
	struct stat st;
	int r;

	if (known(search->found, entry->number))
		return 0;
	if (snprintf(path, sizeof(path), "/proc/%s/root%s", pid, entry->target) >= (int)sizeof(path))
		return 0;
	fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	/* btrfs has numbers of its own for what is in it. */
	if (fd < 0 || fstat(fd, &st) < 0 || (major(entry->number) && st.st_dev != entry->number)) {
		search->hidden = true;
		return 0;
	}
	if (st.st_dev == search->except) {
		log_warning("%s holds the image itself: its file system is not frozen", entry->target);
		return 0;
	}
	r = keep(search->found, fd, entry->number);
	if (r == 0)
		(void)take_fd(&fd);
	return r;
}

static int look_into(struct search *search, const char *pid)
{
	struct mount_table table;
	int r = 0;

	if (mounts_read(pid, &table) < 0)
		return 0; /* it is gone */
	for (size_t i = 0; i < table.n && r == 0; i++)
		if (mounts_match(&table.entries[i], &search->device))
			r = add(search, pid, &table.entries[i]);
	mounts_clear(&table);
	return r;
}

static bool is_new_namespace(struct search *search, const char *pid)
{
	char path[64];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%.16s/ns/mnt", pid);
	if (stat(path, &st) < 0 || search->nnamespaces == NAMESPACES_MAX)
		return false;
	for (unsigned i = 0; i < search->nnamespaces; i++)
		if (search->namespaces[i] == st.st_ino)
			return false;
	search->namespaces[search->nnamespaces++] = st.st_ino;
	return true;
}

static int look_everywhere(struct search *search)
{
	struct dirent *entry;
	DIR *dir;
	int r;

	(void)is_new_namespace(search, "self");
	r = look_into(search, "self");
	dir = opendir("/proc");
	while (dir && r == 0 && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]) && is_new_namespace(search, entry->d_name))
			r = look_into(search, entry->d_name);
	if (dir)
		closedir(dir);
	return r;
}

int open_mounts_find(const char *node, dev_t except, struct open_mounts *ret)
{
	struct search search = { .except = except, .found = ret };
	int r;

	*ret = (struct open_mounts){ .n = 0 };
	blockdev_look(node, 0, &search.device);
	r = search.device.n ? look_everywhere(&search) : 0;
	if (r == 0 && search.hidden && !ret->n)
		log_warning("%s is mounted where it cannot be reached: its file system is not frozen", node);
	if (r < 0)
		open_mounts_clear(ret);
	return r;
}
