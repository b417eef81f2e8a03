/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* io.c - chooses the module of a file and checks every operation once, for all modules. */
#include "io/io.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "base/checked.h"
#include "base/error.h"
#include "io/loop.h"
#include "io/modules.h"

#define LARGE_PAGE (UINT64_C(2) << 20)

const struct io_ops *const io_modules[] = { &io_uring_ops, &io_sync_ops, NULL };

const struct io_ops *io_module_find(const char *name)
{
	for (unsigned i = 0; io_modules[i]; i++)
		if (!strcmp(io_modules[i]->name, name))
			return io_modules[i];
	return NULL;
}

int io_open(struct loop *loop, const struct io_ops *module, const char *path, unsigned flags, struct io_file **ret,
	    struct ploop_error *err)
{
	int r;

	assert(flags & IO_RDWR || !(flags & IO_CREATE));
	if (module)
		return module->open(loop, path, flags, ret, err);
	if (loop_ring(loop) && !(flags & IO_BUFFERED)) {
		r = io_uring_ops.open(loop, path, flags, ret, err);
		if (r != -EOPNOTSUPP)
			return r;
		/* It has made the file before it saw that direct I/O does not work there. */
		flags &= ~(unsigned)IO_CREATE;
	}
	return io_sync_ops.open(loop, path, flags, ret, err);
}

void io_close(struct io_file *file)
{
	if (file)
		file->ops->close(file);
}

static bool io_whole_sectors(uint64_t offset, uint64_t length)
{
	uint64_t end;

	return !(offset % 512) && !(length % 512) && !__builtin_add_overflow(offset, length, &end) && end <= INT64_MAX;
}

void io_submit(struct io_op *op)
{
	assert(op->file->loop && op->done);
	assert(op->kind == IO_READ || op->kind == IO_DATASYNC || op->file->flags & IO_RDWR);
	if (op->kind == IO_DATASYNC) {
		assert(!op->length);
	} else {
		assert(op->length && io_whole_sectors(op->offset, op->length));
		assert(op->buffer || (op->kind != IO_READ && op->kind != IO_WRITE));
		assert(op->kind != IO_CLONE || (op->source->ops == op->file->ops &&
						io_whole_sectors(op->source_offset, op->length)));
	}
	op->file->ops->submit(op);
}

int io_pread(struct io_file *file, void *buffer, size_t len, uint64_t offset)
{
	return len ? file->ops->pread(file, buffer, len, offset) : 0;
}

int io_pwrite(struct io_file *file, const void *buffer, size_t len, uint64_t offset)
{
	return len ? file->ops->pwrite(file, buffer, len, offset) : 0;
}

int io_sync(struct io_file *file)
{
	return file->ops->sync(file);
}

int io_size(struct io_file *file, uint64_t *ret)
{
	return file->ops->size(file, ret);
}

int io_truncate(struct io_file *file, uint64_t size)
{
	return file->ops->truncate(file, size);
}

int io_next_data(struct io_file *file, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
	return file->ops->next_data(file, offset, ret_start, ret_end);
}

int io_allocated(struct io_file *file, uint64_t *ret)
{
	return file->ops->allocated(file, ret);
}

void *io_buffer_new(size_t len)
{
	void *buffer = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	return buffer == MAP_FAILED ? NULL : buffer;
}

/*
 * Each page is a piece of its own on the way to the disk, and where a disk is a virtual one each piece costs time: a MiB in
 * one page is there in less than half the time that 256 pages take.
 */
void *io_buffer_new_large(size_t len)
{
	char *buffer = io_buffer_new(len + LARGE_PAGE);
	size_t head;

	assert(len % LARGE_PAGE == 0);
	if (!buffer)
		return NULL;
	head = round_up((uintptr_t)buffer, LARGE_PAGE) - (uintptr_t)buffer;
	if (head)
		munmap(buffer, head);
	buffer += head;
	munmap(buffer + len, LARGE_PAGE - head);
	(void)madvise(buffer, len, MADV_HUGEPAGE);
	return buffer;
}

void io_buffer_free(void *buffer, size_t len)
{
	if (buffer)
		munmap(buffer, len);
}
