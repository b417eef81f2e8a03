/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job/rewrite*.c and job/qcow2.c on the simulated disk: each form holds what the source holds, every I/O fails once, and the power
 * is cut at every step: what has a header then is whole.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/le.h"
#include "format/ploop1.h"
#include "io/sim.h"
#include "job/qcow2.h"
#include "job/rewrite.h"

#define CLUSTER 32768u
#define CLUSTERS 24u
#define SIZE ((uint64_t)CLUSTERS * CLUSTER)

static struct sim *sim;
static struct delta source;
static uint8_t disk[SIZE]; /* what the source holds */
static bool mapped[CLUSTERS];

static struct io_file *open_file(const char *path, unsigned flags)
{
	struct io_file *file;

	assert_int_equal(io_open(sim_loop(sim), &io_sim, path, flags, &file, NULL), 0);
	return file;
}

/* Whole clusters, clusters of which only some blocks hold anything, and one that is mapped and all zero; backwards in the file. */
static void make_source(void)
{
	uint8_t head[FORMAT_HEAD] = { 0 };
	uint32_t k;

	source = (struct delta){ .format = &format_ploop1, .file = open_file("source", IO_RDWR | IO_CREATE) };
	assert_int_equal(format_ploop1.plan(&(struct format_params){ 2, SIZE, CLUSTER }, &source.geometry, NULL), 0);
	memset(disk, 0, sizeof(disk));
	memset(mapped, 0, sizeof(mapped));
	format_ploop1.build(&source.geometry, head);
	k = source.geometry.first + CLUSTERS;
	assert_int_equal(io_truncate(source.file, geometry_offset(&source.geometry, k)), 0);
	for (uint32_t v = 0; v < CLUSTERS; v += 1 + v % 3) {
		uint8_t *at = disk + (size_t)v * CLUSTER;

		mapped[v] = true;
		if (v % 4 == 0)
			memset(at, (int)(0x20 + v), CLUSTER);
		else if (v != 5)
			memset(at + 4096 * (v % 7), (int)(0x20 + v), 5000);
		le32_put(head + 64 + 4 * v, --k);
		assert_int_equal(io_pwrite(source.file, at, CLUSTER, geometry_offset(&source.geometry, k)), 0);
	}
	assert_int_equal(io_pwrite(source.file, head, sizeof(head), 0), 0);
	assert_int_equal(io_sync(source.file), 0);
}

struct form {
	enum rewrite_form form;
	uint32_t version;
	bool keep_zeros, clone;
};

static const struct form forms[] = {
	{ REWRITE_PLOOP1, 1, false, false },       { REWRITE_PLOOP1, 2, true, false },
	{ REWRITE_PLOOP1, 2, false, true },        { REWRITE_PLOOP1, 1, true, true },
	{ REWRITE_PREALLOCATED, 2, false, false }, { REWRITE_PREALLOCATED, 1, false, true },
	{ REWRITE_RAW, 0, false, false },          { REWRITE_RAW, 0, false, true },
	{ REWRITE_QCOW2, 0, false, false },        { REWRITE_QCOW2, 0, true, true },
};
#define FORMS (sizeof(forms) / sizeof(forms[0]))

static int rewrite(const struct form *form, struct rewrite *ret)
{
	const struct format_params params = { form->version, SIZE, CLUSTER };
	struct io_file *file;
	int r = io_open(sim_loop(sim), &io_sim, "target", IO_RDWR | IO_CREATE, &file, NULL);

	if (r < 0)
		return r;
	*ret = (struct rewrite){ .loop = sim_loop(sim),
				 .levels = &source,
				 .nlevels = 1,
				 .form = form->form,
				 .file = file,
				 .keep_zeros = form->keep_zeros };
	if (form->form == REWRITE_QCOW2)
		r = qcow2_plan(SIZE, CLUSTER, &ret->to, NULL);
	else
		r = (form->form == REWRITE_RAW ? &format_raw : &format_ploop1)->plan(&params, &ret->to, NULL);
	if (!r && form->form == REWRITE_PREALLOCATED)
		r = io_truncate(file, geometry_offset(&ret->to, ret->to.first) + SIZE);
	if (!r)
		r = rewrite_image(ret, NULL);
	io_close(file);
	return r;
}

/* Where the new file has each cluster; 0: nowhere. False when it is no image. */
static bool read_places(const struct form *form, struct io_file *file, const struct geometry *to, uint32_t *places)
{
	uint8_t head[FORMAT_HEAD];
	struct geometry g;
	uint64_t size;

	assert_int_equal(io_size(file, &size), 0);
	assert_int_equal(io_pread(file, head, sizeof(head), 0), 0);
	switch (form->form) {
	case REWRITE_RAW:
		for (uint32_t v = 0; v < CLUSTERS; v++)
			places[v] = v + 1;
		return size == SIZE;
	case REWRITE_QCOW2:
		return !memcmp(head, "QFI\xfb", 4) && qcow2_load(file, to, places) == 0;
	default:
		if (format_ploop1.parse(head, sizeof(head), size, 0, &g, NULL) < 0)
			return false;
		assert_int_equal(g.version, form->version);
		assert_int_equal(g.state, FORMAT_CLEAN);
		for (uint32_t v = 0; v < CLUSTERS; v++)
			assert_int_equal(format_ploop1.decode(&g, le32_get(head + 64 + 4 * v), &places[v]), 0);
		return true;
	}
}

/* True when there is an image; it is the right one then. */
static bool check(const struct form *form, const struct geometry *to)
{
	struct io_file *file = open_file("target", IO_RDONLY);
	uint32_t places[CLUSTERS];
	uint8_t *cluster = malloc(CLUSTER), zeros[CLUSTER] = { 0 };
	bool image = read_places(form, file, to, places);

	for (uint32_t v = 0; v < CLUSTERS && image; v++) {
		const uint8_t *want = disk + (size_t)v * CLUSTER;

		if (form->keep_zeros)
			assert_int_equal(places[v] != 0, mapped[v]);
		if (form->form == REWRITE_PLOOP1 && !form->keep_zeros)
			assert_int_equal(places[v] != 0, memcmp(want, zeros, CLUSTER) != 0);
		memset(cluster, 0, CLUSTER);
		if (places[v])
			assert_int_equal(io_pread(file, cluster, CLUSTER, geometry_offset(to, places[v])), 0);
		assert_memory_equal(cluster, want, CLUSTER);
	}
	free(cluster);
	io_close(file);
	return image;
}

static int verify(const struct form *form, const struct rewrite *done)
{
	struct delta target = { .file = open_file("target", IO_RDONLY), .geometry = done->to };
	int r;

	target.format = form->form == REWRITE_RAW ? &format_raw : &format_ploop1;
	r = rewrite_verify(done, &target, NULL);
	io_close(target.file);
	return r;
}

static void start(const struct form *form, uint64_t seed)
{
	sim = sim_new(seed);
	sim_set_clone(sim, form->clone);
	make_source();
}

static void stop(void)
{
	io_close(source.file);
	sim_free(sim);
}

static void test_forms(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMS; i++) {
		struct rewrite done;

		start(&forms[i], i);
		assert_int_equal(rewrite(&forms[i], &done), 0);
		assert_true(check(&forms[i], &done.to));
		assert_int_equal(done.shared, forms[i].clone && forms[i].form != REWRITE_PREALLOCATED);
		assert_int_equal(verify(&forms[i], &done), 0);
		stop();
	}
}

/* One byte that is not what was written is found; so is a cluster that should be there for its zeros. */
static void test_verify(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMS; i++) {
		struct io_file *file;
		struct rewrite done;
		uint8_t byte = 0xee;

		if (forms[i].clone)
			continue; /* only their first blocks are read */
		start(&forms[i], i);
		assert_int_equal(rewrite(&forms[i], &done), 0);
		file = open_file("target", IO_RDWR);
		assert_int_equal(io_pwrite(file, &byte, 1, geometry_offset(&done.to, done.to.first) + 12345), 0);
		io_close(file);
		assert_int_equal(verify(&forms[i], &done), -EUCLEAN);
		stop();
	}
}

static void test_failing_io(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMS; i++) {
		for (uint64_t nth = 1;; nth++) {
			struct rewrite done;
			uint64_t failed;
			int r;

			assert_true(nth < 1000);
			start(&forms[i], nth);
			sim_fail(sim, nth, 1, -EIO);
			r = rewrite(&forms[i], &done);
			failed = sim_failed(sim);
			sim_fail(sim, 1, 0, 0);
			/* A clone that fails is a copy that is made. */
			assert_true(r == 0 || r == -EIO);
			if (r == 0)
				assert_true(check(&forms[i], &done.to));
			assert_true(r == 0 || failed);
			stop();
			if (!failed)
				break;
		}
	}
}

/* True when it was over before the nth step. */
static bool cut(const struct form *form, uint64_t seed, uint64_t nth)
{
	struct rewrite done = { 0 };
	bool over, image;
	int r;

	start(form, seed);
	sim_cut_after(sim, nth);
	r = rewrite(form, &done);
	over = !sim_is_cut(sim);
	sim_cut_after(sim, 0);
	if (over)
		sim_cut(sim); /* what it said is durable is */
	io_close(source.file);
	sim_boot(sim);
	source.file = open_file("source", IO_RDONLY);
	if (over || r == 0) {
		image = check(form, &done.to);
		assert_true(image);
	} else if (form->form != REWRITE_RAW && done.to.cluster) {
		check(form, &done.to);
	}
	stop();
	return over;
}

static void test_power_cuts(void **state)
{
	(void)state;
	for (size_t i = 0; i < FORMS; i++)
		for (uint64_t seed = 1; seed <= 4; seed++)
			for (uint64_t nth = 1; !cut(&forms[i], seed, nth); nth++)
				assert_true(nth < 2000);
}

static int refuse(void *data, const char *stage, uint64_t done, uint64_t total)
{
	(void)stage;
	assert_true(done <= total);
	return ++*(unsigned *)data == 2;
}

static void test_cancel(void **state)
{
	unsigned calls = 0;
	struct rewrite what;
	int r;

	(void)state;
	start(&forms[0], 1);
	what = (struct rewrite){ .loop = sim_loop(sim),
				 .levels = &source,
				 .nlevels = 1,
				 .form = REWRITE_RAW,
				 .progress = refuse,
				 .progress_data = &calls };
	what.file = open_file("target", IO_RDWR | IO_CREATE);
	assert_int_equal(format_raw.plan(&(struct format_params){ 0, SIZE, CLUSTER }, &what.to, NULL), 0);
	r = rewrite_image(&what, NULL);
	io_close(what.file);
	assert_int_equal(r, -ECANCELED);
	stop();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_forms),      cmocka_unit_test(test_verify), cmocka_unit_test(test_failing_io),
		cmocka_unit_test(test_power_cuts), cmocka_unit_test(test_cancel),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
