/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * builder-file.c - an image is built in a file. Writes go to the page cache, which the host is asked to empty as they come, so that
 * what is left to be made durable at the end is little.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/list.h"
#include "image/builder.h"

#define PUSH_BYTES (16u << 20)
#define ZEROS (64u << 10)

static int file_write(struct builder_out *out, const void *data, size_t len, uint64_t pos)
{
	struct builder_file *file = container_of(out, struct builder_file, out);
	int r = fd_pwrite(file->fd, data, len, pos);

	if (r < 0)
		return r;
	file->pushed += len;
	if (file->pushed >= PUSH_BYTES) {
		file->pushed = 0;
		(void)sync_file_range(file->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	}
	out->size = max_u64(out->size, pos + len);
	return 0;
}

static int write_zeros(int fd, uint64_t pos, uint64_t len)
{
	static const char zeros[ZEROS];
	int r = 0;

	for (uint64_t done = 0; !r && done < len; done += ZEROS)
		r = fd_pwrite(fd, zeros, min_u64(ZEROS, len - done), pos + done);
	return r;
}

static int file_zero(struct builder_out *out, uint64_t pos, uint64_t len)
{
	struct builder_file *file = container_of(out, struct builder_file, out);

	/* Beyond its end a file reads as zeros. */
	if (pos >= out->size)
		return 0;
	len = min_u64(len, out->size - pos);
	if (fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)pos, (off_t)len) == 0)
		return 0;
	return errno == EOPNOTSUPP || errno == ENOSYS ? write_zeros(file->fd, pos, len) : -errno;
}

static int file_clone(struct builder_out *out, int fd, uint64_t from, uint64_t len, uint64_t pos)
{
	struct builder_file *file = container_of(out, struct builder_file, out);
	struct file_clone_range range = { .src_fd = fd, .src_offset = from, .src_length = len, .dest_offset = pos };

	/* A length of 0 would mean: to the end. */
	if (!len || ioctl(file->fd, FICLONERANGE, &range) < 0)
		return len ? -errno : 0;
	out->size = max_u64(out->size, pos + len);
	return 0;
}

static int file_read(struct builder_out *out, void *data, size_t len, uint64_t pos)
{
	const struct builder_file *file = container_of(out, struct builder_file, out);
	ssize_t n = fd_pread(file->fd, data, len, pos);

	if (n < 0)
		return (int)n;
	memset((char *)data + n, 0, len - (size_t)n);
	return 0;
}

static int file_finish(struct builder_out *out, uint64_t size)
{
	const struct builder_file *file = container_of(out, struct builder_file, out);

	return ftruncate(file->fd, (off_t)size) < 0 || fsync(file->fd) < 0 ? -errno : 0;
}

int builder_file_open(struct builder_file *file, const char *path, bool resume, struct ploop_error *err)
{
	struct stat st;

	*file = (struct builder_file){
		.out = { .write = file_write,
			 .zero = file_zero,
			 .clone = file_clone,
			 .finish = file_finish,
			 .read = file_read },
	};
	file->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | (resume ? 0 : O_EXCL), 0600);
	if (file->fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "Can't open %s", path);
	if (fstat(file->fd, &st) < 0 || !S_ISREG(st.st_mode)) {
		builder_file_close(file);
		return error_set(err, -EINVAL, PLOOP_EXIT_CREAT, "Can't open %s: not a regular file", path);
	}
	file->out.size = (uint64_t)st.st_size;
	return 0;
}

void builder_file_close(struct builder_file *file)
{
	cleanup_close(&file->fd);
	file->fd = -EBADF;
}
