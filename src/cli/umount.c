/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* umount.c - `ploop umount`. */
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/call.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum {
	OPTION_ALL = OPTION_OWN,
};

/* A folder on whose other side another file system lies. */
static bool is_mount_point(const char *path)
{
	char parent[PATH_MAX];
	struct stat here, there;

	return (size_t)snprintf(parent, sizeof(parent), "%s/..", path) < sizeof(parent) && !stat(path, &here) &&
	       !stat(parent, &there) && here.st_dev != there.st_dev;
}

static bool is_device(const char *path)
{
	struct stat st;

	return !strncmp(path, "/dev/ploop", strlen("/dev/ploop")) || (!stat(path, &st) && S_ISBLK(st.st_mode));
}

/* People name the place where the disk is mounted, or its device, and mean the disk. */
static void name_operand(struct ploop_which *which, const char *operand)
{
	if (is_device(operand))
		which->device = operand;
	else if (is_mount_point(operand))
		which->target = operand;
	else
		which->image = operand;
}

static int run(struct call *call)
{
	struct ploop_which which = { 0 };
	bool all = false, lazy = false;
	struct ploop_error err;
	int c, r;

	while ((c = call_option(call)) != CALL_END) {
		switch (c) {
		case 'd':
			which.device = call->value;
			break;
		case 'm':
			which.target = call->value;
			break;
		case 'c':
			which.component = call->value;
			break;
		case 'l':
			lazy = true;
			break;
		case OPTION_ALL:
			all = true;
			break;
		default:
			return PLOOP_EXIT_PARAM;
		}
	}
	if ((which.device != NULL) + (which.target != NULL) + call->noperands + all != 1)
		return call_usage(call, "give exactly one of -d, -m, --all, a descriptor or an image");
	if (call->noperands)
		name_operand(&which, call->operands[0]);
	if (all)
		r = ploop_umount_all(&err);
	else
		r = lazy ? ploop_umount_lazy(&which, &err) : ploop_umount(&which, &err);
	return r < 0 ? report_error(&err) : PLOOP_EXIT_OK;
}

static const struct verb_option options[] = {
	{ 'd', "device", "DEVICE", "the device, /dev/ploopN" },
	{ 'm', "mount-point", "DIR", "the device that is mounted there" },
	{ 'c', "component", "NAME", "the device of that name, when a disk has several" },
	{ 'l', "lazy", NULL, "take it from view now; the device goes when nobody uses it" },
	{ OPTION_ALL, "all", NULL, "all devices" },
	{ 0 },
};

const struct verb verb_umount = {
	.name = "umount",
	.group = "Devices",
	.summary = "unmount a disk and close its images",
	.synopsis = "[-l] {-d DEVICE | -m DIR | [-c NAME] DESCRIPTOR | IMAGE | DIR | DEVICE}\n"
		    "--all",
	.details = "Clears devices whose ploopd is dead, too.",
	.options = options,
	.run = run,
};
