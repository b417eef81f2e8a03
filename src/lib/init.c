/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init.c - a new disk.
 *
 * The partition table and the file system are built in scratch files that have no name, and only then is the image made and
 * filled from them through the engine. The descriptor comes last. So almost everything that can go wrong goes wrong before
 * there is anything to clean up.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/child.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/create.h"
#include "image/dir.h"
#include "io/loop.h"
#include "lib/balloon-name.h"
#include "lib/init-ext.h"
#include "lib/init-from.h"
#include "lib/init-mkfs.h"
#include "lib/init-gpt.h"
#include "lib/init-import.h"
#include "lib/init-scratch.h"

#define DESCRIPTOR "DiskDescriptor.xml"
#define CLUSTER_DEFAULT (1024u * 1024)
#define FS_BLOCK_DEFAULT 4096u
#define BYTES_PER_INODE 16384u      /* what the original asks for */
#define BYTES_PER_INODE_SMALL 8192u /* below SMALL, where running out of inodes comes first */
#define SMALL (UINT64_C(8) << 30)
#define LOOP_DEPTH 64
#define MEMORY_DISK (4ull << 40) /* takes less than 100 MB */
#define SPARE_INODES 16          /* of every 100 files that are copied, so many more can be made later */

/* What is to be made, with all defaults filled in. */
struct init {
	const struct ploop_init_params *params;
	struct image_params image;
	struct geometry geometry;
	struct mkfs_request fs; /* type NULL: none */
	bool table;
	struct partition partition;

	struct dir *dir;
	const char *name; /* of the image in `dir` */
	struct from *from;
	struct from_size from_size;
	int table_fd, fs_fd; /* scratch files, or -EBADF */
};

static int plan_mode(struct init *init, struct ploop_error *err)
{
	const char *format = init->params->format;

	if (!format || !strcmp(format, "expanded") || !strcmp(format, "ploop1"))
		init->image.mode = IMAGE_EXPANDED;
	else if (!strcmp(format, "preallocated"))
		init->image.mode = IMAGE_PREALLOCATED;
	else if (!strcmp(format, "raw"))
		init->image.mode = IMAGE_RAW;
	else
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Bad -f argument: %s", format);
	return 0;
}

/* Up to whole clusters; down where up would be more than a disk of version 1 can have. */
static uint64_t round_size(uint64_t size, uint32_t cluster, unsigned version)
{
	uint64_t up;

	if (!checked_round_up(size, cluster, &up))
		return round_down(size, cluster);
	if (version == 1 && up / SECTOR > UINT32_MAX && size / SECTOR <= UINT32_MAX)
		return round_down(size, cluster);
	return up;
}

static int plan_image(struct init *init, struct ploop_error *err)
{
	const struct ploop_init_params *params = init->params;
	uint32_t cluster = params->cluster ? params->cluster : CLUSTER_DEFAULT;
	unsigned version = params->version ? params->version : 2;
	int r = plan_mode(init, err);

	if (r < 0)
		return r;
	init->image.sparse = params->flags & PLOOP_INIT_SPARSE;
	init->image.version = version;
	init->image.cluster = cluster;
	init->image.size = round_size(params->size, cluster, version);
	return image_plan(&init->image, &init->geometry, err);
}

static int plan_fs(struct init *init, struct ploop_error *err)
{
	const struct ploop_init_params *params = init->params;
	const char *name = params->fstype ? params->fstype : "ext4";
	const struct mkfs_type *type = mkfs_type_find(name);
	int r = 0;

	if (!strcmp(name, "none"))
		return params->from ? error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "--from needs a file system (-t)") : 0;
	if (!type)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect file system type specified: %s", name);
	if (params->from && !type->ext)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_PARAM, "--from fills ext3 and ext4 only, not %s", name);
	init->table = !(params->flags & PLOOP_INIT_NO_PARTITION);
	init->partition.size = init->image.size;
	if (init->table)
		r = gpt_plan(init->image.size, init->image.cluster, &init->partition, err);
	if (r < 0)
		return r;
	init->fs = (struct mkfs_request){
		.type = type,
		.size = init->partition.size,
		.block = params->fs_block ? params->fs_block : FS_BLOCK_DEFAULT,
		.bytes_per_inode = params->bytes_per_inode,
		.inodes = params->inodes,
		.label = params->label,
		.lazy = !(params->flags & PLOOP_INIT_NO_LAZY),
	};
	return mkfs_check(&init->fs, err);
}

static int check_absent(struct init *init, const char *name, struct ploop_error *err)
{
	_free_ char *path = NULL;

	if (!dir_exists(init->dir, name))
		return 0;
	path = dir_path(init->dir, name);
	return error_set(err, -EEXIST, PLOOP_EXIT_PARAM, "Can't create %s: File exists%s", path ? path : name,
			 strcmp(name, DESCRIPTOR) ? "" : "; each disk has a folder of its own");
}

static int plan_place(struct init *init, struct ploop_error *err)
{
	int r = dir_open_parent(NULL, init->params->image, &init->dir, &init->name, err);

	if (!r)
		r = check_absent(init, DESCRIPTOR, err);
	if (!r)
		r = check_absent(init, init->name, err);
	return r;
}

static uint64_t usual_bytes_per_inode(const struct init *init)
{
	return init->fs.size < SMALL ? BYTES_PER_INODE_SMALL : BYTES_PER_INODE;
}

/* Looks at what is to be copied, so that there are inodes enough. */
static int plan_from(struct init *init, struct ploop_error *err)
{
	uint64_t wanted, usual;
	int r;

	if (!init->params->from)
		return 0;
	r = from_open(init->params->from, &init->from, err);
	if (!r)
		r = from_measure(init->from, &init->from_size, err);
	if (r < 0 || init->fs.inodes || init->fs.bytes_per_inode)
		return r;
	wanted = init->from_size.files + init->from_size.files * SPARE_INODES / 100;
	usual = init->fs.size / usual_bytes_per_inode(init);
	if (wanted > usual)
		init->fs.inodes = wanted;
	return 0;
}

static int check_room(const struct init *init, const struct ext *ext, struct ploop_error *err)
{
	uint64_t bytes, inodes;

	ext_free_space(ext, &bytes, &inodes);
	if (init->from_size.bytes > bytes)
		return error_set(err, -ENOSPC, PLOOP_EXIT_MKFS,
				 "%s: the disk is too small: %s needs at least %llu MiB, and %llu MiB are free; "
				 "make it larger with -s",
				 init->params->image, init->params->from,
				 (unsigned long long)(init->from_size.bytes >> 20), (unsigned long long)(bytes >> 20));
	return 0;
}

static int add_balloon(struct ext *ext, struct ploop_error *err)
{
	struct timespec now = { .tv_sec = time(NULL) };
	const struct ext_stat stat = {
		.mode = S_IFREG | 0600, .atime = now, .mtime = now, .ctime = now, .crtime = now
	};
	struct ext_node *node;

	log_info("Creating balloon file " BALLOON_NAME);
	return ext_add(ext, BALLOON_NAME, &stat, &node, err);
}

static int fill_ext(struct init *init, bool *ret_large, struct ploop_error *err)
{
	const struct ploop_init_params *params = init->params;
	struct ext *ext;
	int r = ext_open(init->fs_fd, params->image, &ext, err);

	if (r < 0)
		return r;
	r = add_balloon(ext, err);
	if (!r && init->from)
		r = check_room(init, ext, err);
	if (!r && init->from)
		r = from_copy(init->from, ext, params->progress, params->progress_data, err);
	if (r < 0) {
		ext_abandon(ext);
		return r;
	}
	return ext_close(ext, ret_large, err);
}

/* Large directories get the index that the kernel would have given them as they grew. */
static int index_directories(struct init *init, struct ploop_error *err)
{
	static const char *const argv[] = { "e2fsck", "-f", "-p", "-D", CHILD_FD_PATH, NULL };
	const struct child_request request = { .argv = argv, .fd = init->fs_fd, .level = LOG_LEVEL_DETAIL };
	char last[256];
	int status;
	int r = child_run(&request, &status, last, sizeof(last));

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKFS, "%s: cannot run e2fsck", init->params->image);
	/* 1: "the file system was modified", as it should be. */
	if (status > 1)
		return error_set(err, -EUCLEAN, PLOOP_EXIT_MKFS, "%s: e2fsck failed (exit code %d): %s",
				 init->params->image, status, last);
	return 0;
}

/*
 * An empty ext file system is some megabytes even on a large disk: then memory is faster than any disk, and no matter what the
 * file system of the image can do. mkfs.xfs writes its whole log.
 */
static bool fits_memory(const struct init *init)
{
	return init->fs.type->ext && init->fs.lazy && !init->from && init->fs.size <= MEMORY_DISK;
}

static int build_fs(struct init *init, struct ploop_error *err)
{
	const char *image = init->params->image;
	bool large = false;
	int r;

	if (fits_memory(init))
		r = scratch_open_memory(init->partition.size, &init->fs_fd, err);
	else
		r = scratch_open(image, init->partition.size, &init->fs_fd, err);

	if (!init->fs.bytes_per_inode && init->fs.type->ext)
		init->fs.bytes_per_inode = usual_bytes_per_inode(init);
	if (!r)
		r = mkfs_run(init->fs_fd, image, &init->fs, err);
	if (!r && init->fs.type->ext)
		r = fill_ext(init, &large, err);
	if (!r && large)
		r = index_directories(init, err);
	return r;
}

/* Everything that the disk shall hold, into scratch files. */
static int build(struct init *init, struct ploop_error *err)
{
	int r = 0;

	if (!init->fs.type)
		return 0;
	if (init->table) {
		r = scratch_open_memory(init->image.size, &init->table_fd, err);
		if (!r)
			r = gpt_write(init->table_fd, init->params->image, &init->partition, err);
	}
	return r ? r : build_fs(init, err);
}

static int import_all(struct init *init, struct ploop_error *err)
{
	bool raw = init->image.mode == IMAGE_RAW;
	const struct ploop_init_params *params = init->params;
	struct import *import;
	int r = 0, closed;

	if (!init->fs.type)
		return 0;
	r = import_open(params->image, raw ? "raw" : "ploop1", raw ? init->image.cluster : 0, &import, err);
	if (r < 0)
		return r;
	if (init->table)
		r = import_file(import, init->table_fd, 0, NULL, NULL, err);
	if (!r)
		r = import_file(import, init->fs_fd, init->partition.start, params->progress, params->progress_data,
				err);
	closed = import_close(import, r ? NULL : err);
	return r ? r : closed;
}

/* The files with names: image first, descriptor last; none is left on failure. */
static int make_files(struct init *init, struct loop *loop, struct ploop_error *err)
{
	int r = image_create(loop, init->dir, init->name, &init->image, err);

	if (r < 0)
		return r;
	r = import_all(init, err);
	if (!r)
		r = disk_create(init->dir, DESCRIPTOR, init->name, &init->image, err);
	if (r < 0)
		dir_unlink(init->dir, init->name);
	return r;
}

static int run(struct init *init, struct ploop_error *err)
{
	struct loop *loop;
	int r;

	r = plan_image(init, err);
	if (!r)
		r = plan_fs(init, err);
	if (!r)
		r = plan_place(init, err);
	if (!r)
		r = plan_from(init, err);
	if (!r)
		r = build(init, err);
	if (!r)
		r = loop_new(NULL, LOOP_DEPTH, &loop, err);
	if (r < 0)
		return r;
	r = make_files(init, loop, err);
	loop_free(loop);
	return r;
}

int ploop_init(const struct ploop_init_params *params, struct ploop_error *err)
{
	struct init init = { .params = params, .table_fd = -EBADF, .fs_fd = -EBADF };
	int r = run(&init, err);

	cleanup_close(&init.table_fd);
	cleanup_close(&init.fs_fd);
	from_close(init.from);
	dir_close(init.dir);
	return r;
}
