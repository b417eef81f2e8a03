/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * helper.c - mount.ploop SPEC DIR [-fnsv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE.SUBTYPE], and umount.ploop DIR: how a line in
 * fstab mounts a disk, and `umount DIR` ends its device. Exit statuses are the bits of mount(8).
 *
 * Most options are for the file system. Those of ours begin with "ploop.".
 */
#include "cli/helper.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "cli/arg.h"
#include "cli/report.h"

enum {
	HELPER_OK = 0,
	HELPER_USAGE = 1,
	HELPER_SYSTEM = 2,
	HELPER_FAILED = 32,
};

struct helper {
	bool fake, lazy, remount;
	const char *options, *type, *namespace;
	const char *operands[2];
	int noperands;
	struct ploop_mount what;
	char uuid[ARG_UUID];
};

/* What mount(8) hands on but no file system knows. */
static const char *const not_for_fs[] = { "defaults", "rw",    "auto",   "noauto",  "user",
					  "nouser",   "users", "nofail", "_netdev", "loop" };
static const char *const not_for_fs_prefix[] = { "x-", "X-", "comment=", "uhelper=", "helper=" };

static bool is_for_fs(const char *option)
{
	for (size_t i = 0; i < ARRAY_SIZE(not_for_fs); i++)
		if (!strcmp(option, not_for_fs[i]))
			return false;
	for (size_t i = 0; i < ARRAY_SIZE(not_for_fs_prefix); i++)
		if (!strncmp(option, not_for_fs_prefix[i], strlen(not_for_fs_prefix[i])))
			return false;
	return true;
}

/* "ploop.uuid=..." and so on; `option` is what follows "ploop.". */
static int take_own(struct helper *helper, char *option)
{
	char *value = strchr(option, '=');
	struct ploop_error err;

	if (value)
		*value++ = '\0';
	if (value && !strcmp(option, "uuid")) {
		if (arg_uuid(value, helper->uuid, &err) < 0)
			return report_error(&err);
		helper->what.snapshot = helper->uuid;
	} else if (value && !strcmp(option, "component")) {
		helper->what.component = value;
	} else if (value && !strcmp(option, "device")) {
		helper->what.device = value;
	} else if (value && !strcmp(option, "front-end")) {
		helper->what.front_end = value;
	} else if (!value && !strcmp(option, "fsck")) {
		helper->what.fsck = true;
	} else if (!value && !strcmp(option, "outside")) {
		helper->what.outside = true;
	} else {
		log_error("mount.ploop: there is no option ploop.%s", option);
		return HELPER_USAGE;
	}
	return HELPER_OK;
}

/* Sorts the options; those for the file system are left in `text`. */
static int take_options(struct helper *helper, char *text)
{
	char *to = text, *save, *option;
	int status;

	for (option = strtok_r(text, ",", &save); option; option = strtok_r(NULL, ",", &save)) {
		if (!strncmp(option, "ploop.", 6)) {
			status = take_own(helper, option + 6);
			if (status)
				return status;
		} else if (!strcmp(option, "ro")) {
			helper->what.read_only = true;
		} else if (!strcmp(option, "remount")) {
			helper->remount = true;
		} else if (is_for_fs(option)) {
			size_t len = strlen(option);

			if (to != text)
				*to++ = ',';
			memmove(to, option, len);
			to += len;
		}
	}
	*to = '\0';
	return HELPER_OK;
}

static int enter_namespace(const char *namespace)
{
	_close_ int fd = -EBADF;
	char path[64];

	if (!namespace)
		return HELPER_OK;
	if (namespace[strspn(namespace, "0123456789")] == '\0') {
		snprintf(path, sizeof(path), "/proc/%.20s/ns/mnt", namespace);
		namespace = path;
	}
	fd = open(namespace, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || setns(fd, CLONE_NEWNS) < 0) {
		log_error("%s: %s", namespace, strerror(errno));
		return HELPER_SYSTEM;
	}
	return HELPER_OK;
}

/* fstab is gone through more than once: what is mounted where it should be is well. */
static bool is_mounted(const char *image, const char *component, const char *target)
{
	struct ploop_which which = { .image = image, .component = component };
	_free_ char *path = realpath(target, NULL);
	struct ploop_device device;
	bool there = false;

	if (!path || ploop_find(&which, &device, NULL) < 0)
		return false;
	for (size_t i = 0; i < device.nmounts && device.alive; i++)
		there = there || !strcmp(device.mounts[i], path);
	ploop_device_clear(&device);
	return there;
}

static int run_mount(struct helper *helper)
{
	_free_ char *options = strdup(helper->options ? helper->options : "");
	struct ploop_error err;
	int status;

	if (helper->noperands != 2) {
		log_error("Usage: mount.ploop DESCRIPTOR|IMAGE DIR [-fnsv] [-N namespace] [-o options] [-t type]");
		return HELPER_FAILED;
	}
	if (!options)
		return HELPER_SYSTEM;
	status = take_options(helper, options);
	if (status)
		return status;
	if (helper->remount) {
		log_error("mount.ploop: the file system knows how to remount, use `mount -i -o remount,... %s`",
			  helper->operands[1]);
		return HELPER_USAGE;
	}
	for (int i = 0; i < 2; i++) {
		if (access(helper->operands[i], F_OK) < 0) {
			log_error("%s: %s", helper->operands[i], strerror(errno));
			return HELPER_FAILED;
		}
	}
	if (helper->fake || is_mounted(helper->operands[0], helper->what.component, helper->operands[1]))
		return HELPER_OK;
	helper->what.operands = helper->operands;
	helper->what.noperands = 1;
	helper->what.target = helper->operands[1];
	helper->what.options = *options ? options : NULL;
	/* "ploop.ext4": the type of the file system is the part after the dot. */
	helper->what.fstype = helper->type && strchr(helper->type, '.') ? strchr(helper->type, '.') + 1 : NULL;
	if (ploop_mount(&helper->what, NULL, &err) < 0) {
		report_error(&err);
		return HELPER_FAILED;
	}
	return HELPER_OK;
}

static int run_umount(struct helper *helper)
{
	struct ploop_which which = { .target = helper->operands[0] };
	struct ploop_error err;
	int r;

	if (helper->noperands != 1) {
		log_error("Usage: umount.ploop DIR [-flnrv] [-N namespace] [-t type]");
		return HELPER_USAGE;
	}
	if (helper->fake)
		return HELPER_OK;
	r = helper->lazy ? ploop_umount_lazy(&which, &err) : ploop_umount(&which, &err);
	if (r < 0) {
		report_error(&err);
		return HELPER_FAILED;
	}
	return HELPER_OK;
}

static int take_arguments(struct helper *helper, int argc, char **argv, bool umount)
{
	int c;

	while ((c = getopt(argc, argv, "flnrsvhN:o:t:")) != -1) {
		switch (c) {
		case 'f':
			helper->fake = !umount; /* umount -f means "force" */
			break;
		case 'l':
			helper->lazy = true;
			break;
		case 'v':
			report_init(LOG_LEVEL_INFO);
			break;
		case 'N':
			helper->namespace = optarg;
			break;
		case 'o':
			helper->options = optarg;
			break;
		case 't':
			helper->type = optarg;
			break;
		case 'n':
		case 'r':
		case 's':
			break;
		default:
			return HELPER_USAGE;
		}
	}
	for (; optind < argc && helper->noperands < 3; optind++, helper->noperands++)
		if (helper->noperands < 2)
			helper->operands[helper->noperands] = argv[optind];
	return HELPER_OK;
}

bool helper_main(int argc, char **argv, int *ret_status)
{
	const char *slash = argc ? strrchr(argv[0], '/') : NULL;
	const char *name = slash ? slash + 1 : argc ? argv[0] : "";
	struct helper helper = { .fake = false };
	bool umount = !strcmp(name, "umount.ploop");

	if (!umount && strcmp(name, "mount.ploop"))
		return false;
	report_init(LOG_LEVEL_ERROR);
	*ret_status = take_arguments(&helper, argc, argv, umount);
	if (!*ret_status)
		*ret_status = enter_namespace(helper.namespace);
	if (!*ret_status)
		*ret_status = umount ? run_umount(&helper) : run_mount(&helper);
	return true;
}
