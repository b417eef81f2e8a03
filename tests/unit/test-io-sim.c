/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* sim.h: what the simulated disk keeps and loses, fails and repeats. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/prng.h"
#include "io/sim.h"

struct counted {
	struct io_op op;
	unsigned done;
	int result;
	unsigned order;
};

static unsigned completions;

static void on_done(struct io_op *op, int result)
{
	struct counted *counted = container_of(op, struct counted, op);

	counted->done++;
	counted->result = result;
	counted->order = completions++;
}

static struct io_file *open_file(struct sim *sim, const char *path, unsigned flags)
{
	struct io_file *file = NULL;

	assert_int_equal(io_open(sim_loop(sim), &io_sim, path, flags, &file, NULL), 0);
	return file;
}

static void start(struct counted *counted, struct io_file *file, enum io_kind kind, uint64_t offset, uint64_t length,
		  void *buffer)
{
	*counted = (struct counted){ .op = { .kind = kind,
					     .file = file,
					     .offset = offset,
					     .length = length,
					     .buffer = buffer,
					     .done = on_done } };
	io_submit(&counted->op);
}

static int finish(struct sim *sim, struct counted *counted)
{
	while (!counted->done)
		assert_int_equal(loop_turn(sim_loop(sim), UINT64_MAX), 0);
	return counted->result;
}

static int run(struct sim *sim, struct io_file *file, enum io_kind kind, uint64_t offset, uint64_t length, void *buffer)
{
	struct counted counted;

	start(&counted, file, kind, offset, length, buffer);
	return finish(sim, &counted);
}

/* The byte that all of a range holds, or -1. */
static int byte_at(struct io_file *file, uint64_t offset, uint64_t length)
{
	_free_ uint8_t *buffer = malloc(length);

	assert_int_equal(io_pread(file, buffer, length, offset), 0);
	for (uint64_t i = 1; i < length; i++)
		if (buffer[i] != buffer[0])
			return -1;
	return buffer[0];
}

static void fill(struct sim *sim, struct io_file *file, uint64_t offset, uint64_t length, int byte)
{
	_free_ void *buffer = malloc(length);

	memset(buffer, byte, length);
	assert_int_equal(run(sim, file, IO_WRITE, offset, length, buffer), 0);
}

static void test_sparse(void **state)
{
	struct sim *sim = sim_new(1);
	struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
	uint64_t size, start_at, end, blocks;

	(void)state;
	assert_int_equal(io_open(sim_loop(sim), &io_sim, "a", IO_RDWR | IO_CREATE, &file, NULL), -EEXIST);
	assert_int_equal(io_open(sim_loop(sim), &io_sim, "b", IO_RDWR, &file, NULL), -ENOENT);
	assert_int_equal(io_truncate(file, UINT64_C(64) << 40), 0);
	fill(sim, file, (UINT64_C(32) << 40) + 512, 512, 7);
	io_size(file, &size);
	assert_true(size == UINT64_C(64) << 40);
	io_allocated(file, &blocks);
	assert_int_equal(blocks, SIM_PAGE);
	io_next_data(file, 5, &start_at, &end);
	assert_true(start_at == UINT64_C(32) << 40 && end == start_at + SIM_PAGE);
	io_next_data(file, start_at + 100, &start_at, &end);
	assert_true(start_at == (UINT64_C(32) << 40) + 100);
	io_next_data(file, end, &start_at, &end);
	assert_true(start_at == size && end == size);
	assert_int_equal(byte_at(file, (UINT64_C(32) << 40) + 512, 512), 7);
	assert_int_equal(byte_at(file, UINT64_C(32) << 40, 512), 0);
	assert_int_equal(byte_at(file, size - 512, 4096), 0);
	assert_int_equal(run(sim, file, IO_PUNCH, UINT64_C(32) << 40, SIM_PAGE, NULL), 0);
	io_allocated(file, &blocks);
	assert_int_equal(blocks, 0);
	fill(sim, file, 0, 3 * SIM_PAGE, 1);
	assert_int_equal(io_truncate(file, 700), 0);
	assert_int_equal(io_truncate(file, 3 * SIM_PAGE), 0);
	assert_int_equal(byte_at(file, 0, 700), 1);
	assert_int_equal(byte_at(file, 700, 2 * SIM_PAGE), 0);
	io_close(file);
	sim_free(sim);
}

/* Several in flight: every order occurs, overlapping writes end as one of them, and a seed repeats. */
static unsigned race(uint64_t seed, int *winner)
{
	struct sim *sim = sim_new(seed);
	struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
	uint8_t bytes[3][SIM_PAGE];
	struct counted writes[3];
	unsigned order = 0;

	for (unsigned i = 0; i < 3; i++) {
		memset(bytes[i], (int)i + 1, SIM_PAGE);
		start(&writes[i], file, IO_WRITE, 0, SIM_PAGE, bytes[i]);
		assert_int_equal(writes[i].done, 0);
	}
	completions = 0;
	for (unsigned i = 0; i < 3; i++) {
		assert_int_equal(finish(sim, &writes[i]), 0);
		order |= 1u << (writes[i].order * 3 + i);
	}
	*winner = byte_at(file, 0, SIM_PAGE);
	assert_in_range(*winner, 1, 3);
	io_close(file);
	sim_free(sim);
	return order;
}

static void test_order(void **state)
{
	unsigned seen[6], nseen = 0, winners = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		int winner, again;
		unsigned order = race(seed, &winner), i = 0;

		assert_int_equal(race(seed, &again), order);
		assert_int_equal(again, winner);
		winners |= 1u << winner;
		while (i < nseen && seen[i] != order)
			i++;
		if (i == nseen) {
			assert_true(nseen < 6);
			seen[nseen++] = order;
		}
	}
	assert_int_equal(nseen, 6);
	assert_int_equal(winners, 2 + 4 + 8);
}

static void test_clock(void **state)
{
	struct sim *sim = sim_new(1);
	struct loop *loop = sim_loop(sim);
	uint64_t before = loop_now(loop);

	(void)state;
	assert_int_equal(loop_turn(loop, UINT64_MAX), -EDEADLK);
	assert_int_equal(loop_turn(loop, 5000000000), 0);
	assert_true(loop_now(loop) == before + 5000000000);
	sim_free(sim);
}

/* What is synced stays, what is not is old or new in each sector, and all of these occur. */
static void test_cut(void **state)
{
	unsigned old = 0, new = 0, torn = 0, shorter = 0, longer = 0, between = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 500; seed++) {
		struct sim *sim = sim_new(seed);
		struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
		unsigned ones = 0, twos = 0;
		uint64_t size;

		fill(sim, file, 0, 4 * SIM_PAGE, 1);
		assert_int_equal(run(sim, file, IO_DATASYNC, 0, 0, NULL), 0);
		fill(sim, file, SIM_PAGE, SIM_PAGE, 2);
		fill(sim, file, 8 * SIM_PAGE, 2 * SIM_PAGE, 3);
		sim_cut(sim);
		assert_int_equal(io_sync(file), -EIO);
		assert_int_equal(run(sim, file, IO_DATASYNC, 0, 0, NULL), -EIO);
		io_close(file);
		sim_boot(sim);
		file = open_file(sim, "a", IO_RDWR);
		assert_int_equal(byte_at(file, 0, SIM_PAGE), 1);
		assert_int_equal(byte_at(file, 2 * SIM_PAGE, 2 * SIM_PAGE), 1);
		for (unsigned s = 0; s < 8; s++) {
			ones += byte_at(file, SIM_PAGE + s * 512, 512) == 1;
			twos += byte_at(file, SIM_PAGE + s * 512, 512) == 2;
		}
		assert_int_equal(ones + twos, 8);
		old += ones == 8;
		new += twos == 8;
		torn += ones && twos;
		io_size(file, &size);
		assert_in_range(size, 4 * SIM_PAGE, 10 * SIM_PAGE);
		shorter += size == 4 * SIM_PAGE;
		longer += size == 10 * SIM_PAGE;
		between += size > 4 * SIM_PAGE && size < 10 * SIM_PAGE;
		io_close(file);
		sim_free(sim);
	}
	assert_true(old > 50 && new > 50 && torn > 25 && shorter > 50 && longer > 50 && between > 25);
}

/* A sync covers what was done before it was submitted, not what was still in flight then. */
static void test_barrier(void **state)
{
	unsigned lost = 0, kept = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 300; seed++) {
		struct sim *sim = sim_new(seed);
		struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
		uint8_t bytes[SIM_PAGE];
		struct counted write, sync;

		fill(sim, file, 0, 4 * SIM_PAGE, 1);
		assert_int_equal(io_sync(file), 0);
		fill(sim, file, 0, SIM_PAGE, 2);
		memset(bytes, 3, sizeof(bytes));
		start(&write, file, IO_WRITE, SIM_PAGE, SIM_PAGE, bytes);
		start(&sync, file, IO_DATASYNC, 0, 0, NULL);
		assert_int_equal(finish(sim, &write), 0);
		assert_int_equal(finish(sim, &sync), 0);
		sim_cut(sim);
		io_close(file);
		sim_boot(sim);
		file = open_file(sim, "a", IO_RDONLY);
		assert_int_equal(byte_at(file, 0, SIM_PAGE), 2);
		lost += byte_at(file, SIM_PAGE, SIM_PAGE) != 3;
		kept += byte_at(file, SIM_PAGE, SIM_PAGE) == 3;
		io_close(file);
		sim_free(sim);
	}
	assert_true(lost > 30 && kept > 30);
}

/* A write that took effect before the file became longer, and completes after that is durable, does not make it shorter again. */
static void test_length(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct sim *sim = sim_new(seed);
		struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
		uint8_t bytes[SIM_PAGE] = { 0 };
		struct counted write;
		uint64_t size;

		fill(sim, file, 0, SIM_PAGE, 1);
		start(&write, file, IO_WRITE, 0, SIM_PAGE, bytes);
		assert_int_equal(loop_turn(sim_loop(sim), UINT64_MAX), 0);
		assert_int_equal(io_truncate(file, 4 * SIM_PAGE), 0);
		assert_int_equal(io_sync(file), 0);
		assert_int_equal(finish(sim, &write), 0);
		assert_int_equal(io_sync(file), 0);
		fill(sim, file, 0, SIM_PAGE, 2); /* or there is nothing to cut */
		sim_cut(sim);
		io_close(file);
		sim_boot(sim);
		file = open_file(sim, "a", IO_RDONLY);
		assert_int_equal(io_size(file, &size), 0);
		assert_int_equal(size, 4 * SIM_PAGE);
		io_close(file);
		sim_free(sim);
	}
}

/* Random changes and syncs against a plain array of what each sector may be. */
#define MODEL_SECTORS 64

static void random_change(struct sim *sim, struct io_file *file, struct prng *prng, uint8_t *now, bool may[][256])
{
	uint64_t first = prng_below(prng, MODEL_SECTORS), count = 1 + prng_below(prng, MODEL_SECTORS - first);
	unsigned kind = (unsigned)prng_below(prng, 5);
	int byte = kind == 0 ? 1 + (int)prng_below(prng, 255) : 0;

	if (kind == 0)
		fill(sim, file, first * 512, count * 512, byte);
	else if (kind <= 2)
		assert_int_equal(run(sim, file, kind == 1 ? IO_PUNCH : IO_ZERO, first * 512, count * 512, NULL), 0);
	else
		assert_int_equal(io_sync(file), 0);
	if (kind > 2)
		memset(may, 0, MODEL_SECTORS * sizeof(may[0]));
	for (uint64_t s = 0; s < MODEL_SECTORS; s++) {
		if (kind <= 2 && s >= first && s < first + count)
			now[s] = (uint8_t)byte;
		may[s][now[s]] = true;
	}
}

static void test_model(void **state)
{
	(void)state;
	for (uint64_t seed = 0; seed < 200; seed++) {
		struct sim *sim = sim_new(seed);
		struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
		struct prng prng;
		uint8_t now[MODEL_SECTORS] = { 0 };
		bool may[MODEL_SECTORS][256] = { { false } };

		prng_seed(&prng, seed);
		assert_int_equal(io_truncate(file, MODEL_SECTORS * 512), 0);
		assert_int_equal(io_sync(file), 0);
		for (unsigned i = 0; i < 40; i++)
			random_change(sim, file, &prng, now, may);
		for (unsigned s = 0; s < MODEL_SECTORS; s++)
			assert_int_equal(byte_at(file, s * 512, 512), now[s]);
		sim_cut(sim);
		io_close(file);
		sim_boot(sim);
		file = open_file(sim, "a", IO_RDONLY);
		for (unsigned s = 0; s < MODEL_SECTORS; s++) {
			int byte = byte_at(file, s * 512, 512);

			assert_true(byte >= 0 && may[s][byte]);
		}
		io_close(file);
		sim_free(sim);
	}
}

static void test_cut_after(void **state)
{
	struct sim *sim = sim_new(3);
	struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
	uint8_t byte = 9;

	(void)state;
	assert_int_equal(io_pwrite(file, &byte, 1, 0), 0);
	assert_int_equal(io_sync(file), 0);
	sim_cut_after(sim, 2);
	assert_int_equal(io_pwrite(file, &byte, 1, 1), 0);
	assert_false(sim_is_cut(sim));
	assert_int_equal(io_sync(file), -EIO);
	assert_true(sim_is_cut(sim));
	io_close(file);
	sim_boot(sim);
	file = open_file(sim, "a", IO_RDWR);
	assert_int_equal(byte_at(file, 0, 1), 9);
	assert_int_equal(io_sync(file), 0);
	io_close(file);
	sim_free(sim);
}

/* The death of a process loses nothing, but makes nothing durable either. */
static void test_process(void **state)
{
	unsigned lost = 0;

	(void)state;
	for (uint64_t seed = 0; seed < 100; seed++) {
		struct sim *sim = sim_new(seed);
		struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);

		fill(sim, file, 0, SIM_PAGE, 1);
		assert_int_equal(io_sync(file), 0);
		assert_int_equal(sim_unsynced(sim, "a"), 0);
		fill(sim, file, 0, SIM_PAGE, 2);
		sim_set_cut(sim, SIM_CUT_PROCESS);
		sim_cut(sim);
		assert_int_equal(io_pwrite(file, "x", 1, 0), -EIO);
		sim_boot(sim);
		assert_int_equal(byte_at(file, 0, SIM_PAGE), 2);
		assert_int_equal(sim_unsynced(sim, "a"), 1);
		sim_set_cut(sim, SIM_CUT_POWER);
		sim_cut(sim);
		sim_boot(sim);
		lost += byte_at(file, 0, SIM_PAGE) != 2;
		io_close(file);
		sim_free(sim);
	}
	assert_in_range(lost, 20, 80);
}

static void test_failures(void **state)
{
	struct sim *sim = sim_new(1);
	struct io_file *file = open_file(sim, "a", IO_RDWR | IO_CREATE);
	uint8_t page[SIM_PAGE] = { 0 };

	(void)state;
	sim_fail(sim, 2, 2, -ENXIO);
	assert_int_equal(io_pwrite(file, page, SIM_PAGE, 0), 0);
	assert_int_equal(run(sim, file, IO_READ, 0, SIM_PAGE, page), -ENXIO);
	assert_int_equal(io_sync(file), -ENXIO);
	assert_int_equal(io_sync(file), 0);
	assert_int_equal(sim_failed(sim), 2);
	assert_int_equal(sim_operations(sim), 4);
	assert_int_equal(run(sim, file, IO_PUNCH, 0, SIM_PAGE, NULL), 0);
	sim_set_space(sim, 2 * SIM_PAGE);
	fill(sim, file, 0, 2 * SIM_PAGE, 1);
	assert_int_equal(run(sim, file, IO_WRITE, 4 * SIM_PAGE, SIM_PAGE, page), -ENOSPC);
	fill(sim, file, 0, SIM_PAGE, 2);
	assert_int_equal(run(sim, file, IO_PUNCH, SIM_PAGE, SIM_PAGE, NULL), 0);
	fill(sim, file, 4 * SIM_PAGE, SIM_PAGE, 3);
	assert_int_equal(sim_space_used(sim), 2 * SIM_PAGE);
	io_close(file);
	sim_free(sim);
}

static void test_clone(void **state)
{
	struct sim *sim = sim_new(1);
	struct io_file *from = open_file(sim, "a", IO_RDWR | IO_CREATE), *to = open_file(sim, "b", IO_RDWR | IO_CREATE);
	struct counted clone = { .op = { .kind = IO_CLONE,
					 .file = to,
					 .length = 2 * SIM_PAGE,
					 .source = from,
					 .source_offset = SIM_PAGE,
					 .done = on_done } };
	uint64_t before;

	(void)state;
	fill(sim, from, SIM_PAGE, 2 * SIM_PAGE, 5);
	io_submit(&clone.op);
	assert_int_equal(finish(sim, &clone), -EOPNOTSUPP);
	sim_set_clone(sim, true);
	clone.done = 0;
	io_submit(&clone.op);
	assert_int_equal(finish(sim, &clone), 0);
	assert_int_equal(byte_at(to, 0, 2 * SIM_PAGE), 5);
	before = sim_hash(sim, "a");
	fill(sim, to, 0, 512, 6);
	assert_true(sim_hash(sim, "a") == before);
	assert_int_equal(sim_changes(sim, "a"), 1);
	assert_int_equal(byte_at(from, SIM_PAGE, 2 * SIM_PAGE), 5);
	io_close(from);
	io_close(to);
	assert_int_equal(sim_remove(sim, "a"), 0);
	assert_int_equal(sim_remove(sim, "a"), -ENOENT);
	sim_free(sim);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_sparse),    cmocka_unit_test(test_order),    cmocka_unit_test(test_clock),
		cmocka_unit_test(test_cut),       cmocka_unit_test(test_barrier),  cmocka_unit_test(test_length),
		cmocka_unit_test(test_model),
		cmocka_unit_test(test_cut_after), cmocka_unit_test(test_failures), cmocka_unit_test(test_process),
		cmocka_unit_test(test_clone),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
