/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* gc-devices.c - what daemons left that died, and what nobody could clear since: a run directory lost with /run, say. */
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/error.h"
#include "control/node.h"
#include "control/rundir.h"
#include "lib/gc.h"

/* The device and what is mounted of it, where every access fails by now: these go together. */
static int dead_device(struct leftovers *list, const struct ploop_device *device, bool remove)
{
	size_t first = list->n;
	bool good = leftovers_add(list, PLOOP_LEFTOVER_DEVICE, device->device);

	for (size_t i = 0; i < device->nmounts && good; i++)
		good = leftovers_add(list, PLOOP_LEFTOVER_MOUNT, device->mounts[i]);
	if (!good)
		return -ENOMEM;
	if (!remove || ploop_clear(device->device, &list->items[first].error) < 0)
		return 0;
	for (size_t i = first; i < list->n; i++)
		list->items[i].removed = true;
	return 0;
}

static int dead_devices(struct leftovers *list, bool remove, struct ploop_error *err)
{
	struct ploop_device *devices;
	size_t n;
	int r = ploop_list(&devices, &n, err);

	if (r < 0)
		return r;
	for (size_t i = 0; i < n && r == 0; i++)
		if (!devices[i].alive)
			r = dead_device(list, &devices[i], remove);
	ploop_list_free(devices, n);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_MALLOC, "gc") : 0;
}

/* A symlink called as ours are, for which there is no run directory. */
static bool is_stale(const char *entry, char name[RUNDIR_NAME], char path[PATH_MAX])
{
	char run[PATH_MAX];
	struct stat st;

	if (strncmp(entry, "ploop", 5) || rundir_name_of(entry, name) < 0 || rundir_path(name, "", run) < 0)
		return false;
	if (snprintf(path, PATH_MAX, "%s/%s", rundir_dev(), entry) >= PATH_MAX)
		return false;
	return stat(run, &st) < 0 && errno == ENOENT && lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

static int stale_nodes(struct leftovers *list, bool remove, struct ploop_error *err)
{
	DIR *dir = opendir(rundir_dev());
	struct dirent *entry;
	int r = 0;

	while (dir && r == 0 && (entry = readdir(dir))) {
		char name[RUNDIR_NAME], path[PATH_MAX];
		struct ploop_leftover *item;

		if (!is_stale(entry->d_name, name, path))
			continue;
		item = leftovers_add(list, PLOOP_LEFTOVER_NODE, path);
		if (!item)
			r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "gc");
		else if (remove && unlink(path) == 0)
			item->removed = true;
		else if (remove)
			error_sys(&item->error, -errno, PLOOP_EXIT_UNLINK, "%s", path);
	}
	if (dir)
		closedir(dir);
	return r;
}

int gc_devices(struct leftovers *list, bool remove, struct ploop_error *err)
{
	int r = dead_devices(list, remove, err);

	return r < 0 ? r : stale_nodes(list, remove, err);
}
