/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* posix.c - see posix.h. */
#include "io/posix.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/fd.h"

/* What zeros are written from. Never written to. */
#define ZEROS_LEN (256u * 1024)
static const char zeros[ZEROS_LEN] __attribute__((aligned(4096)));

static uint32_t posix_block_size(int fd)
{
	struct statfs fs;

	if (fstatfs(fd, &fs) || !is_power_of_two((uint64_t)fs.f_bsize))
		return 4096;
	return (uint32_t)min_u64(max_u64((uint64_t)fs.f_bsize, 512), 1 << 20);
}

static int posix_open_fd(const char *path, unsigned flags, struct ploop_error *err)
{
	/* O_NONBLOCK: do not hang on a pipe that somebody put there. */
	int how = (flags & IO_RDWR ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	int fd = open(path, flags & IO_CREATE ? how | O_CREAT | O_EXCL : how, 0600);

	if (fd >= 0)
		return fd;
	if (flags & IO_CREATE)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "cannot create %s", path);
	return error_sys(err, -errno, PLOOP_EXIT_OPEN, "cannot open %s", path);
}

int posix_open(struct posix_file *self, const struct io_ops *ops, struct loop *loop, const char *path, unsigned flags,
	       struct ploop_error *err)
{
	int fd = posix_open_fd(path, flags, err);
	struct stat st;

	if (fd < 0)
		return fd;
	/* Later, O_NONBLOCK would keep io_uring from waiting where the file system cannot say whether it would block. */
	if (fstat(fd, &st) || !S_ISREG(st.st_mode) || fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK)) {
		close(fd);
		return error_set(err, -EINVAL, PLOOP_EXIT_OPEN, "%s is not a regular file", path);
	}
	*self = (struct posix_file){
		.file = { .ops = ops, .loop = loop, .path = strdup(path), .flags = flags, .memory_align = 1,
			  .block = posix_block_size(fd), .can_clone = true },
		.fd = fd,
	};
	if (!self->file.path) {
		close(fd);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot open %s", path);
	}
	return 0;
}

void posix_close(struct posix_file *self)
{
	io_pool_put(self->pool);
	close(self->fd);
	free(self->file.path);
}

int posix_sync(struct io_file *file)
{
	return fdatasync(posix_file(file)->fd) ? -errno : 0;
}

int posix_size(struct io_file *file, uint64_t *ret)
{
	struct stat st;

	if (fstat(posix_file(file)->fd, &st))
		return -errno;
	*ret = (uint64_t)st.st_size;
	return 0;
}

int posix_truncate(struct io_file *file, uint64_t size)
{
	int r;

	do
		r = ftruncate(posix_file(file)->fd, (off_t)size) ? -errno : 0;
	while (r == -EINTR);
	return r;
}

int posix_next_data(struct io_file *file, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
	int fd = posix_file(file)->fd;
	off_t start, end;
	uint64_t size;
	int r = posix_size(file, &size);

	if (r)
		return r;
	*ret_start = *ret_end = size;
	if (offset >= size)
		return 0;
	start = lseek(fd, (off_t)offset, SEEK_DATA);
	if (start < 0 && errno == ENXIO)
		return 0;
	/* A file system that knows no holes. */
	*ret_start = start < 0 ? offset : (uint64_t)start;
	end = start < 0 ? -1 : lseek(fd, start, SEEK_HOLE);
	if (end >= 0)
		*ret_end = (uint64_t)end;
	return 0;
}

int posix_allocated(struct io_file *file, uint64_t *ret)
{
	struct stat st;

	if (fstat(posix_file(file)->fd, &st))
		return -errno;
	*ret = (uint64_t)st.st_blocks * 512;
	return 0;
}

int posix_fallocate_mode(enum io_kind kind)
{
	return FALLOC_FL_KEEP_SIZE | (kind == IO_PUNCH ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE);
}

bool posix_cannot(int result)
{
	return result == -EOPNOTSUPP || result == -ENOSYS;
}

/* Zeros as data, for file systems without fallocate(). Stops at the end of the file, whose length must not change. */
static int posix_write_zeros(struct io_file *file, uint64_t offset, uint64_t length)
{
	uint64_t size, end;
	int r = posix_size(file, &size);

	for (end = min_u64(offset + length, size); !r && offset < end; offset += ZEROS_LEN)
		r = file->ops->pwrite(file, zeros, min_u64(end - offset, ZEROS_LEN), offset);
	return r;
}

static int posix_zero(struct io_op *op)
{
	int fd = posix_file(op->file)->fd;
	int r;

	do
		r = fallocate(fd, posix_fallocate_mode(op->kind), (off_t)op->offset, (off_t)op->length) ? -errno : 0;
	while (r == -EINTR);
	return posix_cannot(r) ? posix_write_zeros(op->file, op->offset, op->length) : r;
}

static int posix_clone(struct io_op *op)
{
	struct file_clone_range range = {
		.src_fd = posix_file(op->source)->fd,
		.src_offset = op->source_offset,
		.src_length = op->length,
		.dest_offset = op->offset,
	};

	return ioctl(posix_file(op->file)->fd, FICLONERANGE, &range) ? -errno : 0;
}

int posix_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset)
{
	ssize_t n = fd_pread(posix_file(file)->fd, buffer, len, offset);

	if (n < 0)
		return (int)n;
	memset((char *)buffer + n, 0, len - (size_t)n);
	return 0;
}

int posix_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset)
{
	return fd_pwrite(posix_file(file)->fd, buffer, len, offset);
}

int posix_perform(struct io_op *op)
{
	const struct io_ops *ops = op->file->ops;

	switch (op->kind) {
	case IO_READ:
		return ops->pread(op->file, op->buffer, op->length, op->offset);
	case IO_WRITE:
		return ops->pwrite(op->file, op->buffer, op->length, op->offset);
	case IO_ZERO:
	case IO_PUNCH:
		return posix_zero(op);
	case IO_DATASYNC:
		return posix_sync(op->file);
	case IO_CLONE:
		return posix_clone(op);
	}
	return -EINVAL;
}

/* Lives in op->scratch. */
struct posix_job {
	struct io_pool_job job;
	int result;
} __attribute__((may_alias));

_Static_assert(sizeof(struct posix_job) <= sizeof(((struct io_op *)0)->scratch), "scratch is too small");

static struct io_op *posix_op(struct io_pool_job *job)
{
	return container_of((void *)container_of(job, struct posix_job, job), struct io_op, scratch);
}

static void posix_work(struct io_pool_job *job)
{
	container_of(job, struct posix_job, job)->result = posix_perform(posix_op(job));
}

/* Every reason why two ranges cannot share blocks becomes -EOPNOTSUPP: then the caller copies. EINVAL (not whole blocks)
 * is about one range, the others about the file. */
int posix_clone_result(struct io_file *file, int result)
{
	if (result == -EINVAL)
		return -EOPNOTSUPP;
	if (result != -EXDEV && result != -ENOTTY && result != -EPERM && !posix_cannot(result))
		return result;
	file->can_clone = false;
	return -EOPNOTSUPP;
}

static void posix_finished(struct io_pool_job *job)
{
	struct io_op *op = posix_op(job);
	int result = container_of(job, struct posix_job, job)->result;

	op->done(op, op->kind == IO_CLONE ? posix_clone_result(op->file, result) : result);
}

static void posix_refuse(struct io_pool_job *job)
{
	container_of(job, struct posix_job, job)->result = -EOPNOTSUPP;
}

void posix_submit(struct io_op *op)
{
	struct posix_job *job = (struct posix_job *)op->scratch;
	bool refuse = op->kind == IO_CLONE && !op->file->can_clone;

	*job = (struct posix_job){ .job = { .work = refuse ? posix_refuse : posix_work, .finished = posix_finished } };
	io_pool_submit(posix_file(op->file)->pool, &job->job);
}
