/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fs.c - mounting and unmounting by libmount, which notes `helper=ploop` for the file system: so `umount DIR` calls
 * umount.ploop, and the device goes together with the mount. (`uhelper=` would do that for users other than root only.)
 */
#include "lib/fs.h"

#include <blkid.h>
#include <errno.h>
#include <libmount.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>

#include "base/child.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/blockdev.h"

#define UMOUNT_TRIES 6
#define FSCK_FAILED 4 /* exit statuses below it say that all is well now */
#define HELPER_OPTION "helper=ploop"

static void cleanup_context(struct libmnt_context **context)
{
	mnt_free_context(*context);
}
#define _context_ __attribute__((cleanup(cleanup_context)))

int fs_probe(const char *path, char type[FS_TYPE], struct ploop_error *err)
{
	blkid_probe blkid = blkid_new_probe_from_filename(path);
	const char *value = "";
	int r = 0;

	if (!blkid)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE, "%s", path);
	blkid_probe_enable_superblocks(blkid, 1);
	blkid_probe_set_superblocks_flags(blkid, BLKID_SUBLKS_TYPE);
	if (blkid_do_safeprobe(blkid) == 0)
		(void)blkid_probe_lookup_value(blkid, "TYPE", &value, NULL);
	snprintf(type, FS_TYPE, "%s", value);
	blkid_free_probe(blkid);
	return r;
}

int fs_check(const char *path, int *ret_status, struct ploop_error *err)
{
	const char *argv[] = { "e2fsck", "-p", path, NULL };
	struct child_request request = { .argv = argv, .fd = -1, .level = LOG_LEVEL_RESULT };
	char type[FS_TYPE], last[256];
	int r, status;

	r = fs_probe(path, type, err);
	if (r < 0)
		return r;
	*ret_status = 0;
	if (strncmp(type, "ext", 3)) {
		log_info("%s: %s has nothing to preen; it repairs itself when it is mounted", path,
			 *type ? type : "no known file system");
		return 0;
	}
	r = child_run(&request, &status, last, sizeof(last));
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_FSCK, "e2fsck");
	*ret_status = status;
	if (status >= FSCK_FAILED)
		return error_set(err, -EUCLEAN, PLOOP_EXIT_FSCK, "e2fsck failed (exit code %d) on %s: %s", status, path,
				 last);
	return 0;
}

/* Options for us and for kernels with a balloon are not for the file system. The caller frees. */
static char *clean_options(const char *options)
{
	char *copy = strdup(options ? options : "");

	if (copy)
		while (mnt_optstr_remove_option(&copy, "balloon_ino") == 0)
			;
	return copy;
}

/* A journal cannot be replayed on a device that takes no writes. */
static const char *no_recovery(const char *type)
{
	if (!strcmp(type, "ext3") || !strcmp(type, "ext4"))
		return "noload";
	if (!strcmp(type, "xfs"))
		return "norecovery";
	if (!strcmp(type, "btrfs"))
		return "rescue=nologreplay";
	return NULL;
}

/* One try. Returns 0 or a negative errno, and what the library says in `text`. */
static int try_mount(const struct fs_mount *what, const char *type, const char *options, char *text, size_t size)
{
	_context_ struct libmnt_context *context = mnt_new_context();
	int r, code;

	if (!context || mnt_context_set_source(context, what->path) || mnt_context_set_target(context, what->target) ||
	    mnt_context_set_fstype(context, type) || mnt_context_set_options(context, options) ||
	    mnt_context_append_options(context, HELPER_OPTION))
		return -ENOMEM;
	if (what->read_only && mnt_context_append_options(context, "ro"))
		return -ENOMEM;
	mnt_context_disable_canonicalize(context, 1);
	r = mnt_context_mount(context);
	code = mnt_context_get_excode(context, r, text, size);
	if (!code)
		return 0;
	if (mnt_context_syscall_called(context) && mnt_context_get_syscall_errno(context))
		return -mnt_context_get_syscall_errno(context);
	return r < 0 ? r : -EINVAL;
}

static int mount_typed(const struct fs_mount *what, const char *type, const char *options, struct ploop_error *err)
{
	const char *skip = what->read_only ? no_recovery(type) : NULL;
	char text[512] = "";
	int r;

	r = try_mount(what, type, options, text, sizeof(text));
	if (r == -EROFS && skip) {
		_free_ char *more = NULL;

		if (asprintf(&more, "%s%s%s", options, *options ? "," : "", skip) < 0)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", what->path);
		log_warning("%s was not unmounted cleanly: mounting as it is on the disk (%s)", what->path, skip);
		r = try_mount(what, type, more, text, sizeof(text));
	}
	if (r < 0)
		return error_set(err, r, PLOOP_EXIT_MOUNT, "Can't mount file system dev=%s target=%s data='%s': %s",
				 what->path, what->target, options, *text ? text : strerror(-r));
	return 0;
}

int fs_mount(const struct fs_mount *what, struct ploop_error *err)
{
	_free_ char *options = clean_options(what->options);
	const char *type = what->type;
	char probed[FS_TYPE];
	int r;

	if (!options)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", what->path);
	if (!type) {
		r = fs_probe(what->path, probed, err);
		if (r < 0)
			return r;
		if (!*probed)
			return error_set(err, -EINVAL, PLOOP_EXIT_MOUNT,
					 "%s holds no file system that is known; leave out -m to get the device, or "
					 "name it with -t",
					 what->path);
		type = probed;
	}
	log_write(LOG_LEVEL_RESULT, "Mounting %s at %s fstype=%s data='%s' %s", what->path, what->target, type, options,
		  what->read_only ? "(ro)" : "");
	return mount_typed(what, type, options, err);
}

static int try_umount(const char *target, bool lazy)
{
	_context_ struct libmnt_context *context = mnt_new_context();
	int r;

	if (!context || mnt_context_set_target(context, target))
		return -ENOMEM;
	mnt_context_disable_helpers(context, 1); /* umount.ploop would only call us */
	mnt_context_disable_canonicalize(context, 1);
	mnt_context_enable_lazy(context, lazy);
	r = mnt_context_umount(context);
	if (mnt_context_syscall_called(context))
		return -mnt_context_get_syscall_errno(context);
	return r > 0 ? -EINVAL : r;
}

/* The number by which the kernel knows the file system. */
static dev_t number_of(const char *target)
{
	struct mount_table table;
	dev_t number = 0;

	if (mounts_read("self", &table) < 0)
		return 0;
	for (size_t i = 0; i < table.n; i++)
		if (!strcmp(table.entries[i].target, target))
			number = table.entries[i].number;
	mounts_clear(&table);
	return number;
}

static int busy(const char *target, struct ploop_error *err)
{
	char who[256];

	if (!holders_of_mount(target, number_of(target), who, sizeof(who)))
		snprintf(who, sizeof(who), "nobody that can be seen from here");
	return error_set(err, -EBUSY, PLOOP_EXIT_UMOUNT_BUSY, "Failed to umount %s: in use: %s", target, who);
}

int fs_umount(const char *target, enum fs_umount_how how, struct ploop_error *err)
{
	int r;

	r = try_umount(target, how == FS_UMOUNT_LAZY);
	for (int i = 1; r == -EBUSY && how == FS_UMOUNT_WAIT && i < UMOUNT_TRIES; i++) {
		const struct timespec second = { .tv_sec = 1 };

		nanosleep(&second, NULL);
		r = try_umount(target, false);
	}
	if (r < 0 && how == FS_UMOUNT_DEAD)
		r = try_umount(target, true);
	if (r == -EBUSY)
		return busy(target, err);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_UMOUNT, "Failed to umount %s", target) : 0;
}
