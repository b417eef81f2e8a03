/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * umount.c - the way back: file systems, then the device, then its daemon. Success means that the image is closed: the daemon
 * answers only after it made everything durable, and its process is waited for.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "control/rundir.h"
#include "lib/dead.h"
#include "lib/device-find.h"
#include "lib/fs.h"
#include "lib/ploopd.h"

/* A device that was just unmounted is often still open for a moment. */
#define FIRST_PAUSE_MS 10
#define LONGEST_PAUSE_MS 500
#define COMPACTION_MS 1000   /* from when on a compaction is not waited for any more */
#define KNOWN_HOLDER_MS 3000 /* how long one whose name we know may take */
#define ANY_HOLDER_MS 60000

static uint64_t now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void pause_ms(unsigned ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

/* Who lets a device be compacted has it open until the device is done: it shall be done soon, and lose nothing by it. */
static void stop_compaction(const char *name)
{
	_client_ struct control_client *client = NULL;

	if (control_connect(name, CONTROL_TIMEOUT_MS, &client, NULL) == 0)
		(void)control_call(client, "compact-stop", NULL, NULL, NULL);
}

/* Tries until nobody has the device open. */
static int end_when_free(const struct device_entry *entry, struct ploop_error *err)
{
	const struct ploop_device *device = &entry->device;
	uint64_t start = now_ms(), waited;
	unsigned pause = FIRST_PAUSE_MS;
	struct blockdev blockdev;
	char who[256];
	bool known;
	int r;

	device_blockdev(entry, &blockdev);
	for (;;) {
		r = daemon_end(device->name, device->pid, false, err);
		if (r != -EBUSY)
			return r;
		waited = now_ms() - start;
		if (waited >= COMPACTION_MS)
			stop_compaction(device->name);
		known = waited >= KNOWN_HOLDER_MS && holders_of_device(&blockdev, who, sizeof(who));
		if (known || waited >= ANY_HOLDER_MS)
			return error_set(err, -EBUSY, PLOOP_EXIT_UMOUNT_BUSY, "%s is in use: %s", device->device,
					 known ? who : "by nobody that can be seen from here");
		pause_ms(pause);
		pause = 2 * pause < LONGEST_PAUSE_MS ? 2 * pause : LONGEST_PAUSE_MS;
	}
}

static int umount_entry(const struct device_entry *entry, bool lazy, struct ploop_error *err)
{
	const struct ploop_device *device = &entry->device;
	int r;

	if (!device->alive)
		return dead_clear(entry, err);
	for (size_t i = device->nmounts; i-- > 0;) {
		log_write(LOG_LEVEL_RESULT, "Unmounting file system at %s", device->mounts[i]);
		r = fs_umount(device->mounts[i], lazy ? FS_UMOUNT_LAZY : FS_UMOUNT_WAIT, err);
		if (r < 0)
			return r;
	}
	log_write(LOG_LEVEL_RESULT, "Unmounting device %s", device->device);
	return lazy ? daemon_end(device->name, device->pid, true, err) : end_when_free(entry, err);
}

static int find_and_umount(const struct ploop_which *which, bool lazy, struct ploop_error *err)
{
	struct device_entry entry;
	int r;

	r = device_find(which, &entry, err);
	if (r < 0)
		return r;
	r = umount_entry(&entry, lazy, err);
	ploop_device_clear(&entry.device);
	return r;
}

int ploop_umount(const struct ploop_which *which, struct ploop_error *err)
{
	return find_and_umount(which, false, err);
}

int ploop_umount_lazy(const struct ploop_which *which, struct ploop_error *err)
{
	return find_and_umount(which, true, err);
}

int ploop_umount_all(struct ploop_error *err)
{
	_free_ char(*names)[RUNDIR_NAME] = NULL;
	struct ploop_error other;
	size_t n;
	int r;

	r = rundir_list(&names, &n, err);
	if (r < 0)
		return r;
	/* The last first: a disk may lie in the file system of one that was mounted before. */
	for (size_t i = n; i-- > 0;) {
		struct ploop_which which = { .device = names[i] };
		int result = find_and_umount(&which, false, r < 0 ? &other : err);

		if (result == -ENODEV)
			continue;
		if (result < 0 && r < 0)
			log_error("%s", other.text);
		if (result < 0 && r == 0)
			r = result;
	}
	return r;
}

int ploop_stop(const char *device, struct ploop_error *err)
{
	struct ploop_which which = { .device = device };
	struct device_entry entry;
	int r;

	r = device_find(&which, &entry, err);
	if (r < 0)
		return r;
	if (entry.device.nmounts)
		r = error_set(err, -EBUSY, PLOOP_EXIT_DEVIOC, "%s is mounted at %s; use `ploop umount`", device,
			      entry.device.mounts[0]);
	else if (!entry.device.alive)
		r = dead_clear(&entry, err);
	else
		r = daemon_end(entry.device.name, entry.device.pid, false, err);
	if (r == -EBUSY && err)
		err->status = PLOOP_EXIT_DEVIOC;
	ploop_device_clear(&entry.device);
	return r;
}

int ploop_clear(const char *device, struct ploop_error *err)
{
	struct ploop_which which = { .device = device };
	struct device_entry entry;
	int r;

	r = device_find(&which, &entry, err);
	if (r == -ENODEV && err && err->status == PLOOP_EXIT_DEVICE)
		return 0;
	if (r < 0)
		return r;
	if (entry.device.alive)
		r = error_set(err, -EBUSY, PLOOP_EXIT_DEVIOC, "%s is running; end it with `ploop umount -d %s`", device,
			      device);
	else
		r = dead_clear(&entry, err);
	ploop_device_clear(&entry.device);
	return r;
}
