/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* upgrade.c - a running device goes over to another ploopd. */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"
#include "control/rundir.h"
#include "lib/device-find.h"
#include "lib/ploopd.h"

#define PAUSE_MS 5
#define TIMEOUT_MS 30000

static void pause_ms(unsigned ms)
{
	const struct timespec pause = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L };

	nanosleep(&pause, NULL);
}

/* Until another engine than `before` answers. */
static int wait_for_next(const char *name, pid_t before, struct ploop_error *err)
{
	_client_ struct control_client *client = NULL;
	unsigned waited = 0;
	pid_t engine;

	while ((engine = rundir_engine(name)) == before || !engine) {
		if (waited >= TIMEOUT_MS || !rundir_pid(name))
			return error_set(err, -ETIMEDOUT, PLOOP_EXIT_SYS,
					 "%s/%s was handed over, and nobody has taken it; see the system's log",
					 rundir_dev(), name);
		pause_ms(PAUSE_MS);
		waited += PAUSE_MS;
	}
	return control_connect(name, CONTROL_TIMEOUT_MS, &client, err);
}

static int upgrade(const char *name, const char *program, struct ploop_error *err)
{
	struct json_object *arguments = json_object_new_object();
	pid_t before = rundir_engine(name);
	int r;

	if (arguments)
		message_add_text(arguments, "program", program);
	r = control_ask(name, "upgrade", arguments, NULL, err);
	if (r == 0)
		r = wait_for_next(name, before, err);
	if (r == 0)
		log_info("%s/%s is served by process %d now", rundir_dev(), name, (int)rundir_engine(name));
	return r;
}

int ploop_upgrade(const char *device, const char *program, struct ploop_error *err)
{
	struct ploop_which which = { .device = device };
	struct device_entry entry;
	char path[PATH_MAX];
	int r;

	if (program && !realpath(program, path))
		return error_sys(err, -errno, PLOOP_EXIT_PARAM, "%s", program);
	r = program ? 0 : find_daemon(path, err);
	if (r == 0)
		r = device_find(&which, &entry, err);
	if (r < 0)
		return r;
	if (!entry.device.alive)
		r = error_set(err, -ENODEV, PLOOP_EXIT_DEVICE, "%s is dead; `ploop umount -d %s` clears it", device,
			      device);
	else
		r = upgrade(entry.device.name, path, err);
	ploop_device_clear(&entry.device);
	return r;
}
