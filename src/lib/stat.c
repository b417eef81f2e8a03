/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stat.c - the counters of a running device. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/error.h"
#include "control/client.h"
#include "control/message.h"
#include "control/rundir.h"
#include "lib/device-find.h"

/* 9 is what scripts know for "no such device". */
static int name_of_running(const char *device, char name[RUNDIR_NAME], struct ploop_error *err)
{
	struct ploop_device found;
	struct ploop_which which = { .device = device };
	bool alive;
	int r;

	r = ploop_find(&which, &found, err);
	if (r == -ENODEV && err)
		err->status = PLOOP_EXIT_SYSFS;
	if (r < 0)
		return r;
	alive = found.alive;
	snprintf(name, RUNDIR_NAME, "%s", found.name);
	ploop_device_clear(&found);
	if (!alive)
		return error_set(err, -ENODEV, PLOOP_EXIT_SYSFS, "%s is dead; clear it with `ploop umount -d %s`",
				 device, device);
	return 0;
}

static int take_counters(struct json_object *result, struct ploop_counter **ret, size_t *ret_n, struct ploop_error *err)
{
	struct json_object *list = NULL;
	struct ploop_counter *counters;
	size_t n = 0;
	int r = 0;

	json_object_object_get_ex(result, "counters", &list);
	if (!json_object_is_type(list, json_type_object))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "bad message: \"counters\" is missing");
	counters = calloc((size_t)json_object_object_length(list) + 1, sizeof(*counters));
	if (!counters)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "stat");
	json_object_object_foreach(list, name, value)
	{
		(void)value;
		snprintf(counters[n].name, sizeof(counters[n].name), "%s", name);
		if (r == 0)
			r = message_number(list, name, INT64_MAX, &counters[n++].value, err);
	}
	if (r < 0) {
		free(counters);
		return r;
	}
	*ret = counters;
	*ret_n = n;
	return 0;
}

int ploop_counters(const char *device, struct ploop_counter **ret, size_t *ret_n, struct ploop_error *err)
{
	_message_ struct json_object *result = NULL;
	char name[RUNDIR_NAME];
	int r;

	r = name_of_running(device, name, err);
	if (r == 0)
		r = control_ask(name, "stat", NULL, &result, err);
	return r < 0 ? r : take_counters(result, ret, ret_n, err);
}

int ploop_counters_set(const char *device, const struct ploop_counter *counters, size_t n, struct ploop_error *err)
{
	struct json_object *arguments, *values;
	char name[RUNDIR_NAME];
	int r;

	r = name_of_running(device, name, err);
	if (r < 0)
		return r;
	arguments = json_object_new_object();
	values = json_object_new_object();
	if (!arguments || !values) {
		json_object_put(arguments);
		json_object_put(values);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "stat");
	}
	message_add_bool(arguments, "clear", !counters);
	for (size_t i = 0; i < n; i++)
		message_add_number(values, counters[i].name, counters[i].value);
	json_object_object_add(arguments, "set", values);
	return control_ask(name, "stat", arguments, NULL, err);
}
