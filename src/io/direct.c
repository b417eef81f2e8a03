/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* direct.c - see direct.h. */
#include "io/direct.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#define PIECE (UINT64_C(1) << 20)

static int direct_read(int fd, char *buffer, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, buffer + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
		if (!n || n % 512)
			break;
	}
	memset(buffer + done, 0, len - done);
	return 0;
}

static bool direct_fits(const struct io_file *file, const void *buffer, size_t len, uint64_t offset)
{
	return !(offset % 512) && !(len % 512) && !((uintptr_t)buffer % file->memory_align);
}

int direct_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset)
{
	uint64_t at = round_down(offset, 512), end = offset + len;
	int fd = posix_file(file)->fd, r = 0;
	size_t piece;
	char *bounce;

	if (direct_fits(file, buffer, len, offset))
		return direct_read(fd, buffer, len, offset);
	piece = min_u64(PIECE, round_up(end, 512) - at);
	bounce = io_buffer_new(piece);
	if (!bounce)
		return -ENOMEM;
	for (; at < end && !r; at += piece) {
		uint64_t from = max_u64(at, offset), to = min_u64(at + piece, end);

		r = direct_read(fd, bounce, piece, at);
		if (!r)
			memcpy((char *)buffer + (from - offset), bounce + (from - at), to - from);
	}
	io_buffer_free(bounce, piece);
	return r;
}

/* Whole sectors from memory that is not aligned. */
static int direct_pwrite_bounced(struct io_file *file, const char *buffer, size_t len, uint64_t offset)
{
	size_t piece = min_u64(PIECE, len);
	char *bounce = io_buffer_new(piece);
	int r = 0;

	if (!bounce)
		return -ENOMEM;
	for (size_t done = 0; done < len && !r; done += piece) {
		size_t n = min_u64(piece, len - done);

		memcpy(bounce, buffer + done, n);
		r = fd_pwrite(posix_file(file)->fd, bounce, n, offset + done);
	}
	io_buffer_free(bounce, piece);
	return r;
}

/* Parts of sectors: through the page cache, which the kernel keeps coherent with direct I/O. */
static int direct_pwrite_cached(struct io_file *file, const void *buffer, size_t len, uint64_t offset)
{
	_close_ int fd = -EBADF;
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", posix_file(file)->fd);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return fd_pwrite(fd, buffer, len, offset);
}

int direct_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset)
{
	if (direct_fits(file, buffer, len, offset))
		return fd_pwrite(posix_file(file)->fd, buffer, len, offset);
	if (offset % 512 || len % 512)
		return direct_pwrite_cached(file, buffer, len, offset);
	return direct_pwrite_bounced(file, buffer, len, offset);
}

/*
 * XFS names a whole block for a file that shares blocks with another, because it takes smaller writes through its cache; but it
 * does take them. What the disk below can do is seen by a read.
 */
static bool direct_xfs_takes_sectors(int fd)
{
	struct statfs fs;
	char *memory;
	bool ok;

	if (fstatfs(fd, &fs) || fs.f_type != XFS_SUPER_MAGIC)
		return false;
	memory = io_buffer_new(512);
	ok = memory && pread(fd, memory, 512, 512) >= 0;
	io_buffer_free(memory, 512);
	return ok;
}

int direct_begin(struct posix_file *self, struct ploop_error *err)
{
	int flags = fcntl(self->fd, F_GETFL);
	struct statx st;

	if (statx(self->fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &st) || !(st.stx_mask & STATX_DIOALIGN) ||
	    !st.stx_dio_offset_align)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_OPEN, "%s: its file system has no direct I/O",
				 self->file.path);
	self->file.memory_align = st.stx_dio_mem_align ? st.stx_dio_mem_align : 512;
	/* Nobody needs to know when an image was read last, and noting it takes time; it may be for the file's owner only. */
	if (flags < 0 || (fcntl(self->fd, F_SETFL, flags | O_DIRECT | O_NOATIME) &&
			  fcntl(self->fd, F_SETFL, flags | O_DIRECT)))
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_OPEN, "%s: its file system has no direct I/O",
				 self->file.path);
	if (st.stx_dio_offset_align > 512 && !direct_xfs_takes_sectors(self->fd))
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_OPEN, "%s: its file system has no direct I/O at 512 bytes",
				 self->file.path);
	self->file.direct = true;
	return 0;
}
