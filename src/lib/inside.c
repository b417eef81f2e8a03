/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * inside.c - see inside.h. What is begun for the time ends with this process, however it ends: the mount is an open file of
 * ours, and the ploopd one that nobody has told to stay.
 */
#include "lib/inside.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/node.h"
#include "lib/fs.h"
#include "lib/mount.h"
#include "lib/namespaces.h"

#define SYSFS_SECTOR 512u

/* A number from sysfs about a block device; 0 when there is none, as for what is no partition. */
static uint64_t sysfs_number(dev_t device, const char *what)
{
	_free_ char *text = NULL;
	char path[PATH_MAX];
	size_t len;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/%s", major(device), minor(device), what);
	return fd_read_file(-1, path, 64, &text, &len) < 0 ? 0 : strtoull(text, NULL, 10);
}

static int not_mounted(struct ploop_error *err)
{
	return error_set(err, -ENODEV, PLOOP_EXIT_PARAM, "The image is not mounted");
}

int inside_find(const struct ploop_which *which, struct inside *ret, struct ploop_error *err)
{
	struct ploop_which one = *which;
	int r;

	if (one.device) /* a mount point beside it says where on it */
		one.target = NULL;
	*ret = (struct inside)INSIDE_NONE;
	r = device_find(&one, &ret->entry, err);
	if (r == -ENODEV && !one.device && !one.target)
		return not_mounted(err);
	if (r < 0)
		return r;
	if (ret->entry.device.alive)
		return 0;
	r = error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`",
		      ret->entry.device.device, ret->entry.device.device);
	ploop_device_clear(&ret->entry.device);
	return r;
}

/* A device that lives as long as we want it. */
static int start(const struct ploop_which *which, struct inside *ret, struct ploop_error *err)
{
	struct ploop_mount mount = { .operands = &which->image, .noperands = 1, .component = which->component };
	struct device_state state = { 0 };
	int r;

	*ret = (struct inside)INSIDE_NONE;
	r = mount_start(&mount, &state, &ret->connection, err);
	if (r == 0)
		r = fs_partitions(state.name, state.node, err);
	if (r == 0)
		r = device_entry_load(state.name, &ret->entry, err);
	state_clear(&state);
	return r;
}

/* The block device that is mounted at `target`. */
static int find_target(const struct inside *inside, const char *target, char ret[PATH_MAX], struct ploop_error *err)
{
	struct blockdev device;
	struct stat st;
	int r;

	if (stat(target, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_PARAM, "%s", target);
	device_blockdev(&inside->entry, &device);
	if (!blockdev_has(&device, st.st_dev))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is not mounted at %s", inside->entry.device.device,
				 target);
	r = node_path(inside->entry.device.name, (unsigned)sysfs_number(st.st_dev, "partition"), ret);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_SYS, "%s", target) : 0;
}

struct found {
	dev_t number;
	char type[FS_TYPE];
};

static int take_type(void *data, const char *pid, const struct mount_entry *entry)
{
	struct found *found = data;

	(void)pid;
	if (entry->number != found->number)
		return 0;
	snprintf(found->type, sizeof(found->type), "%s", entry->type);
	return 1;
}

static int open_root(struct inside *inside, enum inside_how how, struct ploop_error *err)
{
	const struct ploop_device *device = &inside->entry.device;
	struct found found = { 0 };
	struct blockdev blockdev;
	struct statvfs fs;
	struct stat st;
	int r;

	if (stat(inside->path, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s", inside->path);
	found.number = st.st_rdev;
	inside->start = sysfs_number(found.number, "start") * SYSFS_SECTOR;
	inside->end = inside->start + sysfs_number(found.number, "size") * SYSFS_SECTOR;
	device_blockdev(&inside->entry, &blockdev);
	r = namespaces_mounts(&blockdev, take_type, &found);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s: cannot find its mount points", device->device);
	if (r == 0 && how == INSIDE_MAYBE)
		return 0;
	if (r == 0 && how == INSIDE_MOUNTED && inside->connection < 0)
		return error_set(err, -ENODEV, PLOOP_EXIT_PARAM,
				 "The file system on %s is not mounted; --automount mounts it for the time",
				 device->device);
	r = fs_open_root(inside->path, *found.type ? found.type : NULL, &inside->root, err);
	if (r == 0)
		inside->read_only = fstatvfs(inside->root, &fs) == 0 && (fs.f_flag & ST_RDONLY);
	return r;
}

int inside_open(const struct ploop_which *which, enum inside_how how, struct inside *ret, struct ploop_error *err)
{
	struct inside inside;
	struct ploop_error other;
	int r = inside_find(which, &inside, err);

	if (r == -ENODEV && how == INSIDE_AUTOMOUNT && which->image && !which->device && !which->target)
		r = start(which, &inside, err);
	if (r == 0 && which->target)
		r = find_target(&inside, which->target, inside.path, err);
	else if (r == 0)
		r = fs_find(inside.entry.device.name, inside.entry.device.node, inside.path, err);
	if (r == 0)
		r = open_root(&inside, how, err);
	if (r < 0) {
		(void)inside_close(&inside, &other);
		return r;
	}
	*ret = inside;
	return 0;
}

int inside_close(struct inside *inside, struct ploop_error *err)
{
	int r = 0;

	cleanup_close(&inside->root);
	if (inside->connection >= 0 && inside->entry.device.name) {
		struct ploop_which which = { .device = inside->entry.device.device };

		r = ploop_umount(&which, err);
	}
	cleanup_close(&inside->connection);
	ploop_device_clear(&inside->entry.device);
	*inside = (struct inside)INSIDE_NONE;
	return r;
}
