/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* mount.c - from a disk on the host to a device, and to a mounted file system: all of it, or nothing is left. */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "control/rundir.h"
#include "image/dir.h"
#include "lib/dead.h"
#include "lib/device-find.h"
#include "lib/fs.h"
#include "lib/mount.h"
#include "lib/ploopd.h"
#include "lib/tidy.h"

/* An absolute path, also for a file that is not there: whoever opens it says so. */
static int make_absolute(const char *path, char **ret, struct ploop_error *err)
{
	char *absolute = realpath(path, NULL);

	if (!absolute && *path == '/')
		absolute = strdup(path);
	if (!absolute) {
		_free_ char *cwd = getcwd(NULL, 0);

		if (!cwd || asprintf(&absolute, "%s/%s", cwd, path) < 0)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	}
	*ret = absolute;
	return 0;
}

/* A text of the caller's for the request; NULL stays NULL. */
static bool copy(char **ret, const char *text)
{
	return !text || (*ret = strdup(text));
}

static int fill_request(const struct ploop_mount *what, struct open_request *request, struct ploop_error *err)
{
	char name[RUNDIR_NAME];
	int r;

	if (!what->noperands || what->noperands > OPEN_OPERANDS)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "give one descriptor, or 1 to %d images",
				 OPEN_OPERANDS);
	if (what->device && rundir_name_of(what->device, name) < 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s is not the name of a ploop device; use /dev/ploopN", what->device);
	request->operands = calloc(what->noperands, sizeof(*request->operands));
	if (!request->operands || !copy(&request->device, what->device ? name : NULL) ||
	    !copy(&request->base_format, what->base_format) || !copy(&request->snapshot, what->snapshot) ||
	    !copy(&request->component, what->component) || !copy(&request->front_end, what->front_end) ||
	    !copy(&request->io_module, what->io_module) || !copy(&request->log, what->log))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", what->operands[0]);
	request->cluster = what->cluster;
	request->read_only = what->read_only;
	request->outside = what->outside;
	request->fail_when_full = what->fail_when_full;
	for (; request->noperands < what->noperands; request->noperands++) {
		r = make_absolute(what->operands[request->noperands], &request->operands[request->noperands], err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int check_target(const char *target, char ret[PATH_MAX], struct ploop_error *err)
{
	struct stat st;

	if (!realpath(target, ret))
		return error_sys(err, -errno, PLOOP_EXIT_PARAM, "mount point %s", target);
	if (stat(ret, &st) < 0 || !S_ISDIR(st.st_mode))
		return error_set(err, -ENOTDIR, PLOOP_EXIT_PARAM, "mount point %s is not a folder", target);
	return 0;
}

static bool same_component(const char *a, const char *b)
{
	return a && b ? !strcmp(a, b) : a == b;
}

/* A disk has one device for each component. One whose ploopd died is in nobody's way: it is cleared. */
static int check_used(const struct open_request *request, struct ploop_error *err)
{
	const char *image = request->operands[0];
	_free_ char(*names)[RUNDIR_NAME] = NULL;
	size_t n;
	int r;

	r = rundir_list(&names, &n, err);
	for (size_t i = 0; i < n && r == 0; i++) {
		struct device_entry entry;

		r = device_entry_load(names[i], &entry, err);
		if (r == -ENOENT) {
			r = 0;
			continue;
		}
		if (r < 0)
			break;
		if (same_component(entry.device.component, request->component) &&
		    device_has_image(&entry.device, image)) {
			if (entry.device.alive)
				r = error_set(err, -EBUSY, PLOOP_EXIT_MOUNT, "Image %s already used by device %s",
					      image, entry.device.device);
			else
				r = dead_clear(&entry, err);
		}
		ploop_device_clear(&entry.device);
	}
	return r;
}

/* The lines that scripts read. */
static void tell(const struct device_state *state)
{
	for (size_t i = 0; i < state->nimages; i++)
		log_write(LOG_LEVEL_RESULT, "Adding delta dev=%s/%s img=%s (%s)", rundir_dev(), state->name,
			  state->images[i], state->read_only || i + 1 < state->nimages ? "ro" : "rw");
}

static int use_fs(const struct ploop_mount *what, const char *target, const struct device_state *state,
		  struct ploop_mounted *ret, struct ploop_error *err)
{
	struct fs_mount mount = {
		.target = target, .type = what->fstype, .options = what->options, .read_only = state->read_only
	};
	char partition[PATH_MAX];
	int r;

	if (!what->target && !what->fsck) {
		struct ploop_error why;

		if (fs_partitions(state->name, state->node, &why) < 0) /* the device is there all the same */
			log_warning("%s", why.text);
		return 0;
	}
	r = fs_find(state->name, state->node, partition, err);
	if (r < 0)
		return r;
	snprintf(ret->partition, sizeof(ret->partition), "%.*s", (int)sizeof(ret->partition) - 1, partition);
	if (what->fsck && state->read_only)
		log_warning("%s is read-only: its file system is not checked", partition);
	else if (what->fsck)
		r = fs_check(partition, &ret->fsck_status, err);
	if (r < 0 || !what->target)
		return r;
	mount.path = partition;
	return fs_mount(&mount, err);
}

/* With the daemon running: the file system, and then the device is kept. */
static int finish(const struct ploop_mount *what, const char *target, const struct device_state *state, int connection,
		  struct ploop_mounted *ret, struct ploop_error *err)
{
	int r;

	tell(state);
	snprintf(ret->device, sizeof(ret->device), "%s/%s", rundir_dev(), state->name);
	r = use_fs(what, target, state, ret, err);
	if (r == 0)
		r = spawn_keep(connection, err);
	if (r < 0) /* what went wrong is known; this leaves nothing behind */
		(void)daemon_end(state->name, rundir_pid(state->name), false, NULL);
	return r;
}

int mount_start(const struct ploop_mount *what, struct device_state *ret, int *ret_connection, struct ploop_error *err)
{
	struct open_request request = { 0 };
	int r;

	r = fill_request(what, &request, err);
	if (r == 0)
		r = check_used(&request, err);
	if (r == 0)
		r = spawn_daemon(&request, ret, ret_connection, err);
	open_request_clear(&request);
	return r;
}

/* Temporary snapshots that nobody owns are merged by the running device. */
static void tidy(const struct ploop_mount *what, const struct device_state *state)
{
	if (state->descriptor && !what->component && !what->snapshot && !state->read_only)
		tidy_disk(state->descriptor);
}

/*
 * The original keeps how full a file system was when it was unmounted in .statfs beside the descriptor, and believes it while the
 * disk is not mounted. We read superblocks instead and write no such file; one that is there will not be true any more.
 */
static void remove_statfs(const struct device_state *state)
{
	_dir_close_ struct dir *dir = NULL;
	const char *name;

	if (!state->read_only && state->descriptor && dir_open_parent(NULL, state->descriptor, &dir, &name, NULL) == 0)
		(void)dir_unlink(dir, ".statfs");
}

int ploop_mount(const struct ploop_mount *what, struct ploop_mounted *ret, struct ploop_error *err)
{
	struct ploop_mounted mounted = { .fsck_status = 0 };
	_close_ int connection = -EBADF;
	struct device_state state = { 0 };
	char target[PATH_MAX] = "";
	int r = 0;

	if (what->target)
		r = check_target(what->target, target, err);
	if (r == 0)
		r = mount_start(what, &state, &connection, err);
	if (r == 0)
		r = finish(what, target, &state, connection, &mounted, err);
	if (r == 0)
		remove_statfs(&state);
	if (r == 0 && ret)
		*ret = mounted;
	if (r == 0)
		tidy(what, &state);
	state_clear(&state);
	return r;
}
