/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* list.c - `ploop list`. */
#include <stdio.h>

#include "cli/call.h"
#include "cli/json.h"
#include "cli/report.h"
#include "cli/verbs.h"

static void add_texts(struct json_object *object, const char *key, char **texts, size_t n)
{
	struct json_object *list = json_add_list(object, key);

	for (size_t i = 0; i < n; i++)
		json_object_array_add(list, json_object_new_string(texts[i]));
}

static void add_device(struct json_object *list, const struct ploop_device *device)
{
	struct json_object *object = json_list_add(list);

	json_add_text(object, "device", device->device);
	json_add_text(object, "state", device->alive ? "running" : device->failure ? "failed" : "dead");
	json_add_text(object, "failure", device->failure);
	json_add_number(object, "pid", (uint64_t)device->pid);
	json_add_number(object, "engine", (uint64_t)device->engine);
	json_add_text(object, "node", device->node);
	json_add_text(object, "front_end", device->front_end);
	json_add_text(object, "descriptor", device->descriptor);
	json_add_text(object, "snapshot", device->snapshot);
	json_add_text(object, "component", device->component);
	add_texts(object, "images", device->images, device->nimages);
	add_texts(object, "mount_points", device->mounts, device->nmounts);
	json_add_bool(object, "read_only", device->read_only);
	json_add_number(object, "size", device->size);
	json_add_number(object, "cluster", device->cluster);
}

static int print_json(const struct ploop_device *devices, size_t n)
{
	struct json_object *object = json_object_new_object();
	struct json_object *list = json_add_list(object, "devices");

	for (size_t i = 0; i < n; i++)
		add_device(list, &devices[i]);
	return json_print(object);
}

/* As the original: name, base image, mount point, component; then what the original did not have. */
static void print_device(const struct ploop_device *device, bool mounts)
{
	printf("%-12s %s", device->name, device->nimages ? device->images[0] : "-");
	if (mounts)
		printf(" %s", device->nmounts ? device->mounts[0] : "");
	if (device->component)
		printf(" %s", device->component);
	if (device->failure)
		printf(" (dead: %s)\n", device->failure);
	else
		printf("%s\n", device->alive ? "" : " (dead)");
}

static int run(struct call *call)
{
	bool mounts = false, json = false;
	struct ploop_device *devices;
	struct ploop_error err;
	int c, status = PLOOP_EXIT_OK;
	size_t n;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'a':
			mounts = true;
			break;
		case OPTION_JSON:
			json = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if (call->noperands)
		return call_usage(call, "takes no operands");
	if (ploop_list(&devices, &n, &err) < 0)
		return report_error(&err);
	if (json)
		status = print_json(devices, n);
	for (size_t i = 0; i < n && !json; i++)
		print_device(&devices[i], mounts);
	ploop_list_free(devices, n);
	return status;
}

static const struct verb_option options[] = {
	{ 'a', "all", NULL, "also where each is mounted" },
	VERB_OPTION_JSON,
	{ 0 },
};

const struct verb verb_list = {
	.name = "list",
	.group = "Devices",
	.summary = "list the devices there are",
	.synopsis = "[-a] [--json]",
	.details = "A line has the name, the base image, with -a the mount point, the component, and \"(dead)\" when "
		   "the device lost\n"
		   "its ploopd: ploop umount clears it.",
	.options = options,
	.flags = VERB_BARE,
	.run = run,
};
