/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack-merge.c - what a merge does to the files of a stack: one more is opened for writing, some are emptied and let go.
 *
 * Order of stack_empty():
 *  1. Every entry of the index is zero, and the header names no format extension, durably. The image is closed before and after.
 *  2. The file is cut to what an empty image has.
 * Cut off in between, the file is an image that maps less than before, and holds space that nothing uses.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/error.h"
#include "image/level.h"
#include "image/stack.h"

#define ZEROS (1u << 20)

int stack_open_writable(struct loop *loop, struct stack *stack, unsigned level, struct io_file **ret,
			struct ploop_error *err)
{
	return level_reopen(loop, &stack->levels[level], stack->locks[level], ret, err);
}

int stack_reread(struct stack *stack, unsigned level, struct ploop_error *err)
{
	struct delta *delta = &stack->levels[level];

	return level_parse(delta, delta->geometry.cluster, err);
}

void stack_set_file(struct stack *stack, unsigned level, struct io_file *file)
{
	io_close(stack->levels[level].file);
	stack->levels[level].file = file;
}

static int write_zeros(struct io_file *file, const void *zeros, uint64_t start, uint64_t end)
{
	int r = 0;

	while (start < end && !r) {
		uint64_t take = min_u64(end - start, ZEROS);

		r = io_pwrite(file, zeros, (size_t)take, start);
		start += take;
	}
	return r;
}

/* Where there is data: most of the index of a large disk is a hole. */
static int clear_index(struct io_file *file, uint64_t start, uint64_t end)
{
	void *zeros = io_buffer_new(ZEROS);
	int r = zeros ? 0 : -ENOMEM;

	while (start < end && !r) {
		uint64_t data, hole;

		r = io_next_data(file, start, &data, &hole);
		if (r || data >= end)
			break;
		r = write_zeros(file, zeros, max_u64(start, data), min_u64(end, hole));
		start = hole;
	}
	if (zeros)
		io_buffer_free(zeros, ZEROS);
	return r;
}

/* The header as it is, but for the extension. */
static int drop_extension(const struct delta *delta)
{
	struct geometry g = delta->geometry;
	uint8_t sector[SECTOR];
	int r;

	if (!g.extension)
		return 0;
	r = io_pread(delta->file, sector, sizeof(sector), 0);
	g.extension = 0;
	delta->format->build(&g, sector);
	return r ? r : io_pwrite(delta->file, sector, sizeof(sector), 0);
}

int stack_empty(struct stack *stack, unsigned level, struct ploop_error *err)
{
	const struct delta *delta = &stack->levels[level];
	struct delta now = *delta; /* it may have been merged into before, and be larger than it was */
	const struct geometry *g = &now.geometry;
	struct io_file *file;
	int r = level_reopen(NULL, delta, stack->locks[level], &file, err);

	if (r < 0)
		return r;
	now.file = file;
	r = level_parse(&now, 0, err);
	if (r < 0) {
		io_close(file);
		return r;
	}
	r = clear_index(file, g->index, g->index + 4 * (uint64_t)g->clusters);
	if (!r)
		r = drop_extension(&now);
	if (!r)
		r = io_sync(file);
	if (!r)
		r = io_truncate(file, geometry_offset(g, g->first));
	if (!r)
		r = io_sync(file);
	io_close(file);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s: cannot be emptied", delta->file->path) : 0;
}

void stack_drop(struct stack *stack, unsigned first, unsigned last)
{
	unsigned above = stack->nlevels - last - 1;

	for (unsigned i = first; i <= last; i++) {
		io_close(stack->levels[i].file);
		if (stack->locks[i] >= 0)
			close(stack->locks[i]);
	}
	memmove(&stack->levels[first], &stack->levels[last + 1], above * sizeof(stack->levels[0]));
	memmove(&stack->locks[first], &stack->locks[last + 1], above * sizeof(stack->locks[0]));
	stack->nlevels -= last - first + 1;
}
