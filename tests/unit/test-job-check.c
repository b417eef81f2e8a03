/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * job/check*.c and job/undo.c on the simulated disk: each kind of damage is found and named, repaired only at its level, and the
 * disk reads the same afterwards; the power is cut at every step of a repair.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/le.h"
#include "format/extension.h"
#include "format/ploop1.h"
#include "io/sim.h"
#include "job/check.h"
#include "job/undo.h"

#define CLUSTER 32768u
#define CLUSTERS 200u /* so that the index is longer than a sector */
#define INDEX CLUSTER /* bytes of header and index */

static struct sim *sim;
static uint32_t version;

static struct io_file *open_file(const char *path, unsigned flags)
{
	struct io_file *file;

	assert_int_equal(io_open(sim_loop(sim), &io_sim, path, flags, &file, NULL), 0);
	return file;
}

/* What an image starts as, and what a test then breaks. */
static struct ploop1_header header;
static uint32_t entries[INDEX / 4 - 16]; /* as file clusters, unless `raw` */
static bool raw[INDEX / 4 - 16];
static uint64_t length; /* of the file */

static uint32_t unit(void)
{
	return version == 1 ? CLUSTER / SECTOR : 1;
}

/* Virtual clusters 0, 2, 4.. lie in the file in reverse order. */
static void good_image(void)
{
	struct ploop1_chs chs = ploop1_chs(CLUSTERS * CLUSTER / SECTOR);

	memset(entries, 0, sizeof(entries));
	memset(raw, 0, sizeof(raw));
	header = (struct ploop1_header){ .version = version,
					 .type = 2,
					 .heads = chs.heads,
					 .cylinders = chs.cylinders,
					 .cluster_sectors = CLUSTER / SECTOR,
					 .entries = CLUSTERS,
					 .size_sectors = CLUSTERS * CLUSTER / SECTOR,
					 .first_sector = INDEX / SECTOR };
	for (uint32_t v = 0; v < 20; v += 2)
		entries[v] = 10 - v / 2;
	length = 11 * CLUSTER;
}

static void write_image(void)
{
	struct io_file *file = open_file("image", IO_RDWR | IO_CREATE);
	uint8_t *buffer = calloc(1, CLUSTER);

	ploop1_header_put(&header, buffer);
	for (size_t v = 0; v < sizeof(entries) / 4; v++)
		le32_put(buffer + 64 + 4 * v, raw[v] ? entries[v] : entries[v] * unit());
	assert_int_equal(io_pwrite(file, buffer, CLUSTER, 0), 0);
	for (uint32_t k = 1; k <= 10; k++) {
		memset(buffer, (int)(0x40 + k), CLUSTER);
		assert_int_equal(io_pwrite(file, buffer, CLUSTER, k * CLUSTER), 0);
	}
	assert_int_equal(io_truncate(file, length), 0);
	assert_int_equal(io_sync(file), 0);
	io_close(file);
	free(buffer);
}

/* The disk as a reader sees it who takes an entry that leads nowhere for a hole: the first byte of each cluster. */
static void read_disk(uint8_t view[CLUSTERS])
{
	struct io_file *file = open_file("image", IO_RDONLY);
	uint32_t first = INDEX / CLUSTER;
	uint64_t size;
	uint8_t entry[4];

	assert_int_equal(io_size(file, &size), 0);
	for (uint32_t v = 0; v < CLUSTERS; v++) {
		uint32_t k;

		assert_int_equal(io_pread(file, entry, 4, 64 + 4 * v), 0);
		k = le32_get(entry);
		view[v] = 0;
		if (k % unit() == 0 && k / unit() >= first && (uint64_t)k / unit() * CLUSTER < size)
			assert_int_equal(io_pread(file, view + v, 1, (uint64_t)k / unit() * CLUSTER), 0);
	}
	io_close(file);
}

static uint64_t metadata(uint8_t *ret)
{
	struct io_file *file = open_file("image", IO_RDONLY);
	uint64_t size;

	assert_int_equal(io_pread(file, ret, INDEX, 0), 0);
	assert_int_equal(io_size(file, &size), 0);
	io_close(file);
	return size;
}

static struct ploop_check_image result;

static int run(const struct ploop_check_options *options, bool with_undo)
{
	struct io_file *file = open_file("image", IO_RDWR), *log = NULL;
	struct check_request request = { .options = options };
	uint64_t size;
	int r = 0;

	if (with_undo) {
		log = open_file("undo", IO_RDWR | IO_CREATE);
		r = io_size(file, &size);
		if (!r)
			r = undo_new(log, size, &request.undo);
	}
	if (!r)
		r = check_image(file, &request, &result, NULL);
	undo_free(request.undo);
	io_close(log);
	io_close(file);
	return r;
}

static int check(enum ploop_check_repair repair, bool drop)
{
	return run(&(struct ploop_check_options){ .repair = repair, .drop_in_use = drop }, false);
}

static void expect_clean(void)
{
	uint64_t before = sim_changes(sim, "image");

	assert_int_equal(check(PLOOP_CHECK_REPAIR_NONE, false), 0);
	assert_int_equal(sim_changes(sim, "image"), before);
	for (unsigned kind = 0; kind < PLOOP_CHECK_KINDS; kind++)
		if (result.found[kind])
			fail_msg("%s is still there", ploop_check_kind_name((enum ploop_check_kind)kind));
	assert_int_equal(result.status, PLOOP_EXIT_OK);
}

static void start(uint32_t v)
{
	sim = sim_new(1);
	version = v;
	good_image();
}

static void stop(void)
{
	sim_free(sim);
}

static void test_good(void **state)
{
	(void)state;
	for (uint32_t v = 1; v <= 2; v++) {
		start(v);
		write_image();
		expect_clean();
		assert_int_equal(result.mapped, 10);
		assert_int_equal(result.version, v);
		assert_int_equal(result.entries, CLUSTERS);
		stop();
	}
}

/* One damage each: its kind, the lowest level that repairs it, and the status before. */
struct damage {
	enum ploop_check_kind kind;
	enum ploop_check_repair repair;
	enum ploop_exit status;
	void (*make)(void);
};

static void make_flags(void)
{
	header.flags = 0x10;
}

static void make_empty(void)
{
	header.flags = PLOOP1_FLAG_EMPTY;
}

static void make_size_field(void)
{
	header.size_sectors |= version == 1 ? UINT64_C(1) << 40 : 0;
	header.flags = version == 1 ? 0 : 4;
}

static void make_offset_in_index(void)
{
	header.first_sector = version == 1 ? 1 : CLUSTER / SECTOR / 2;
}

static void make_offset_beyond(void)
{
	header.first_sector = 1000 * CLUSTER / SECTOR;
}

static void make_short(void)
{
	memset(entries, 0, sizeof(entries));
	length = 4096;
}

static void make_length(void)
{
	length -= 1000;
}

static void make_padding(void)
{
	raw[CLUSTERS + 5] = true;
	entries[CLUSTERS + 5] = 0x01020304;
}

static void make_unaligned(void)
{
	raw[3] = true; /* version 2 has no such entry: this one is behind the end */
	entries[3] = version == 1 ? 3 * unit() + 1 : UINT32_MAX;
}

static void make_before(void)
{
	raw[1] = true;
	entries[1] = version == 1 ? 8 : 0;
	if (version == 2)
		make_padding();
}

static void make_beyond_file(void)
{
	entries[39] = 11;
}

static void make_beyond_disk(void)
{
	header.entries++;
	entries[CLUSTERS] = 3;
	entries[14] = 0;
}

static void make_duplicate(void)
{
	entries[31] = entries[33] = 7;
	entries[35] = 9;
}

static const struct damage damages[] = {
	{ PLOOP_CHECK_FLAGS, PLOOP_CHECK_REPAIR_LEAKS, PLOOP_EXIT_OK, make_flags },
	{ PLOOP_CHECK_FLAGS, PLOOP_CHECK_REPAIR_LEAKS, PLOOP_EXIT_OK, make_empty },
	{ PLOOP_CHECK_SIZE_FIELD, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_OK, make_size_field },
	{ PLOOP_CHECK_DATA_OFFSET, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_offset_in_index },
	{ PLOOP_CHECK_DATA_OFFSET, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_offset_beyond },
	{ PLOOP_CHECK_SHORT, PLOOP_CHECK_REPAIR_ALL, PLOOP_EXIT_FORMAT, make_short },
	{ PLOOP_CHECK_LENGTH, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_length },
	{ PLOOP_CHECK_PADDING, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_padding },
	{ PLOOP_CHECK_UNALIGNED, PLOOP_CHECK_REPAIR_ALL, PLOOP_EXIT_FORMAT, make_unaligned },
	{ PLOOP_CHECK_BEFORE_DATA, PLOOP_CHECK_REPAIR_ALL, PLOOP_EXIT_FORMAT, make_before },
	{ PLOOP_CHECK_BEYOND_FILE, PLOOP_CHECK_REPAIR_ALL, PLOOP_EXIT_FORMAT, make_beyond_file },
	{ PLOOP_CHECK_BEYOND_DISK, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_beyond_disk },
	{ PLOOP_CHECK_DUPLICATE, PLOOP_CHECK_REPAIR_SAFE, PLOOP_EXIT_FORMAT, make_duplicate },
};

/* The same damage has another name in version 2, where entries cannot lie between clusters. */
static struct damage of_version(const struct damage *damage)
{
	struct damage d = *damage;

	if (version == 2 && d.kind == PLOOP_CHECK_UNALIGNED)
		d.kind = PLOOP_CHECK_BEYOND_FILE;
	if (version == 2 && d.kind == PLOOP_CHECK_SIZE_FIELD) {
		d.kind = PLOOP_CHECK_FLAGS;
		d.repair = PLOOP_CHECK_REPAIR_LEAKS;
	}
	if (version == 2 && d.kind == PLOOP_CHECK_BEFORE_DATA) {
		d.kind = PLOOP_CHECK_PADDING;
		d.repair = PLOOP_CHECK_REPAIR_SAFE;
	}
	return d;
}

static void expect_damage(const struct damage *d, enum ploop_check_repair level)
{
	uint64_t changes = sim_changes(sim, "image");

	assert_int_equal(check(level, false), 0);
	assert_true(result.found[d->kind] > 0);
	assert_int_equal(result.status, d->status);
	assert_int_equal(result.fixed[d->kind], 0);
	assert_false(result.changed);
	assert_int_equal(sim_changes(sim, "image"), changes);
}

static void test_each_damage(void **state)
{
	uint8_t before[CLUSTERS], after[CLUSTERS];

	(void)state;
	for (uint32_t v = 1; v <= 2; v++)
		for (unsigned i = 0; i < ARRAY_SIZE(damages); i++) {
			struct damage d;

			start(v);
			d = of_version(&damages[i]);
			d.make();
			write_image();
			read_disk(before);
			expect_damage(&d, PLOOP_CHECK_REPAIR_NONE);
			expect_damage(&d, d.repair - 1);
			assert_int_equal(check(d.repair, false), 0);
			assert_int_equal(result.status, PLOOP_EXIT_OK);
			assert_int_equal(result.fixed[d.kind], result.found[d.kind]);
			read_disk(after);
			assert_memory_equal(before, after, CLUSTERS);
			/* Space that the damage hid is given back by the next run. */
			assert_int_equal(check(PLOOP_CHECK_REPAIR_LEAKS, false), 0);
			if (d.kind != PLOOP_CHECK_BEYOND_DISK)
				expect_clean();
			read_disk(after);
			assert_memory_equal(before, after, CLUSTERS);
			stop();
		}
}

static void test_in_use(void **state)
{
	static const uint32_t values[] = { PLOOP1_IN_USE, 1, UINT32_MAX };

	(void)state;
	for (unsigned i = 0; i < 3; i++) {
		start(2);
		header.in_use = values[i];
		write_image();
		assert_int_equal(check(PLOOP_CHECK_REPAIR_NONE, false), 0);
		assert_int_equal(result.status, PLOOP_EXIT_IN_USE);
		assert_true(result.in_use);
		assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, false), 0);
		assert_int_equal(result.status, PLOOP_EXIT_IN_USE);
		assert_int_equal(
			run(&(struct ploop_check_options){ .read_only = true, .drop_in_use = true, .repair = 3 },
			    false),
			0);
		assert_int_equal(result.status, PLOOP_EXIT_WRITE);
		assert_int_equal(check(PLOOP_CHECK_REPAIR_NONE, true), 0);
		assert_int_equal(result.status, PLOOP_EXIT_OK);
		assert_false(result.in_use);
		expect_clean();
		stop();
	}
	start(2); /* never from an image with damage */
	header.in_use = PLOOP1_IN_USE;
	make_beyond_file();
	write_image();
	assert_int_equal(check(PLOOP_CHECK_REPAIR_SAFE, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_FORMAT);
	assert_true(result.in_use);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_OK);
	expect_clean();
	stop();
}

static void test_hopeless(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 4; i++) {
		start(2);
		if (i == 0)
			header.type = 3;
		else if (i == 1)
			header.cluster_sectors = 0;
		else if (i == 2)
			header.size_sectors = 1000000;
		else
			header.entries = 0;
		write_image();
		assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
		assert_int_equal(result.status, PLOOP_EXIT_FORMAT);
		assert_int_equal(result.found[PLOOP_CHECK_HEADER], 1);
		assert_false(result.changed);
		stop();
	}
	start(2);
	header.in_use = PLOOP1_IN_USE;
	header.flags = PLOOP1_FLAG_CONVERTING;
	write_image();
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_BUSY);
	assert_false(result.changed);
	stop();
}

static void test_leaks(void **state)
{
	uint8_t before[CLUSTERS], after[CLUSTERS];

	(void)state;
	start(2);
	entries[4] = entries[6] = 0; /* file clusters 8 and 7, one run */
	entries[14] = 0;             /* and 3 */
	length = 15 * CLUSTER;
	write_image();
	read_disk(before);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_NONE, false), 0);
	assert_int_equal(result.status, PLOOP_EXIT_OK);
	assert_int_equal(result.found[PLOOP_CHECK_LEAK], 2);
	assert_int_equal(result.found[PLOOP_CHECK_TAIL], 1);
	assert_int_equal(result.leaked, 3 * CLUSTER);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_LEAKS, false), 0);
	assert_int_equal(result.leaked, 0);
	assert_int_equal(result.file_size, 11 * CLUSTER);
	expect_clean();
	read_disk(after);
	assert_memory_equal(before, after, CLUSTERS);
	stop();
}

/* A good extension with one bitmap, in file cluster 12; its bits in 11. */
static void write_extension(uint64_t flags, uint64_t bits_sector)
{
	struct io_file *file = open_file("image", IO_RDWR);
	uint8_t *cluster = calloc(1, CLUSTER), *p = cluster + 24;

	le64_put(p, EXTENSION_BITMAP);
	le64_put(p + 8, flags);
	le32_put(p + 16, 40);
	p += 24;
	le64_put(p, header.size_sectors);
	le32_put(p + 24, 1);
	le32_put(p + 28, 1);
	le64_put(p + 32, bits_sector);
	extension_seal(cluster, CLUSTER);
	assert_int_equal(io_pwrite(file, cluster, CLUSTER, 12 * CLUSTER), 0);
	memset(cluster, 0x11, CLUSTER);
	assert_int_equal(io_pwrite(file, cluster, CLUSTER, 11 * CLUSTER), 0);
	assert_int_equal(io_sync(file), 0);
	io_close(file);
	free(cluster);
}

#define BITS (11 * CLUSTER / SECTOR)

static void extension_image(uint32_t state, uint64_t flags, uint64_t bits_sector)
{
	start(2);
	header.in_use = state;
	header.extension_sector = 12 * CLUSTER / SECTOR;
	length = 13 * CLUSTER;
	write_image();
	write_extension(flags, bits_sector);
}

static uint32_t stored(unsigned offset)
{
	uint8_t head[INDEX];

	metadata(head);
	return le32_get(head + offset);
}

static void test_extension_good(void **state)
{
	uint64_t hash;

	(void)state;
	extension_image(PLOOP1_CLOSED_V21, 0, BITS);
	hash = sim_hash(sim, "image");
	expect_clean();
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0); /* its clusters are no leaks */
	assert_int_equal(sim_hash(sim, "image"), hash);
	stop();

	extension_image(PLOOP1_IN_USE, 0, BITS); /* kept, but it says that everything changed */
	assert_int_equal(check(PLOOP_CHECK_REPAIR_SAFE, true), 0);
	assert_int_equal(result.found[PLOOP_CHECK_EXTENSION_STALE], 1);
	assert_int_equal(result.status, PLOOP_EXIT_OK);
	assert_int_equal(stored(PLOOP1_OFF_IN_USE), PLOOP1_CLOSED_V21);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_LEAKS, true), 0);
	assert_int_equal(result.fixed[PLOOP_CHECK_LEAK], 1); /* where the bits were */
	expect_clean();
	stop();

	extension_image(PLOOP1_CLOSED, 0, BITS);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_SAFE, true), 0);
	assert_int_equal(result.fixed[PLOOP_CHECK_EXTENSION_STALE], 1);
	assert_int_equal(stored(PLOOP1_OFF_EXTENSION), 0);
	stop();
}

static void test_extension_bad(void **state)
{
	struct io_file *file;

	(void)state;
	extension_image(PLOOP1_CLOSED_V21, EXTENSION_NECESSARY, BITS);
	file = open_file("image", IO_RDWR);
	io_truncate(file, 20 * CLUSTER); /* there would be something to do */
	io_close(file);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
	assert_int_equal(result.found[PLOOP_CHECK_EXTENSION_KEPT], 1);
	assert_false(result.changed);
	stop();

	for (unsigned i = 0; i < 3; i++) { /* bits in the data, behind the file, and in the extension itself */
		static const uint64_t where[] = { 5 * CLUSTER / SECTOR, 99 * CLUSTER / SECTOR, 12 * CLUSTER / SECTOR };

		extension_image(PLOOP1_CLOSED_V21, 0, where[i]);
		assert_int_equal(check(PLOOP_CHECK_REPAIR_LEAKS, true), 0);
		assert_int_equal(result.found[PLOOP_CHECK_BITMAP], 1);
		assert_int_equal(result.status, PLOOP_EXIT_FORMAT);
		assert_int_equal(check(PLOOP_CHECK_REPAIR_SAFE, true), 0);
		assert_int_equal(result.status, PLOOP_EXIT_OK);
		assert_int_equal(stored(PLOOP1_OFF_EXTENSION), 0);
		assert_int_equal(stored(PLOOP1_OFF_IN_USE), 0);
		stop();
	}

	extension_image(PLOOP1_CLOSED_V21, 0, BITS);
	file = open_file("image", IO_RDWR);
	assert_int_equal(io_pwrite(file, "x", 1, 12 * CLUSTER + 9), 0);
	io_close(file);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_SAFE, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_FORMAT);
	assert_false(result.changed);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_OK);
	assert_int_equal(stored(PLOOP1_OFF_EXTENSION), 0);
	stop();
}

/* Everything at once. */
static void make_wreck(void)
{
	make_duplicate();
	make_padding();
	make_beyond_file();
	header.in_use = PLOOP1_IN_USE;
	header.flags = PLOOP1_FLAG_EMPTY;
	header.first_sector = 0;
	if (version == 1)
		header.first_sector = 1;
	length -= 1000;
}

static void test_undo(void **state)
{
	uint8_t before[INDEX], after[INDEX];
	struct ploop_error err;
	struct io_file *log, *image;
	uint64_t size;

	(void)state;
	for (uint32_t v = 1; v <= 2; v++) {
		start(v);
		make_wreck();
		write_image();
		size = metadata(before);
		assert_int_equal(run(&(struct ploop_check_options){ .repair = 3, .drop_in_use = true }, true), 0);
		assert_int_equal(result.status, PLOOP_EXIT_OK);
		metadata(after);
		assert_memory_not_equal(before, after, INDEX);

		log = open_file("undo", IO_RDONLY);
		image = open_file("image", IO_RDWR);
		assert_int_equal(io_pwrite(image, "\1", 1, 64 + 4 * 39), 0); /* somebody works with it */
		assert_int_equal(undo_apply(log, image, false, &err), -ESTALE);
		assert_int_equal(io_pwrite(image, after + 64 + 4 * 39, 1, 64 + 4 * 39), 0);
		assert_int_equal(undo_apply(log, image, false, &err), 0);
		assert_int_equal(undo_apply(log, image, false, &err), 0); /* a second time does no harm */
		assert_int_equal(undo_apply(image, log, false, &err), -EINVAL);
		io_close(image);
		io_close(log);
		assert_true(metadata(after) >= size);
		assert_memory_equal(before, after, INDEX);
		stop();
	}
}

/* Cuts the power after the nth step of a repair. True when the repair was over before. */
static bool cut_repair(uint64_t seed, uint64_t nth, const struct damage *damage)
{
	uint8_t before[CLUSTERS], after[CLUSTERS], index[INDEX];
	bool over;

	sim = sim_new(seed);
	good_image();
	if (damage)
		damage->make();
	else
		make_wreck();
	write_image();
	read_disk(before);
	sim_cut_after(sim, nth);
	over = run(&(struct ploop_check_options){ .repair = 3, .drop_in_use = true }, true) == 0 && !sim_is_cut(sim);
	sim_cut_after(sim, 0);
	if (sim_is_cut(sim))
		sim_boot(sim);
	read_disk(after);
	assert_memory_equal(before, after, CLUSTERS);

	if (seed % 2) { /* back, where there is a way back */
		struct io_file *log = open_file("undo", IO_RDONLY), *image = open_file("image", IO_RDWR);
		int r = undo_apply(log, image, false, NULL);

		io_close(log);
		io_close(image);
		assert_true(r == 0 || (r == -EINVAL && !over));
		read_disk(after);
		assert_memory_equal(before, after, CLUSTERS);
	}
	assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
	assert_int_equal(result.status, PLOOP_EXIT_OK);
	assert_int_equal(check(PLOOP_CHECK_REPAIR_LEAKS, true), 0);
	read_disk(after);
	assert_memory_equal(before, after, CLUSTERS);
	metadata(index);
	sim_free(sim);
	return over;
}

static void test_power_cuts(void **state)
{
	(void)state;
	for (version = 1; version <= 2; version++)
		for (uint64_t seed = 1; seed <= 40; seed++)
			for (uint64_t nth = 1; !cut_repair(seed, nth, NULL); nth++)
				assert_true(nth < 1000);
}

static void test_failing_io(void **state)
{
	uint8_t before[CLUSTERS], after[CLUSTERS];

	(void)state;
	version = 2;
	for (uint64_t nth = 1; nth < 1000; nth++) {
		uint64_t failed;

		sim = sim_new(nth);
		good_image();
		make_wreck();
		write_image();
		read_disk(before);
		sim_fail(sim, nth, 1, -EIO);
		run(&(struct ploop_check_options){ .repair = 3, .drop_in_use = true }, false);
		failed = sim_failed(sim);
		sim_fail(sim, 1, 0, 0);
		read_disk(after);
		assert_memory_equal(before, after, CLUSTERS);
		assert_int_equal(check(PLOOP_CHECK_REPAIR_ALL, true), 0);
		assert_int_equal(result.status, PLOOP_EXIT_OK);
		sim_free(sim);
		if (!failed)
			return;
	}
	fail();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_good),          cmocka_unit_test(test_each_damage),
		cmocka_unit_test(test_in_use),        cmocka_unit_test(test_hopeless),
		cmocka_unit_test(test_leaks),         cmocka_unit_test(test_extension_good),
		cmocka_unit_test(test_extension_bad), cmocka_unit_test(test_undo),
		cmocka_unit_test(test_power_cuts),    cmocka_unit_test(test_failing_io),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
