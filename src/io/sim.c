/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * sim.c - the loop and the io_ops of the simulated disk.
 *
 * An operation goes through two steps, each chosen at random among all that are in flight:
 *
 *	submitted --(takes effect)--> effective --(done)--> the caller's again
 *
 * Between the two it is visible to others though its caller does not know yet. Often both happen in one turn.
 */
#include "io/sim.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "io/sim-disk.h"

struct sim {
	struct loop loop;
	struct sim_disk disk;
	struct prng prng;
	enum sim_order order;
	bool clone;
	bool cut;
	enum sim_cut cut_kind;
	void (*on_cut)(void *data, enum sim_cut kind);
	void *on_cut_data;
	uint64_t cut_in;   /* steps until the cut; 0: none */
	uint64_t now;      /* virtual nanoseconds */
	uint64_t sequence; /* orders submissions and completions */
	uint64_t operations;
	uint64_t fail_first, fail_count, failed; /* first, as a number of `operations` */
	int fail_error;
	struct io_op **flight; /* in the order of submission */
	unsigned nflight, capacity;
};

struct sim_file {
	struct io_file io;
	struct sim *sim;
	struct sim_inode *inode;
};

/* Words of io_op.scratch. */
enum {
	SCRATCH_CHANGE, /* the change it made while that is not synced, else 0 */
	SCRATCH_EFFECTIVE,
	SCRATCH_RESULT,
	SCRATCH_SUBMITTED, /* sequence */
	SCRATCH_FAIL,      /* the error to fail with, or 0 */
};

static struct sim_file *file_of(const struct io_op *op)
{
	return container_of(op->file, struct sim_file, io);
}

/* Counts one operation; the error that it is to fail with, or 0. */
static int count_operation(struct sim *sim)
{
	uint64_t number = ++sim->operations;

	if (sim->cut)
		return -EIO;
	if (number < sim->fail_first || number - sim->fail_first >= sim->fail_count)
		return 0;
	sim->failed++;
	return sim->fail_error;
}

/* One step nearer to the cut. True when this is the one that does not happen. */
static bool step_is_cut(struct sim *sim)
{
	if (sim->cut_in && --sim->cut_in == 0)
		sim_cut(sim);
	return sim->cut;
}

static int change(struct io_op *op, uint64_t length, struct sim_change **ret)
{
	struct sim_inode *inode = file_of(op)->inode;

	switch (op->kind) {
	case IO_WRITE:
		return sim_inode_write(inode, op->offset, length, op->buffer, ret);
	case IO_ZERO:
		return sim_inode_zero(inode, op->offset, length, ret);
	case IO_PUNCH:
		return sim_inode_punch(inode, op->offset, length, ret);
	case IO_CLONE:
		return sim_inode_clone(inode, op->offset, length, container_of(op->source, struct sim_file, io)->inode,
				       op->source_offset, ret);
	default:
		assert(!"a kind that changes data");
		return -EINVAL;
	}
}

static int refusal(const struct sim *sim, const struct io_op *op)
{
	if (op->kind == IO_READ || op->kind == IO_DATASYNC)
		return 0;
	if (!(op->file->flags & IO_RDWR))
		return -EBADF;
	if (op->offset + op->length > SIM_TABLE_PAGES * SIM_PAGE)
		return -EFBIG;
	if (op->kind == IO_CLONE && !sim->clone)
		return -EOPNOTSUPP;
	if (op->kind == IO_CLONE && (op->offset | op->length | op->source_offset) % SIM_PAGE)
		return -EINVAL;
	return 0;
}

/* How much of a change that fails is done all the same: nothing, all, or a part, in whole units. */
static uint64_t part_done(struct sim *sim, uint64_t length, uint64_t unit)
{
	switch (prng_below(&sim->prng, 3)) {
	case 0:
		return 0;
	case 1:
		return length;
	default:
		return prng_below(&sim->prng, length / unit + 1) * unit;
	}
}

/* Does to the disk what a change asks for, or a part of it when it is to fail. */
static int change_or_fail(struct sim *sim, struct io_op *op, int error)
{
	uint64_t length = op->length;
	struct sim_change *made;
	int r;

	if (error)
		length = part_done(sim, length, op->kind == IO_CLONE ? SIM_PAGE : SIM_SECTOR);
	r = change(op, length, &made);
	made->owner = &op->scratch[SCRATCH_CHANGE];
	op->scratch[SCRATCH_CHANGE] = (uintptr_t)made;
	return error ? error : r;
}

static int effect(struct sim *sim, struct io_op *op)
{
	struct sim_inode *inode = file_of(op)->inode;
	int error = (int)(int64_t)op->scratch[SCRATCH_FAIL];
	int r = refusal(sim, op);

	if (r)
		return r;
	switch (op->kind) {
	case IO_READ:
		if (error)
			memset(op->buffer, 0xee, op->length);
		else
			sim_inode_read(inode, op->offset, op->length, op->buffer);
		return error;
	case IO_DATASYNC:
		if (!error)
			sim_inode_sync(inode, op->scratch[SCRATCH_SUBMITTED]);
		return error;
	default:
		return change_or_fail(sim, op, error);
	}
}

static void take_effect(struct sim *sim, struct io_op *op)
{
	op->scratch[SCRATCH_RESULT] = (uint64_t)(int64_t)effect(sim, op);
	op->scratch[SCRATCH_EFFECTIVE] = 1;
}

static void complete(struct sim *sim, unsigned at)
{
	struct io_op *op = sim->flight[at];
	struct sim_change *made = (struct sim_change *)(uintptr_t)op->scratch[SCRATCH_CHANGE];

	memmove(&sim->flight[at], &sim->flight[at + 1], (--sim->nflight - at) * sizeof(sim->flight[0]));
	if (made) {
		made->told = ++sim->sequence;
		made->owner = NULL;
	}
	op->done(op, (int)(int64_t)op->scratch[SCRATCH_RESULT]);
}

static unsigned choose(struct sim *sim)
{
	switch (sim->order) {
	case SIM_ORDER_FIRST:
		return 0;
	case SIM_ORDER_LAST:
		return sim->nflight - 1;
	default:
		return (unsigned)prng_below(&sim->prng, sim->nflight);
	}
}

static int sim_wait(struct loop *loop, uint64_t timeout)
{
	struct sim *sim = container_of(loop, struct sim, loop);
	uint64_t delay = sim->nflight ? 1000 + prng_below(&sim->prng, 50000) : UINT64_MAX;
	unsigned at;

	if (delay > timeout && (timeout || !sim->nflight)) {
		sim->now += timeout; /* a timer comes first */
		return 0;
	}
	if (!sim->nflight)
		return -EDEADLK; /* nothing will ever happen */
	sim->now += min_u64(delay, timeout);
	at = choose(sim);
	if (!sim->flight[at]->scratch[SCRATCH_EFFECTIVE]) {
		if (!step_is_cut(sim))
			take_effect(sim, sim->flight[at]);
		if (prng_one_in(&sim->prng, 2))
			return 0;
	}
	step_is_cut(sim);
	complete(sim, at);
	return 0;
}

static uint64_t sim_now(struct loop *loop)
{
	return container_of(loop, struct sim, loop)->now;
}

static void sim_loop_free(struct loop *loop)
{
	(void)loop; /* the sim's */
}

static const struct loop_ops sim_loop_ops = {
	.name = "sim",
	.wait = sim_wait,
	.now = sim_now,
	.free = sim_loop_free,
};

struct sim *sim_new(uint64_t seed)
{
	struct sim *sim = sim_alloc(sizeof(*sim));

	loop_init(&sim->loop, &sim_loop_ops);
	sim_disk_init(&sim->disk);
	prng_seed(&sim->prng, seed);
	return sim;
}

void sim_reseed(struct sim *sim, uint64_t seed)
{
	prng_seed(&sim->prng, seed);
}

void sim_free(struct sim *sim)
{
	if (!sim)
		return;
	assert(!sim->nflight);
	sim_disk_fini(&sim->disk);
	free(sim->flight);
	free(sim);
}

struct loop *sim_loop(struct sim *sim)
{
	return &sim->loop;
}

void sim_set_order(struct sim *sim, enum sim_order order)
{
	sim->order = order;
}

void sim_set_clone(struct sim *sim, bool on)
{
	sim->clone = on;
}

void sim_set_space(struct sim *sim, uint64_t bytes)
{
	sim->disk.space = bytes == UINT64_MAX ? UINT64_MAX : bytes / SIM_PAGE;
}

uint64_t sim_space_used(const struct sim *sim)
{
	return sim->disk.used * SIM_PAGE;
}

uint64_t sim_operations(const struct sim *sim)
{
	return sim->operations;
}

void sim_fail(struct sim *sim, uint64_t nth, uint64_t count, int error)
{
	sim->fail_first = sim->operations + nth;
	sim->fail_count = count;
	sim->fail_error = error;
	sim->failed = 0;
}

uint64_t sim_failed(const struct sim *sim)
{
	return sim->failed;
}

void sim_cut_after(struct sim *sim, uint64_t nth)
{
	sim->cut_in = nth;
}

void sim_set_cut(struct sim *sim, enum sim_cut kind)
{
	sim->cut_kind = kind;
}

void sim_on_cut(struct sim *sim, void (*call)(void *data, enum sim_cut kind), void *data)
{
	sim->on_cut = call;
	sim->on_cut_data = data;
}

bool sim_is_cut(const struct sim *sim)
{
	return sim->cut;
}

void sim_cut(struct sim *sim)
{
	if (sim->cut)
		return;
	if (sim->on_cut)
		sim->on_cut(sim->on_cut_data, sim->cut_kind);
	sim->cut = true;
	sim->cut_in = 0;
	/* What is in flight may have reached the disk's cache, in any order. */
	for (unsigned tries = sim->nflight; tries-- > 0;) {
		struct io_op *op = sim->flight[prng_below(&sim->prng, sim->nflight)];

		if (!op->scratch[SCRATCH_EFFECTIVE] && op->kind != IO_READ)
			take_effect(sim, op);
	}
	if (sim->cut_kind == SIM_CUT_POWER)
		sim_disk_cut(&sim->disk, &sim->prng);
	for (unsigned i = 0; i < sim->nflight; i++) {
		sim->flight[i]->scratch[SCRATCH_EFFECTIVE] = 1;
		sim->flight[i]->scratch[SCRATCH_RESULT] = (uint64_t)(int64_t)-EIO;
	}
}

void sim_boot(struct sim *sim)
{
	assert(!sim->nflight);
	sim->cut = false;
	sim->cut_in = 0;
}

uint64_t sim_changes(const struct sim *sim, const char *path)
{
	const struct sim_inode *inode = sim_inode_find(&sim->disk, path);

	return inode ? inode->changes : 0;
}

uint64_t sim_unsynced(const struct sim *sim, const char *path)
{
	const struct sim_inode *inode = sim_inode_find(&sim->disk, path);
	uint64_t count = 0;

	if (inode)
		list_for_each (node, &inode->log)
			count++;
	return count;
}

/* 0 for a page of zeros: such a page and a hole are the same. */
static uint64_t hash_page(const struct sim_page *page)
{
	uint64_t words[SIM_PAGE / 8], lanes[4] = { 0 };

	memcpy(words, page->bytes, SIM_PAGE);
	for (unsigned i = 0; i < SIM_PAGE / 8; i += 4)
		for (unsigned lane = 0; lane < 4; lane++)
			lanes[lane] = (lanes[lane] ^ words[i + lane]) * UINT64_C(0x9fb21c651e98df25);
	return prng_mix(prng_mix(prng_mix(lanes[0]) ^ lanes[1]) ^ lanes[2]) ^ lanes[3];
}

uint64_t sim_hash(const struct sim *sim, const char *path)
{
	const struct sim_inode *inode = sim_inode_find(&sim->disk, path);
	uint64_t hash = inode ? prng_mix(inode->size + 1) : 0;

	if (!inode)
		return 0;
	for (uint64_t p = 0; (p = sim_table_next(&inode->pages, p)) != UINT64_MAX; p++) {
		uint64_t page = hash_page(sim_table_get(&inode->pages, p));

		if (page)
			hash = prng_mix(hash ^ prng_mix(page ^ p));
	}
	return hash;
}

int sim_remove(struct sim *sim, const char *path)
{
	struct sim_inode *inode = sim_inode_find(&sim->disk, path);

	if (!inode)
		return -ENOENT;
	sim_inode_free(inode);
	return 0;
}

static int sim_usable(struct ploop_error *err)
{
	(void)err;
	return 0;
}

static int sim_open(struct loop *loop, const char *path, unsigned flags, struct io_file **ret, struct ploop_error *err)
{
	struct sim *sim = container_of(loop, struct sim, loop);
	struct sim_inode *inode = sim_inode_find(&sim->disk, path);
	struct sim_file *file;

	assert(loop && loop->ops == &sim_loop_ops);
	if (sim->cut)
		return error_sys(err, -EIO, PLOOP_EXIT_OPEN, "Can't open %s: the power is off", path);
	if (!inode && !(flags & IO_CREATE))
		return error_sys(err, -ENOENT, PLOOP_EXIT_OPEN, "Can't open %s", path);
	if (inode && flags & IO_CREATE)
		return error_sys(err, -EEXIST, PLOOP_EXIT_CREAT, "Can't create %s", path);
	if (!inode)
		inode = sim_inode_new(&sim->disk, path);
	inode->opens++;
	file = sim_alloc(sizeof(*file));
	*file = (struct sim_file){
		.io = { .ops = &io_sim,
			.loop = loop,
			.path = inode->path,
			.flags = flags,
			.memory_align = 1,
			.block = SIM_PAGE,
			.direct = true,
			.can_clone = true },
		.sim = sim,
		.inode = inode,
	};
	*ret = &file->io;
	return 0;
}

static void sim_close(struct io_file *io)
{
	struct sim_file *file = container_of(io, struct sim_file, io);

	for (unsigned i = 0; i < file->sim->nflight; i++)
		assert(file->sim->flight[i]->file != io);
	file->inode->opens--;
	free(file);
}

static void sim_submit(struct io_op *op)
{
	struct sim *sim = file_of(op)->sim;

	if (sim->nflight == sim->capacity) {
		unsigned capacity = sim->capacity ? sim->capacity * 2 : 64;
		struct io_op **more = sim_alloc(capacity * sizeof(struct io_op *));

		if (sim->nflight)
			memcpy(more, sim->flight, sim->nflight * sizeof(struct io_op *));
		free(sim->flight);
		sim->flight = more;
		sim->capacity = capacity;
	}
	memset(op->scratch, 0, sizeof(op->scratch));
	op->scratch[SCRATCH_SUBMITTED] = ++sim->sequence;
	op->scratch[SCRATCH_FAIL] = (uint64_t)(int64_t)count_operation(sim);
	if (sim->cut) {
		op->scratch[SCRATCH_EFFECTIVE] = 1;
		op->scratch[SCRATCH_RESULT] = (uint64_t)(int64_t)-EIO;
	}
	sim->flight[sim->nflight++] = op;
}

/* What every operation of the control path begins with. 0, or the error that it fails with. */
static int begin(struct sim *sim)
{
	int r = count_operation(sim);

	return step_is_cut(sim) ? -EIO : r;
}

static int sim_pread(struct io_file *io, void *buffer, size_t len, uint64_t offset)
{
	struct sim_file *file = container_of(io, struct sim_file, io);
	int r = begin(file->sim);

	if (!r)
		sim_inode_read(file->inode, offset, len, buffer);
	return r;
}

/* A sector is never written in part, but for the last one of all that is asked for. */
static size_t whole_sectors(size_t part, size_t len, uint64_t offset)
{
	uint64_t end = round_down(offset + part, SIM_SECTOR);

	if (part == len)
		return len;
	return end > offset ? end - offset : 0;
}

static int sim_pwrite(struct io_file *io, const void *buffer, size_t len, uint64_t offset)
{
	struct sim_file *file = container_of(io, struct sim_file, io);
	struct sim_change *made;
	int r = begin(file->sim), written;

	if (file->sim->cut)
		return r;
	if (!(io->flags & IO_RDWR))
		return -EBADF;
	if (offset + len > SIM_TABLE_PAGES * SIM_PAGE)
		return -EFBIG;
	if (r)
		len = whole_sectors(part_done(file->sim, len, 1), len, offset);
	written = sim_inode_write(file->inode, offset, len, buffer, &made);
	made->told = ++file->sim->sequence;
	return r ? r : written;
}

static int sim_sync(struct io_file *io)
{
	struct sim_file *file = container_of(io, struct sim_file, io);
	int r = begin(file->sim);

	if (!r)
		sim_inode_sync(file->inode, ++file->sim->sequence);
	return r;
}

static int sim_size(struct io_file *io, uint64_t *ret)
{
	*ret = container_of(io, struct sim_file, io)->inode->size;
	return 0;
}

static int sim_truncate(struct io_file *io, uint64_t size)
{
	struct sim_file *file = container_of(io, struct sim_file, io);
	struct sim_change *made;
	int r = begin(file->sim);

	if (r)
		return r;
	if (!(io->flags & IO_RDWR))
		return -EBADF;
	r = sim_inode_truncate(file->inode, size, &made);
	made->told = ++file->sim->sequence;
	return r;
}

static int sim_next_data(struct io_file *io, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
	const struct sim_inode *inode = container_of(io, struct sim_file, io)->inode;
	uint64_t first = sim_table_next(&inode->pages, offset / SIM_PAGE), page = first;

	if (first == UINT64_MAX || offset >= inode->size) {
		*ret_start = *ret_end = inode->size;
		return 0;
	}
	while (sim_table_get(&inode->pages, page))
		page++;
	*ret_start = max_u64(first * SIM_PAGE, offset);
	*ret_end = min_u64(page * SIM_PAGE, inode->size);
	return 0;
}

static int sim_allocated(struct io_file *io, uint64_t *ret)
{
	*ret = container_of(io, struct sim_file, io)->inode->pages.count * SIM_PAGE;
	return 0;
}

const struct io_ops io_sim = {
	.name = "sim",
	.summary = "simulated disk of the tests",
	.usable = sim_usable,
	.open = sim_open,
	.close = sim_close,
	.submit = sim_submit,
	.pread = sim_pread,
	.pwrite = sim_pwrite,
	.sync = sim_sync,
	.size = sim_size,
	.truncate = sim_truncate,
	.next_data = sim_next_data,
	.allocated = sim_allocated,
};
