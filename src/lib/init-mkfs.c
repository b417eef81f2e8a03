/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-mkfs.c - the command lines of mke2fs and mkfs.xfs. */
#include "lib/init-mkfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/child.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/log.h"
#include "lib/balloon-name.h"

#define MIB (1024 * 1024ull)
#define JOURNAL_MIB 128ull /* what the original asks for */
#define JOURNAL_PART 64    /* but never more than this part of a disk, as a small one would be half journal */
#define JOURNAL_LEAST 4ull /* MiB; for less than that mke2fs chooses by itself */
#define BLOCKS_32BIT UINT32_MAX

#define ARGUMENT 64
#define ARGUMENTS 32

struct command {
	const char *argv[ARGUMENTS];
	char text[ARGUMENTS][ARGUMENT];
	unsigned n;
};

static const struct mkfs_type mkfs_types[] = {
	{ "ext3", true, 16, 1024, 65536, 16 },
	{ "ext4", true, 16, 1024, 65536, 16 },
	{ "xfs", false, 12, 512, 65536, 300 },
};

const struct mkfs_type *mkfs_type_find(const char *name)
{
	for (unsigned i = 0; i < ARRAY_SIZE(mkfs_types); i++)
		if (!strcmp(name, mkfs_types[i].name))
			return &mkfs_types[i];
	return NULL;
}

int mkfs_check(const struct mkfs_request *request, struct ploop_error *err)
{
	const struct mkfs_type *type = request->type;

	if (!is_power_of_two(request->block) || request->block < type->block_min || request->block > type->block_max)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Incorrect file system block size %u: %s takes a power of two, %u to %u bytes",
				 request->block, type->name, type->block_min, type->block_max);
	if (request->label && strlen(request->label) > type->label)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Label %s is too long: %s takes at most %u bytes",
				 request->label, type->name, type->label);
	if (!type->ext && (request->inodes || request->bytes_per_inode))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s makes its inodes as they are needed: leave out -i and -N", type->name);
	if (request->size > FS_SIZE_MAX)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "An incorrect block device size is specified: %" PRIu64
				 " sectors. The maximum allowed size is %llu sectors for a disk with a file system "
				 "(use -t none)",
				 request->size / 512, FS_SIZE_MAX / 512);
	return 0;
}

static void add(struct command *command, const char *format, ...) __attribute__((format(printf, 2, 3)));

static void add(struct command *command, const char *format, ...)
{
	char *text = command->text[command->n];
	va_list ap;

	va_start(ap, format);
	vsnprintf(text, ARGUMENT, format, ap);
	va_end(ap);
	command->argv[command->n++] = text;
}

static void add_journal(struct command *command, uint64_t size)
{
	uint64_t mib = min_u64(JOURNAL_MIB, size / JOURNAL_PART / MIB);

	add(command, "-j");
	if (mib < JOURNAL_LEAST)
		return;
	add(command, "-J");
	add(command, "size=%" PRIu64, mib);
}

/*
 * The scratch file reads as zeros, so a journal that mke2fs leaves alone (lazy_journal_init) is a zeroed journal. By default
 * it punches the file first and thus knows as much of the inode tables: they are marked as zeroed, and the kernel has no
 * reason to write gigabytes of zeros into the disk after the first mount.
 */
static void add_extended(struct command *command, const struct mkfs_request *request, uint64_t blocks)
{
	uint64_t most = min_u64(FS_SIZE_MAX / request->block, BLOCKS_32BIT);
	unsigned lazy = request->lazy;

	add(command, "-E");
	if (blocks < most)
		add(command, "lazy_itable_init=%u,lazy_journal_init=%u,resize=%" PRIu64, lazy, lazy, most);
	else
		add(command, "lazy_itable_init=%u,lazy_journal_init=%u", lazy, lazy);
}

static void mke2fs_command(struct command *command, const struct mkfs_request *request)
{
	uint64_t blocks = request->size / request->block;

	add(command, "mke2fs");
	add(command, "-F"); /* a file is no mistake */
	add(command, "-t");
	add(command, "%s", request->type->name);
	add_journal(command, request->size);
	add(command, "-b%u", request->block);
	add_extended(command, request, blocks);
	if (request->inodes)
		add(command, "-N%" PRIu64, request->inodes);
	else
		add(command, "-i%" PRIu64, request->bytes_per_inode);
	add(command, "-eremount-ro");
	if (request->label) {
		add(command, "-L");
		add(command, "%s", request->label);
	}
	add(command, CHILD_FD_PATH);
	add(command, "%" PRIu64, blocks);
}

static void mkfs_xfs_command(struct command *command, const struct mkfs_request *request, const char *prototype)
{
	add(command, "mkfs.xfs");
	add(command, "-f");
	add(command, "-K"); /* nothing to discard in a file without blocks */
	add(command, "-bsize=%u", request->block);
	if (request->label) {
		add(command, "-L");
		add(command, "%s", request->label);
	}
	add(command, "-p");
	add(command, "%s", prototype);
	add(command, CHILD_FD_PATH);
}

static int run(const struct command *command, const struct mkfs_request *mkfs, int fd, const char *name,
	       struct ploop_error *err)
{
	const struct child_request request = { .argv = command->argv, .fd = fd, .level = LOG_LEVEL_INFO };
	char last[512];
	int status, r;

	r = child_run(&request, &status, last, sizeof(last));
	if (r == -ENOENT)
		return error_set(err, r, PLOOP_EXIT_MKFS, "%s: %s is not installed (Debian: package %s)", name,
				 command->argv[0], strcmp(command->argv[0], "mke2fs") ? "xfsprogs" : "e2fsprogs");
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKFS, "%s: cannot run %s", name, command->argv[0]);
	if (status && mkfs->size < mkfs->type->size_min * MIB)
		return error_set(err, -EIO, PLOOP_EXIT_MKFS, "%s: %s finds it too small: %s wants %u MiB (or use -t none)",
				 name, command->argv[0], mkfs->type->name, mkfs->type->size_min);
	if (status)
		return error_set(err, -EIO, PLOOP_EXIT_MKFS, "%s: %s failed (exit code %d): %s", name, command->argv[0],
				 status, last);
	return 0;
}

/* mkfs.xfs makes the balloon file itself, from a description of the new tree: an empty file of mode 0600, owned by root. */
static int write_prototype(int *ret_fd)
{
	static const char text[] = "/\n0 0\nd--755 0 0\n" BALLOON_NAME " ---600 0 0 /dev/null\n$\n";
	_close_ int fd = memfd_create("ploop-prototype", MFD_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = fd_pwrite(fd, text, sizeof(text) - 1, 0);
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

int mkfs_run(int fd, const char *name, const struct mkfs_request *request, struct ploop_error *err)
{
	struct command command = { .n = 0 };
	_close_ int prototype = -EBADF;
	char path[ARGUMENT];
	int r;

	if (request->type->ext) {
		mke2fs_command(&command, request);
		return run(&command, request, fd, name, err);
	}
	r = write_prototype(&prototype);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKFS, "%s: no memory for a file", name);
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", getpid(), prototype);
	mkfs_xfs_command(&command, request, path);
	return run(&command, request, fd, name, err);
}
