/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * info.c - what a disk is made of, and how full it is.
 *
 * Headers are read beside a running ploopd without a lock: they stay as they are. What is in the disk is asked of the
 * mounted file system, else of the running device, else of the disk opened read-only in this process; nothing is
 * mounted for it.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/client.h"
#include "control/message.h"
#include "control/node.h"
#include "device/device.h"
#include "image/descriptor.h"
#include "image/stack.h"
#include "image/tree.h"
#include "lib/disk.h"
#include "lib/info-space.h"
#include "lib/superblock.h"

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

static void free_images(struct ploop_image *images, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		free(images[i].file);
		free(images[i].uuid);
	}
	free(images);
}

void ploop_info_clear(struct ploop_info *info)
{
	free_images(info->images, info->nimages);
	free_images(info->others, info->nothers);
	free(info->descriptor);
	free(info->device);
	free(info->partition);
	*info = (struct ploop_info){ 0 };
}

/* ---- Images ---- */

static int fill_image(const struct delta *delta, struct ploop_image *ret, struct ploop_error *err)
{
	int r = io_size(delta->file, &ret->length);

	if (!r)
		r = io_allocated(delta->file, &ret->allocated);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_FSTAT, "%s", delta->file->path);
	ret->file = strdup(delta->file->path);
	if (!ret->file)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", delta->file->path);
	ret->format = delta->format->name;
	ret->version = delta->geometry.version;
	ret->size = delta->geometry.size;
	ret->in_use = delta->geometry.state == FORMAT_IN_USE;
	return 0;
}

static int fill_images(const struct stack *stack, struct ploop_info *ret, struct ploop_error *err)
{
	const struct geometry *top = &stack->levels[stack->nlevels - 1].geometry;

	ret->images = calloc(stack->nlevels, sizeof(*ret->images));
	if (!ret->images)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");
	while (ret->nimages < stack->nlevels) {
		int r = fill_image(&stack->levels[ret->nimages], &ret->images[ret->nimages], err);

		ret->nimages++;
		if (r < 0)
			return r;
	}
	ret->size = top->size;
	ret->cluster = top->cluster;
	ret->version = top->version;
	return 0;
}

static bool in_chain(const struct ploop_info *info, const struct snapshot *s)
{
	for (unsigned i = 0; i < info->nimages; i++)
		if (info->images[i].uuid && !strcasecmp(info->images[i].uuid, s->guid.text))
			return true;
	return false;
}

static int fill_other(const struct descriptor *d, const struct snapshot *s, struct ploop_image *ret,
		      struct ploop_error *err)
{
	_cleanup_(cleanup_stack) struct stack *stack = NULL;
	_free_ char *file = descriptor_file(d, s);
	const char *path = file;
	const struct stack_request request = {
		.operands = &path,
		.noperands = 1,
		.base_format = descriptor_raw(s) ? "raw" : NULL,
		.cluster = descriptor_raw(s) ? d->cluster : 0,
		.read_only = true,
		.unlocked = true,
	};
	int r = file ? stack_open(NULL, &request, &stack, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");

	if (!r)
		r = fill_image(&stack->levels[0], ret, err);
	if (r < 0)
		return r;
	ret->uuid = strdup(s->guid.text);
	ret->temporary = s->temporary != SNAPSHOT_KEPT;
	return ret->uuid ? 0 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");
}

/* One that cannot be read is no reason to say nothing of the disk, which does not need it. */
static int fill_others(const struct descriptor *d, struct ploop_info *ret, struct ploop_error *err)
{
	struct ploop_error why;

	ret->others = calloc(d->nsnapshots, sizeof(*ret->others));
	if (!ret->others)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		const struct snapshot *s = &d->snapshots[i];

		if (!s->file || in_chain(ret, s))
			continue;
		if (fill_other(d, s, &ret->others[ret->nothers], &why) < 0)
			log_warning("%s", why.text);
		else
			ret->nothers++;
	}
	return 0;
}

static void add_up(struct ploop_info *info)
{
	for (unsigned i = 0; i < info->nimages; i++)
		info->allocated += info->images[i].allocated;
	for (unsigned i = 0; i < info->nothers; i++)
		info->allocated += info->others[i].allocated;
}

/* What only the descriptor knows of the images of the stack. */
static int fill_descriptor(const struct stack *stack, struct ploop_info *ret, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	const struct snapshot *s;
	struct guid guid;
	int r = descriptor_open(stack->descriptor, &d, err);

	if (r < 0)
		return r;
	ret->encrypted = d->encrypted;
	ret->descriptor = strdup(stack->descriptor);
	if (!ret->descriptor || !guid_parse(stack->snapshot, &guid))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");
	s = descriptor_find(d, &guid);
	for (unsigned i = ret->nimages; i-- > 0 && s; s = tree_parent(d, s)) {
		ret->images[i].uuid = strdup(s->guid.text);
		ret->images[i].temporary = s->temporary != SNAPSHOT_KEPT;
		if (!ret->images[i].uuid)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "info");
	}
	return fill_others(d, ret, err);
}

static int look_at_images(const struct ploop_files *files, struct ploop_info *ret, struct ploop_error *err)
{
	_cleanup_(cleanup_stack) struct stack *stack = NULL;
	const struct stack_request request = {
		.operands = files->paths,
		.noperands = files->npaths,
		.base_format = files->format,
		.cluster = files->cluster,
		.snapshot = files->snapshot,
		.outside = files->outside,
		.read_only = true,
		.unlocked = true,
	};
	int r = stack_open(NULL, &request, &stack, err);

	if (!r)
		r = fill_images(stack, ret, err);
	if (!r && stack->descriptor)
		r = fill_descriptor(stack, ret, err);
	if (!r)
		add_up(ret);
	return r;
}

/* ---- Device ---- */

/* A disk is served by the device whose top is the disk's; one without a component is the disk itself. */
static const struct ploop_device *find_device(const struct ploop_info *info, const struct ploop_device *devices,
					      size_t n)
{
	const char *top = info->images[info->nimages - 1].file;
	const struct ploop_device *found = NULL;

	for (size_t i = 0; i < n; i++) {
		const struct ploop_device *device = &devices[i];

		if (!device->alive || !device->nimages || strcmp(device->images[device->nimages - 1], top))
			continue;
		if (!device->component)
			return device;
		found = device;
	}
	return found;
}

static int name_device(const struct ploop_device *device, struct ploop_info *ret)
{
	char partition[PATH_MAX];
	int r = node_path(device->name, 1, partition);

	if (r < 0)
		return r;
	ret->device = strdup(device->device);
	ret->partition = strdup(partition);
	return ret->device && ret->partition ? 0 : -ENOMEM;
}

/* ---- Content ---- */

static void fill_mapped(const struct ploop_device *device, struct ploop_info *ret)
{
	struct json_object *status = NULL;
	uint64_t clusters;

	if (control_ask(device->name, "status", NULL, &status, NULL) < 0)
		return;
	if (message_number(status, "mapped", INT64_MAX, &clusters, NULL) == 0) {
		ret->mapped_known = true;
		ret->mapped = clusters * ret->cluster;
	}
	json_object_put(status);
}

/* The mounted file system's changes are seen through its own node at once, through that of the disk only when they are written. */
struct nodes {
	int disk, partition; /* partition: -EBADF when there is none */
	uint64_t start;      /* byte of the disk where it begins; UINT64_MAX while that is not known */
};

static int read_node(void *data, void *buffer, size_t len, uint64_t offset)
{
	const struct nodes *nodes = data;
	bool inside = nodes->partition >= 0 && offset >= nodes->start;
	ssize_t n = inside ? fd_pread(nodes->partition, buffer, len, offset - nodes->start)
			   : fd_pread(nodes->disk, buffer, len, offset);

	if (n < 0)
		return (int)n;
	return (size_t)n < len ? -ENODATA : 0;
}

/* The files are looked at beside the ploopd that writes to them: where things lie is as old as its last flush. */
static void space_of_device(const struct ploop_files *files, const struct superblock_source *source,
			    struct ploop_info *ret)
{
	struct ploop_files beside = *files;
	struct ploop_disk *disk;

	beside.in_use = true;
	if (ploop_disk_open(&beside, &disk, NULL) < 0)
		return;
	info_space(disk, source, ret);
	ploop_disk_close(disk);
}

static int fs_of_device(const struct ploop_files *files, const struct ploop_device *device, struct ploop_fs *fs,
			struct ploop_info *ret)
{
	_close_ int disk = open(device->device, O_RDONLY | O_CLOEXEC);
	_close_ int partition = open(ret->partition, O_RDONLY | O_CLOEXEC);
	struct nodes nodes = { .disk = disk, .partition = partition, .start = UINT64_MAX };
	const struct superblock_source source = { .read = read_node, .data = &nodes, .size = device->size };
	uint64_t start;
	int r = disk < 0 ? -errno : superblock_find(&source, &start);

	if (!r) {
		nodes.start = start;
		r = superblock_read(&source, fs);
	}
	if (!r)
		space_of_device(files, &source, ret);
	return r;
}

static int fs_of_mount(const char *target, struct ploop_fs *ret)
{
	struct statvfs st;

	if (statvfs(target, &st) < 0)
		return -errno;
	ret->block = st.f_frsize;
	ret->blocks = st.f_blocks;
	ret->blocks_free = st.f_bfree;
	ret->inodes = st.f_files;
	ret->inodes_free = st.f_ffree;
	return 0;
}

static int look_at_device(const struct ploop_files *files, const struct ploop_device *device, struct ploop_info *ret)
{
	struct ploop_fs fs = { 0 };
	int r = fs_of_device(files, device, &fs, ret);

	fill_mapped(device, ret);
	if (device->nmounts && (!r || r == -ENODATA)) {
		/* The kernel knows better than the superblock. */
		r = fs_of_mount(device->mounts[0], &fs);
		fs.approximate = false;
		if (!fs.type)
			fs.type = "unknown";
	}
	if (!r)
		ret->fs = fs;
	return r;
}

static int read_disk(void *data, void *buffer, size_t len, uint64_t offset)
{
	return ploop_disk_read(data, buffer, len, offset, NULL);
}

static int look_into(const struct ploop_files *files, struct ploop_info *ret, struct ploop_error *err)
{
	struct ploop_disk *disk;
	struct device_usage usage;
	struct superblock_source source = { .read = read_disk };
	int r = ploop_disk_open(files, &disk, err);

	if (r < 0)
		return r;
	device_get_usage(disk->device, &usage);
	ret->mapped_known = true;
	ret->mapped = usage.mapped * ret->cluster;
	source.data = disk;
	source.size = ploop_disk_size(disk);
	r = superblock_read(&source, &ret->fs);
	if (!r)
		info_space(disk, &source, ret);
	/* The mark on the image tells of a crash where the file system has no word for it. */
	if (!r && ret->images[ret->nimages - 1].in_use)
		ret->fs.approximate = true;
	ploop_disk_close(disk);
	return r;
}

static int no_fs(const struct ploop_info *info, int r, struct ploop_error *err)
{
	const char *name = info->descriptor ? info->descriptor : info->images[info->nimages - 1].file;

	if (r == -ENODATA)
		return error_set(err, r, PLOOP_EXIT_MOUNT,
				 "%s: there is no file system of a known kind (ext4, xfs) on it; "
				 "-s tells the size of the disk",
				 name);
	return error_sys(err, r, PLOOP_EXIT_READ, "%s: Can't read the file system", name);
}

int ploop_info(const struct ploop_files *files, unsigned what, struct ploop_info *ret, struct ploop_error *err)
{
	struct ploop_info info = { 0 };
	const struct ploop_device *device = NULL;
	struct ploop_device *devices = NULL;
	size_t n = 0;
	int r = look_at_images(files, &info, err);

	if (!r && what)
		r = ploop_list(&devices, &n, err);
	if (!r && what)
		device = find_device(&info, devices, n);
	if (!r && device) {
		r = name_device(device, &info);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_MALLOC, "info");
	}
	if (!r && what & PLOOP_INFO_CONTENT) {
		int content = device ? look_at_device(files, device, &info) : look_into(files, &info, &info.fs_error);

		if (content < 0 && !info.fs_error.code)
			no_fs(&info, content, &info.fs_error);
	}
	ploop_list_free(devices, n);
	if (r < 0)
		ploop_info_clear(&info);
	else
		*ret = info;
	return r;
}
