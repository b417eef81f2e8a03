/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* freeze-mounts.c - one open mount point for each file system of a device. */
#include "lib/freeze-mounts.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "lib/namespaces.h"

struct search {
	dev_t except;
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

static int add(void *data, const char *pid, const struct mount_entry *entry)
{
	struct search *search = data;
	_close_ int fd = -EBADF;
	struct stat st;
	int r;

	if (known(search->found, entry->number))
		return 0;
	fd = namespaces_open(pid, entry);
	if (fd < 0 || fstat(fd, &st) < 0) {
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

int open_mounts_find(const char *node, dev_t except, struct open_mounts *ret)
{
	struct search search = { .except = except, .found = ret };
	struct blockdev device;
	int r;

	*ret = (struct open_mounts){ .n = 0 };
	blockdev_look(node, 0, &device);
	r = namespaces_mounts(&device, add, &search);
	if (r == 0 && search.hidden && !ret->n)
		log_warning("%s is mounted where it cannot be reached: its file system is not frozen", node);
	if (r < 0)
		open_mounts_clear(ret);
	return r;
}
