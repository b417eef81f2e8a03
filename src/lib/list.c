/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list.c - the devices there are, and the one that is meant. Read from run directories: no daemon is asked, so none can hang us. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/message.h"
#include "control/node.h"
#include "control/rundir.h"
#include "control/state.h"
#include "image/descriptor.h"
#include "lib/device-find.h"

void ploop_device_clear(struct ploop_device *device)
{
	free(device->name);
	free(device->device);
	free(device->failure);
	free(device->node);
	free(device->front_end);
	free(device->descriptor);
	free(device->snapshot);
	free(device->component);
	message_texts_free(device->images, device->nimages);
	message_texts_free(device->mounts, device->nmounts);
	*device = (struct ploop_device){ 0 };
}

void device_blockdev(const struct device_entry *entry, struct blockdev *ret)
{
	*ret = (struct blockdev){ .n = 0 };
	if (entry->device.node)
		blockdev_look(entry->device.node, entry->diskseq, ret);
}

/* The mount points of the device, in the order they were mounted. */
static int fill_mounts(struct device_entry *entry)
{
	struct ploop_device *device = &entry->device;
	struct blockdev blockdev;
	struct mount_table table;
	int r;

	device_blockdev(entry, &blockdev);
	if (!blockdev.n)
		return 0;
	r = mounts_read("self", &table);
	if (r < 0)
		return r;
	device->mounts = calloc(table.n + 1, sizeof(*device->mounts));
	for (size_t i = 0; device->mounts && i < table.n; i++)
		if (mounts_match(&table.entries[i], &blockdev))
			device->mounts[device->nmounts++] = take_ptr(table.entries[i].target);
	mounts_clear(&table);
	return device->mounts ? 0 : -ENOMEM;
}

/* Takes the texts over. */
static void take_state(struct device_state *state, struct device_entry *entry)
{
	struct ploop_device *device = &entry->device;

	device->node = take_ptr(state->node);
	device->front_end = take_ptr(state->front_end);
	device->images = take_ptr(state->images);
	device->nimages = state->nimages;
	state->nimages = 0;
	device->descriptor = take_ptr(state->descriptor);
	device->snapshot = take_ptr(state->snapshot);
	device->component = take_ptr(state->component);
	device->read_only = state->read_only;
	device->size = state->size;
	device->cluster = state->cluster;
	entry->diskseq = state->diskseq;
	state_clear(state);
}

/* What the keeper wrote when it gave up. */
static char *read_failure(const char *name)
{
	char path[PATH_MAX], *text;

	if (rundir_path(name, "failed", path) < 0 || fd_read_file(-1, path, 256, &text, NULL) < 0)
		return NULL;
	text[strcspn(text, "\n")] = '\0';
	return text;
}

int device_entry_load(const char *name, struct device_entry *ret, struct ploop_error *err)
{
	struct device_entry entry = { 0 };
	struct device_state state;
	char path[PATH_MAX];
	struct stat st;
	int r;

	r = rundir_path(name, "", path);
	if (r < 0 || stat(path, &st) < 0)
		return error_set(err, -ENOENT, PLOOP_EXIT_DEVICE, "there is no device %s/%s; see `ploop list`",
				 rundir_dev(), name);
	r = state_load(name, &state, err);
	if (r == -EACCES)
		return error_set(err, r, PLOOP_EXIT_OPEN, "%s: permission denied; devices need root", path);
	if (r < 0 && r != -ENOENT && r != -EPROTO)
		return r;
	if (r == 0)
		take_state(&state, &entry);
	entry.device.pid = rundir_pid(name);
	entry.device.engine = rundir_engine(name);
	entry.device.alive = entry.device.pid != 0;
	if (!entry.device.alive)
		entry.device.failure = read_failure(name);
	entry.device.name = strdup(name);
	r = node_path(name, 0, path);
	if (r == 0)
		entry.device.device = strdup(path);
	r = entry.device.name && entry.device.device ? fill_mounts(&entry) : -ENOMEM;
	if (r < 0) {
		ploop_device_clear(&entry.device);
		return error_sys(err, r, PLOOP_EXIT_SYS, "%s", name);
	}
	*ret = entry;
	return 0;
}

int ploop_list(struct ploop_device **ret, size_t *ret_n, struct ploop_error *err)
{
	_free_ char(*names)[RUNDIR_NAME] = NULL;
	struct ploop_device *devices;
	size_t n, used = 0;
	int r;

	r = rundir_list(&names, &n, err);
	if (r < 0)
		return r;
	devices = calloc(n + 1, sizeof(*devices));
	if (!devices)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "list");
	for (size_t i = 0; i < n; i++) {
		struct device_entry entry;

		r = device_entry_load(names[i], &entry, err);
		if (r == -ENOENT)
			continue; /* gone meanwhile */
		if (r < 0) {
			ploop_list_free(devices, used);
			return r;
		}
		if (entry.device.alive && !entry.device.node)
			ploop_device_clear(&entry.device); /* still being opened */
		else
			devices[used++] = entry.device;
	}
	*ret = devices;
	*ret_n = used;
	return 0;
}

void ploop_list_free(struct ploop_device *devices, size_t n)
{
	for (size_t i = 0; devices && i < n; i++)
		ploop_device_clear(&devices[i]);
	free(devices);
}

static bool same_file(const char *path, const struct stat *st)
{
	struct stat other;

	return path && stat(path, &other) == 0 && other.st_dev == st->st_dev && other.st_ino == st->st_ino;
}

bool device_has_image(const struct ploop_device *device, const char *image)
{
	_free_ char *descriptor = NULL;
	struct stat st;

	if (descriptor_find_file(image, &descriptor, NULL) > 0)
		image = descriptor;
	if (stat(image, &st) < 0)
		return false;
	if (same_file(device->descriptor, &st))
		return true;
	for (size_t i = 0; i < device->nimages; i++)
		if (same_file(device->images[i], &st))
			return true;
	return false;
}

static bool has_target(const struct ploop_device *device, const char *target)
{
	for (size_t i = 0; i < device->nmounts; i++)
		if (!strcmp(device->mounts[i], target))
			return true;
	return false;
}

static bool same_component(const struct ploop_device *device, const char *component)
{
	if (!component || !device->component)
		return !component && !device->component;
	return !strcmp(component, device->component);
}

static int not_found(const struct ploop_which *which, struct ploop_error *err)
{
	_free_ char *descriptor = NULL;

	if (which->target)
		return error_set(err, -ENODEV, PLOOP_EXIT_PARAM, "Unable to find ploop device by %s; see `ploop list`",
				 which->target);
	return error_set(err, -ENODEV,
			 descriptor_find_file(which->image, &descriptor, NULL) > 0 ? PLOOP_EXIT_NOT_MOUNTED
										   : PLOOP_EXIT_PARAM,
			 "Image %s is not mounted%s%s", which->image, which->component ? " as component " : "",
			 which->component ? which->component : "");
}

/* Goes through all devices; two that fit are one too many. */
static int search(const struct ploop_which *which, const char *target, struct device_entry *ret,
		  struct ploop_error *err)
{
	_free_ char(*names)[RUNDIR_NAME] = NULL;
	struct device_entry match = { 0 };
	size_t n;
	int r;

	r = rundir_list(&names, &n, err);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct device_entry entry;
		bool fits;

		r = device_entry_load(names[i], &entry, err);
		if (r == -ENOENT) {
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		fits = target ? has_target(&entry.device, target)
			      : same_component(&entry.device, which->component) &&
					device_has_image(&entry.device, which->image);
		if (fits && match.device.name)
			r = error_set(err, -ENOTUNIQ, PLOOP_EXIT_PARAM, "%s is used by %s and %s; name one with -d",
				      target ? target : which->image, match.device.device, entry.device.device);
		if (fits && !match.device.name)
			match = entry;
		else
			ploop_device_clear(&entry.device);
	}
	if (r == 0 && !match.device.name)
		r = not_found(which, err);
	if (r < 0) {
		ploop_device_clear(&match.device);
		return r;
	}
	*ret = match;
	return 0;
}

int device_find(const struct ploop_which *which, struct device_entry *ret, struct ploop_error *err)
{
	char name[RUNDIR_NAME], target[PATH_MAX];
	int r;

	if (which->device) {
		if (rundir_name_of(which->device, name) < 0)
			return error_set(err, -ENODEV, PLOOP_EXIT_PARAM,
					 "%s is not the name of a ploop device; use /dev/ploopN", which->device);
		r = device_entry_load(name, ret, err);
		return r == -ENOENT ? -ENODEV : r;
	}
	if (which->target) {
		/* A file system whose device is dead may not even tell what its root is. */
		if (!realpath(which->target, target))
			snprintf(target, sizeof(target), "%s", which->target);
		return search(which, target, ret, err);
	}
	if (which->image)
		return search(which, NULL, ret, err);
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "name a device, a mount point, a descriptor or an image");
}

int ploop_find(const struct ploop_which *which, struct ploop_device *ret, struct ploop_error *err)
{
	struct device_entry entry;
	int r;

	r = device_find(which, &entry, err);
	if (r == 0)
		*ret = entry.device;
	return r;
}

int ploop_next_number(unsigned *ret, struct ploop_error *err)
{
	char name[RUNDIR_NAME];
	int r;

	r = rundir_next(name, err);
	if (r == 0)
		*ret = rundir_number(name);
	return r;
}
