/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-gpt.c - writes the partition table of a new disk, by libfdisk. */
#include "lib/init-gpt.h"

#include <errno.h>
#include <inttypes.h>
#include <libfdisk/libfdisk.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"

#define SECTOR_BYTES 512u
#define FIRST_SECTOR "34" /* after the protective MBR, the header and 128 entries of 128 bytes */
#define LINUX_DATA "0FC63DAF-8483-4772-8E79-3D69D8477DE4"

int gpt_plan(uint64_t disk, uint32_t cluster, struct partition *ret, struct ploop_error *err)
{
	if (disk <= 2 * (uint64_t)cluster)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Image size should be greater than %" PRIu64 " sectors to hold a partition table",
				 2 * (uint64_t)cluster / SECTOR_BYTES);
	ret->start = cluster;
	ret->size = round_down(disk - cluster, cluster) - cluster;
	return 0;
}

static void cleanup_context(struct fdisk_context **context)
{
	fdisk_unref_context(*context);
}

static void cleanup_partition(struct fdisk_partition **partition)
{
	fdisk_unref_partition(*partition);
}

static void cleanup_type(struct fdisk_parttype **type)
{
	fdisk_unref_parttype(*type);
}

static void cleanup_script(struct fdisk_script **script)
{
	fdisk_unref_script(*script);
}

/* A script is libfdisk's one way to let partitions start before the first megabyte: clusters may be as small as 32 KiB. */
static int create_label(struct fdisk_context *context)
{
	_cleanup_(cleanup_script) struct fdisk_script *script = fdisk_new_script(context);
	int r;

	if (!script)
		return -ENOMEM;
	if (fdisk_script_set_header(script, "label", "gpt") < 0 ||
	    fdisk_script_set_header(script, "first-lba", FIRST_SECTOR) < 0)
		return -ENOMEM;
	r = fdisk_apply_script_headers(context, script);
	/* The two keep each other alive otherwise. */
	fdisk_set_script(context, NULL);
	return r;
}

static int add_partition(struct fdisk_context *context, const struct partition *where)
{
	_cleanup_(cleanup_partition) struct fdisk_partition *partition = fdisk_new_partition();
	_cleanup_(cleanup_type) struct fdisk_parttype *type =
		fdisk_label_get_parttype_from_string(fdisk_get_label(context, "gpt"), LINUX_DATA);
	int r;

	if (!partition)
		return -ENOMEM;
	fdisk_partition_set_partno(partition, 0);
	fdisk_partition_set_start(partition, where->start / SECTOR_BYTES);
	fdisk_partition_set_size(partition, where->size / SECTOR_BYTES);
	fdisk_partition_size_explicit(partition, 1); /* not rounded to what libfdisk finds a good alignment */
	fdisk_partition_set_name(partition, "primary");
	r = fdisk_partition_set_type(partition, type);
	if (!r)
		r = fdisk_add_partition(context, partition, NULL);
	return r;
}

int gpt_write(int fd, const char *name, const struct partition *partition, struct ploop_error *err)
{
	_cleanup_(cleanup_context) struct fdisk_context *context = fdisk_new_context();
	int r;

	if (!context)
		return error_set(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: no memory for the partition table", name);
	fdisk_disable_dialogs(context, 1);
	r = fdisk_assign_device_by_fd(context, fd, name, 0);
	if (!r)
		r = create_label(context);
	if (!r)
		r = add_partition(context, partition);
	if (!r)
		r = fdisk_write_disklabel(context);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_CHANGE_GPT, "%s: cannot write the partition table", name);
	return 0;
}
