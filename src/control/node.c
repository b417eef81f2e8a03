/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* node.c - symlinks in /dev. */
#include "control/node.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/rundir.h"

int node_path(const char *name, unsigned partition, char ret[PATH_MAX])
{
	int n;

	if (partition)
		n = snprintf(ret, PATH_MAX, "%s/%sp%u", rundir_dev(), name, partition);
	else
		n = snprintf(ret, PATH_MAX, "%s/%s", rundir_dev(), name);
	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* A loop device that a symlink of ours points to, but that has no file any more, means nothing. */
static bool is_stale(const char *link)
{
	char target[PATH_MAX], path[PATH_MAX + 64];
	ssize_t n = readlink(link, target, sizeof(target) - 1);
	const char *base;

	if (n < 0)
		return false;
	target[n] = '\0';
	base = strrchr(target, '/');
	base = base ? base + 1 : target;
	if (strncmp(base, "loop", 4))
		return access(link, F_OK) < 0;
	snprintf(path, sizeof(path), "/sys/block/%s/loop", base);
	return access(path, F_OK) < 0;
}

int node_check(const char *name, struct ploop_error *err)
{
	char path[PATH_MAX];
	struct stat st;
	int r;

	r = node_path(name, 0, path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DEVICE, "%s", rundir_dev());
	if (lstat(path, &st) < 0)
		return errno == ENOENT ? 0 : error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s", path);
	if (S_ISLNK(st.st_mode) && is_stale(path))
		return 0;
	return error_set(err, -EEXIST, PLOOP_EXIT_DEVICE, "%s exists and is not ours; name another device with -d",
			 path);
}

/* A partition may have a node of our own already, made by who saw it in sysfs before the kernel had made its own. */
static int make_link(const char *path, const char *target, bool partition, struct ploop_error *err)
{
	char temporary[PATH_MAX + 32];
	struct stat st;

	if (symlink(target, path) == 0)
		return 0;
	if (errno != EEXIST)
		return error_sys(err, -errno, PLOOP_EXIT_MKNOD, "%s", path);
	if (lstat(path, &st) < 0 || !(S_ISLNK(st.st_mode) || (partition && S_ISBLK(st.st_mode))))
		return error_set(err, -EEXIST, PLOOP_EXIT_MKNOD, "%s exists and is not a symlink; remove it", path);
	snprintf(temporary, sizeof(temporary), "%s.new-%d", path, (int)getpid());
	if (symlink(target, temporary) < 0 || rename(temporary, path) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_MKNOD, "%s", path);
	return 0;
}

/* The kernel's number of a partition, from sysfs: no access to the device, which we may be serving ourselves. */
static bool partition_number(const char *node, unsigned partition, dev_t *ret)
{
	const char *disk = strrchr(node, '/') + 1;
	char path[PATH_MAX];
	_free_ char *text = NULL;
	unsigned major, minor;
	size_t len;

	snprintf(path, sizeof(path), "/sys/block/%s/%sp%u/dev", disk, disk, partition);
	if (fd_read_file(-1, path, 64, &text, &len) < 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
		return false;
	*ret = makedev(major, minor);
	return true;
}

static void remove_ours(const char *path, bool partition)
{
	struct stat st;

	if (lstat(path, &st) == 0 && (S_ISLNK(st.st_mode) || (partition && S_ISBLK(st.st_mode))))
		unlink(path);
}

static int sync_partition(const char *name, const char *node, unsigned partition, struct ploop_error *err)
{
	char path[PATH_MAX], target[PATH_MAX];
	dev_t number;
	int r;

	r = node_path(name, partition, path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKNOD, "%s", rundir_dev());
	if (!partition_number(node, partition, &number)) {
		remove_ours(path, true);
		return 0;
	}
	snprintf(target, sizeof(target), "%sp%u", node, partition);
	if (access(target, F_OK) == 0)
		return make_link(path, target, true, err);
	remove_ours(path, true);
	if (mknod(path, S_IFBLK | 0600, number) < 0 && errno != EEXIST)
		return error_sys(err, -errno, PLOOP_EXIT_MKNOD, "%s", path);
	return 0;
}

int node_sync(const char *name, const char *node, struct ploop_error *err)
{
	int r = 0;

	for (unsigned i = 1; i <= NODE_PARTITIONS && r == 0; i++)
		r = sync_partition(name, node, i, err);
	return r;
}

int node_make(const char *name, const char *node, struct ploop_error *err)
{
	char path[PATH_MAX];
	int r;

	r = node_check(name, err);
	if (r < 0)
		return r;
	r = node_path(name, 0, path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKNOD, "%s", rundir_dev());
	r = make_link(path, node, false, err);
	return r < 0 ? r : node_sync(name, node, err);
}

void node_remove(const char *name)
{
	char path[PATH_MAX];

	for (unsigned i = NODE_PARTITIONS + 1; i-- > 0;)
		if (node_path(name, i, path) == 0)
			remove_ours(path, i != 0);
}
