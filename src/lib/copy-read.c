/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-read.c - see copy-read.h. Slots are filled in a ring: reads are submitted ahead of the one that the sink waits for, and go
 * on in the kernel while the sink is busy.
 */
#include "lib/copy-read.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/list.h"
#include "io/io.h"
#include "io/loop.h"

/* Many, as what changes between passes is scattered. */
#define SLOTS 64
#define SLOT_BYTES (256u << 10)
#define BLOCK 4096u        /* what zeros are looked for in */
#define ZEROS_LEAST 65536u /* fewer in a row go as data: a record costs, too */

struct slot {
	struct io_op op;
	struct copy_run run; /* at most SLOT_BYTES, unless it is a hole or nowhere */
	bool busy, hole;
	bool shared; /* nothing was read: the sink takes it from the file */
	int result;
	char *buffer;
};

struct copy_reader {
	struct loop *loop;
	struct io_file **files;
	int *fds; /* of those that nobody writes to; -EBADF for others */
	size_t nfiles, still;
	bool no_clone; /* it cannot be done here */
	struct slot slots[SLOTS];
	char *memory;
	/* What is known to hold data in one of the files: asked once for all of it, as the answer may take longer the more there is. A
	 * hole that has come there since reads as zeros, too. */
	int data_level;
	uint64_t data_start, data_end;
	uint64_t bytes, rate, limited_from, limited_bytes;
};

int copy_reader_new(char *const *files, size_t n, struct copy_reader **ret, struct ploop_error *err)
{
	struct copy_reader *reader = calloc(1, sizeof(*reader));
	int r = 0;

	if (reader) {
		reader->files = calloc(n, sizeof(struct io_file *));
		reader->fds = calloc(n, sizeof(*reader->fds));
		reader->memory = io_buffer_new((size_t)SLOTS * SLOT_BYTES);
	}
	if (!reader || !reader->files || !reader->fds || !reader->memory) {
		copy_reader_free(reader);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	}
	for (unsigned i = 0; i < SLOTS; i++)
		reader->slots[i].buffer = reader->memory + (size_t)i * SLOT_BYTES;
	r = loop_new(NULL, 2 * SLOTS, &reader->loop, err);
	for (; r == 0 && reader->nfiles < n; reader->nfiles += r == 0)
		r = io_open(reader->loop, NULL, files[reader->nfiles], IO_RDONLY, &reader->files[reader->nfiles], err);
	if (r < 0)
		copy_reader_free(reader);
	else
		*ret = reader;
	return r;
}

void copy_reader_free(struct copy_reader *reader)
{
	if (!reader)
		return;
	for (size_t i = 0; i < reader->nfiles; i++)
		io_close(reader->files[i]);
	loop_free(reader->loop);
	if (reader->memory)
		io_buffer_free(reader->memory, (size_t)SLOTS * SLOT_BYTES);
	for (size_t i = 0; i < reader->still; i++)
		cleanup_close(&reader->fds[i]);
	free(reader->fds);
	free(reader->files);
	free(reader);
}

void copy_reader_share(struct copy_reader *reader, size_t still)
{
	while (reader->still < still && reader->still < reader->nfiles) {
		reader->fds[reader->still] = open(reader->files[reader->still]->path, O_RDONLY | O_CLOEXEC);
		reader->still++;
	}
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void copy_reader_limit(struct copy_reader *reader, uint64_t bytes_a_second)
{
	reader->rate = bytes_a_second;
	reader->limited_from = now_ns();
	reader->limited_bytes = reader->bytes;
}

/* Sleeps until so many bytes are due. */
static void keep_rate(const struct copy_reader *reader)
{
	uint64_t due, now;
	struct timespec time;

	if (!reader->rate)
		return;
	due = reader->limited_from +
	      (uint64_t)((double)(reader->bytes - reader->limited_bytes) * 1e9 / (double)reader->rate);
	now = now_ns();
	if (due <= now)
		return;
	time = (struct timespec){ .tv_sec = (time_t)((due - now) / 1000000000u),
				  .tv_nsec = (long)((due - now) % 1000000000u) };
	nanosleep(&time, NULL);
}

uint64_t copy_reader_bytes(const struct copy_reader *reader)
{
	return reader->bytes;
}

static void slot_done(struct io_op *op, int result)
{
	struct slot *slot = container_of(op, struct slot, op);

	slot->result = result;
	slot->busy = false;
}

static int wait_for(struct copy_reader *reader, struct slot *slot)
{
	int r = 0;

	while (slot->busy && r == 0)
		r = loop_turn(reader->loop, UINT64_MAX);
	return r;
}

/* Cuts `run` where the file has a hole or stops having one. True: it is a hole. */
static bool cut_at_hole(struct copy_reader *reader, struct copy_run *run)
{
	uint64_t start, end, stop = run->file_offset + run->length;

	if (run->level != reader->data_level || run->file_offset < reader->data_start ||
	    run->file_offset >= reader->data_end) {
		if (io_next_data(reader->files[run->level], run->file_offset, &start, &end) < 0)
			return false;
		reader->data_level = run->level;
		reader->data_start = round_down(start, BLOCK);
		reader->data_end = round_up(end, BLOCK);
	}
	if (reader->data_end <= run->file_offset)
		return true; /* nothing from here on */
	if (reader->data_start > run->file_offset) {
		run->length = min_u64(reader->data_start, stop) - run->file_offset;
		return true;
	}
	run->length = min_u64(reader->data_end, stop) - run->file_offset;
	return false;
}

/* Whether a sink that can do it may take the blocks of the file instead of its bytes. */
static bool may_share(const struct copy_reader *reader, const struct copy_run *run)
{
	return !reader->no_clone && (size_t)run->level < reader->still && reader->fds[run->level] >= 0 &&
	       !((run->offset | run->file_offset | run->length) % BLOCK);
}

static void start(struct copy_reader *reader, struct slot *slot)
{
	slot->busy = true;
	slot->op = (struct io_op){
		.kind = IO_READ,
		.file = reader->files[slot->run.level],
		.offset = slot->run.file_offset,
		.length = slot->run.length,
		.buffer = slot->buffer,
		.done = slot_done,
	};
	io_submit(&slot->op);
}

/* Takes the next piece off `run` into the slot, and starts to read it, unless it may be shared with the sink. */
static void fill(struct copy_reader *reader, struct slot *slot, struct copy_run *run, bool share)
{
	slot->run = *run;
	slot->result = 0;
	slot->hole = slot->shared = false;
	if (run->level != COPY_NOWHERE) {
		slot->hole = cut_at_hole(reader, &slot->run);
		slot->shared = !slot->hole && share && may_share(reader, &slot->run);
		if (!slot->hole && !slot->shared)
			slot->run.length = min_u64(slot->run.length, SLOT_BYTES);
	}
	run->offset += slot->run.length;
	run->file_offset += slot->run.length;
	run->length -= slot->run.length;
	if (!slot->hole && !slot->shared && slot->run.level != COPY_NOWHERE)
		start(reader, slot);
}

static bool is_zero(const char *p, uint64_t len)
{
	return !p[0] && !memcmp(p, p + 1, len - 1);
}

/* How many bytes from `p` on are alike: zeros, or data with no long row of zeros in it. */
static uint64_t stretch(const char *p, uint64_t len, bool *ret_zero)
{
	uint64_t at = 0, zeros = 0;

	while (at < len && is_zero(p + at, min_u64(BLOCK, len - at)))
		at = min_u64(at + BLOCK, len);
	*ret_zero = at >= ZEROS_LEAST || at == len;
	if (*ret_zero)
		return at;
	while (at < len && zeros < ZEROS_LEAST) {
		uint64_t n = min_u64(BLOCK, len - at);

		zeros = is_zero(p + at, n) ? zeros + n : 0;
		at += n;
	}
	return at - (zeros >= ZEROS_LEAST || at == len ? zeros : 0);
}

static int give_data(struct copy_reader *reader, const struct slot *slot, struct copy_sink *sink,
		     struct ploop_error *err)
{
	int r = 0;

	for (uint64_t done = 0; r == 0 && done < slot->run.length;) {
		bool zero;
		uint64_t n = stretch(slot->buffer + done, slot->run.length - done, &zero);

		if (zero)
			r = sink->ops->zero(sink, n, slot->run.offset + done, err);
		else
			r = sink->ops->data(sink, slot->buffer + done, n, slot->run.offset + done, err);
		reader->bytes += n;
		done += n;
	}
	keep_rate(reader);
	return r;
}

static int give_read(struct copy_reader *reader, struct slot *slot, struct copy_sink *sink, struct ploop_error *err)
{
	int r = wait_for(reader, slot);

	if (r == 0)
		r = slot->result;
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "Can't read %s", reader->files[slot->run.level]->path);
	return give_data(reader, slot, sink, err);
}

static int give_shared(struct copy_reader *reader, struct slot *slot, struct copy_sink *sink, struct ploop_error *err)
{
	struct copy_run rest = slot->run;
	int r = -EOPNOTSUPP;

	if (!reader->no_clone)
		r = sink->ops->clone(sink, reader->fds[rest.level], rest.file_offset, rest.length, rest.offset, err);
	if (r == 0)
		reader->bytes += rest.length;
	if (r != -EOPNOTSUPP)
		return r;
	reader->no_clone = true;
	for (r = 0; r == 0 && rest.length;) {
		slot->run = rest;
		slot->run.length = min_u64(rest.length, SLOT_BYTES);
		start(reader, slot);
		rest.offset += slot->run.length;
		rest.file_offset += slot->run.length;
		rest.length -= slot->run.length;
		r = give_read(reader, slot, sink, err);
	}
	return r;
}

static int give(struct copy_reader *reader, struct slot *slot, struct copy_sink *sink, struct ploop_error *err)
{
	const struct copy_run *run = &slot->run;

	if (run->level == COPY_NOWHERE)
		return sink->ops->discard(sink, run->length, run->offset, err);
	if (slot->hole)
		return sink->ops->zero(sink, run->length, run->offset, err);
	return slot->shared ? give_shared(reader, slot, sink, err) : give_read(reader, slot, sink, err);
}

/* Runs that lie together on the disk and in the file are one. */
static struct copy_run join(const struct copy_run *runs, size_t n, size_t *next)
{
	struct copy_run run = runs[(*next)++];

	for (; *next < n; (*next)++) {
		const struct copy_run *more = &runs[*next];

		if (more->level != run.level || more->offset != run.offset + run.length)
			break;
		if (run.level != COPY_NOWHERE && more->file_offset != run.file_offset + run.length)
			break;
		run.length += more->length;
	}
	return run;
}

int copy_reader_send(struct copy_reader *reader, const struct copy_run *runs, size_t n, struct copy_sink *sink,
		     struct ploop_error *err)
{
	struct copy_run run = { 0 };
	size_t next = 0;
	unsigned first = 0, filled = 0;
	int r = 0;

	while (r == 0 && (next < n || run.length || filled)) {
		while (filled < SLOTS && (run.length || next < n)) {
			if (!run.length)
				run = join(runs, n, &next);
			fill(reader, &reader->slots[(first + filled++) % SLOTS], &run, sink->ops->clone != NULL);
		}
		r = loop_turn(reader->loop, 0);
		if (r == 0)
			r = give(reader, &reader->slots[first], sink, err);
		else
			error_sys(err, r, PLOOP_EXIT_SYS, "copy");
		first = (first + 1) % SLOTS;
		filled--;
	}
	/* Nothing may be under way in memory that goes. */
	for (unsigned i = 0; i < SLOTS; i++)
		wait_for(reader, &reader->slots[i]);
	return r;
}

int copy_reader_read(struct copy_reader *reader, const struct copy_run *run, void *buffer, struct ploop_error *err)
{
	struct copy_run rest = *run;
	char *p = buffer;

	while (rest.length) {
		struct slot *slot = &reader->slots[0];
		int r;

		fill(reader, slot, &rest, false);
		r = wait_for(reader, slot);
		if (r == 0)
			r = slot->result;
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_READ, "Can't read %s", reader->files[run->level]->path);
		if (slot->hole)
			memset(p, 0, slot->run.length);
		else
			memcpy(p, slot->buffer, slot->run.length);
		p += slot->run.length;
	}
	return 0;
}
