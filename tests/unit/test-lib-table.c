/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* table.h: tables that sfdisk and we make, damaged ones, and a power cut at every sector of a change. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/le.h"
#include "lib/init-gpt.h"
#include "lib/table.h"

#define MIB (1024u * 1024)
#define CLUSTER MIB

/* A disk in memory. After `budget` sectors nothing more arrives, which is what a power cut looks like. */
struct fake {
	uint8_t *bytes;
	uint64_t size;
	uint64_t budget, written;
	unsigned syncs;
	unsigned first_touched_at; /* number of syncs before the first copy was written to; 0: it was not */
};

static int fake_read(void *data, void *buffer, size_t len, uint64_t offset)
{
	struct fake *fake = data;

	if (offset > fake->size || len > fake->size - offset)
		return -EIO;
	memcpy(buffer, fake->bytes + offset, len);
	return 0;
}

static int fake_write(void *data, const void *buffer, size_t len, uint64_t offset)
{
	struct fake *fake = data;

	assert_true(len % TABLE_SECTOR == 0 && offset % TABLE_SECTOR == 0);
	if (offset > fake->size || len > fake->size - offset)
		return -EIO;
	if (!offset && !fake->first_touched_at)
		fake->first_touched_at = fake->syncs;
	for (size_t at = 0; at < len; at += TABLE_SECTOR) {
		if (fake->written++ < fake->budget)
			memcpy(fake->bytes + offset + at, (const uint8_t *)buffer + at, TABLE_SECTOR);
	}
	return 0;
}

static int fake_sync(void *data)
{
	((struct fake *)data)->syncs++;
	return 0;
}

static struct table_disk disk_of(struct fake *fake)
{
	return (struct table_disk){
		.read = fake_read, .write = fake_write, .sync = fake_sync, .data = fake, .size = fake->size, .name = "disk"
	};
}

/* A disk of `size` bytes with the table that init makes for one of `table` bytes. */
static struct fake make(uint64_t size, uint64_t table)
{
	struct fake fake = { .bytes = calloc(1, size), .size = size, .budget = UINT64_MAX };
	_close_ int fd = memfd_create("table", MFD_CLOEXEC);
	struct partition partition;

	assert_non_null(fake.bytes);
	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)table), 0);
	assert_int_equal(gpt_plan(table, CLUSTER, &partition, NULL), 0);
	assert_int_equal(gpt_write(fd, "disk", &partition, NULL), 0);
	assert_int_equal(pread(fd, fake.bytes, table, 0), table);
	return fake;
}

static void test_read(void **state)
{
	struct fake fake = make(16 * MIB, 16 * MIB);
	struct table_disk disk = disk_of(&fake);
	struct table table;

	(void)state;
	assert_int_equal(table_read(&disk, &table, NULL), 0);
	assert_false(table.damaged);
	assert_int_equal(table.sectors, fake.size / TABLE_SECTOR);
	assert_int_equal(table.npartitions, 1);
	assert_int_equal(table.last.number, 1);
	assert_int_equal(table.last.start, CLUSTER);
	assert_int_equal(table.last.start + table.last.size, table_partition_end(fake.size, CLUSTER));
	table_clear(&table);
	free(fake.bytes);
}

static void test_none(void **state)
{
	struct fake fake = { .bytes = calloc(1, MIB), .size = MIB };
	struct table_disk disk = disk_of(&fake);
	struct ploop_error err;
	struct table table;

	(void)state;
	assert_int_equal(table_read(&disk, &table, NULL), -ENODATA);
	/* An MBR of the old kind. */
	fake.bytes[510] = 0x55;
	fake.bytes[511] = 0xaa;
	fake.bytes[450] = 0x83;
	assert_int_equal(table_read(&disk, &table, &err), -EMEDIUMTYPE);
	assert_non_null(strstr(err.text, "MBR"));
	/* A GPT for large sectors. */
	memcpy(fake.bytes + 4096, "EFI PART", 8);
	assert_int_equal(table_read(&disk, &table, &err), -EMEDIUMTYPE);
	assert_non_null(strstr(err.text, "4096"));
	free(fake.bytes);
}

/* Any one byte that is changed in the first copy is noticed, and the second copy is used. */
static void test_damaged(void **state)
{
	struct fake fake = make(8 * MIB, 8 * MIB);
	struct table_disk disk = disk_of(&fake);
	struct ploop_error err;
	struct table table;

	(void)state;
	for (size_t at = TABLE_SECTOR; at < 2 * TABLE_SECTOR + 256; at++) {
		bool counts = at < TABLE_SECTOR + 92 || at >= 2 * TABLE_SECTOR;

		fake.bytes[at] ^= 0x5a;
		assert_int_equal(table_read(&disk, &table, NULL), 0);
		assert_int_equal(table.damaged, counts);
		assert_int_equal(table.last.start, CLUSTER);
		table_clear(&table);
		fake.bytes[at] ^= 0x5a;
	}
	fake.bytes[TABLE_SECTOR + 40] ^= 1;
	fake.bytes[fake.size - TABLE_SECTOR + 40] ^= 1;
	assert_int_equal(table_read(&disk, &table, &err), -EUCLEAN);
	assert_int_equal(err.status, PLOOP_EXIT_CHANGE_GPT);
	free(fake.bytes);
}

static void change(struct fake *fake, uint64_t to)
{
	struct table_disk disk = disk_of(fake);
	struct table table;

	assert_int_equal(table_read(&disk, &table, NULL), 0);
	assert_int_equal(table_fit(&table, to, table_partition_end(to, CLUSTER), NULL), 0);
	assert_int_equal(table_write(&table, &disk, NULL), 0);
	table_clear(&table);
}

static void check(struct fake *fake, uint64_t disk_size)
{
	struct table_disk disk = disk_of(fake);
	struct table table;

	assert_int_equal(table_read(&disk, &table, NULL), 0);
	assert_false(table.damaged);
	assert_int_equal(table.sectors * TABLE_SECTOR, disk_size);
	assert_int_equal(table.last.start + table.last.size, table_partition_end(disk_size, CLUSTER));
	assert_int_equal(le32_get(fake->bytes + 458), disk_size / TABLE_SECTOR - 1);
	table_clear(&table);
}

static void test_change(void **state)
{
	struct fake fake = make(32 * MIB, 8 * MIB);

	(void)state;
	change(&fake, 32 * MIB);
	assert_int_equal(fake.first_touched_at, 1); /* the second copy was durable by then */
	check(&fake, 32 * MIB);
	assert_memory_not_equal(fake.bytes + 8 * MIB - TABLE_SECTOR, "EFI PART", 8);
	change(&fake, 5 * MIB);
	check(&fake, 5 * MIB);
	assert_memory_not_equal(fake.bytes + 32 * MIB - TABLE_SECTOR, "EFI PART", 8);
	/* Then the disk gets smaller. */
	fake.size = 5 * MIB;
	check(&fake, 5 * MIB);
	free(fake.bytes);
}

static void test_too_small(void **state)
{
	struct fake fake = make(8 * MIB, 8 * MIB);
	struct table_disk disk = disk_of(&fake);
	struct table table;

	(void)state;
	assert_int_equal(table_read(&disk, &table, NULL), 0);
	assert_int_equal(table_fit(&table, MIB, MIB, NULL), -ERANGE);
	assert_int_equal(table_fit(&table, 8 * MIB, 8 * MIB, NULL), -ERANGE);
	assert_int_equal(table_fit(&table, 9 * MIB, 8 * MIB, NULL), 0);
	assert_int_equal(table_write(&table, &disk, NULL), -ERANGE);
	table_clear(&table);
	free(fake.bytes);
}

/* Cut after every sector: the table is the old or the new one, and changing it again ends right. */
static void cut_everywhere(uint64_t size, uint64_t from, uint64_t to)
{
	uint64_t all = UINT64_MAX;

	for (uint64_t budget = 0; budget <= all; budget++) {
		struct fake fake = make(size, from);
		struct table_disk disk = disk_of(&fake);
		struct table table;
		uint64_t end;

		fake.budget = budget;
		change(&fake, to);
		all = fake.written;
		fake.budget = UINT64_MAX;
		assert_int_equal(table_read(&disk, &table, NULL), 0);
		end = table.last.start + table.last.size;
		assert_true(end == table_partition_end(from, CLUSTER) || end == table_partition_end(to, CLUSTER));
		table_clear(&table);
		change(&fake, to);
		check(&fake, to);
		free(fake.bytes);
	}
	assert_true(all >= 67);
}

static void test_cut(void **state)
{
	(void)state;
	cut_everywhere(6 * MIB, 4 * MIB, 6 * MIB); /* a disk that has grown */
	cut_everywhere(6 * MIB, 6 * MIB, 4 * MIB); /* one that is about to shrink */
	cut_everywhere(6 * MIB, 6 * MIB, 6 * MIB);
}

/* Whatever stands there, reading it neither fails badly nor goes outside. */
static void test_garbage(void **state)
{
	unsigned seed = 1;

	(void)state;
	for (int round = 0; round < 300; round++) {
		struct fake fake = make(4 * MIB, 4 * MIB);
		struct table_disk disk = disk_of(&fake);
		struct table table;

		for (int i = 0; i < 4; i++) {
			size_t at = TABLE_SECTOR + (size_t)rand_r(&seed) % 92;

			fake.bytes[at] = (uint8_t)rand_r(&seed);
			fake.bytes[fake.size - TABLE_SECTOR + (size_t)rand_r(&seed) % 92] = (uint8_t)rand_r(&seed);
		}
		if (table_read(&disk, &table, NULL) == 0)
			table_clear(&table);
		free(fake.bytes);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_read),    cmocka_unit_test(test_none),      cmocka_unit_test(test_damaged),
		cmocka_unit_test(test_change),  cmocka_unit_test(test_too_small), cmocka_unit_test(test_cut),
		cmocka_unit_test(test_garbage),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
