/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * table.c - see table.h.
 *
 * A table lies on the disk twice: header and entries at its start, entries and header at its end, each with checksums.
 *
 * Order of writes:
 *  1. The second copy, at the end that the disk will have, is durable before the first is touched. It lies behind the last
 *     partition as the new table has it, so nobody uses that place any more.
 *  2. The first copy is written in one go: header and entries are neighbours. Torn by a crash it is not valid, and then the
 *     second is: the one of step 1, or at the disk's end the old one, which still fits.
 *  3. An old second copy elsewhere is wiped when the first is durable, as it would be found by who looks at the disk's end.
 * The protective MBR has no checksum and says nothing but "there is a GPT": it goes with the first copy.
 */
#include "lib/table.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/le.h"

#define LARGE_SECTOR 4096u
#define SIGNATURE "EFI PART"
#define HEADER_MIN 92u
#define ENTRY_MIN 128u
#define ENTRIES_MAX (1u << 20) /* bytes; the usual table has 16384 */
#define ALIGN 4096u            /* of memory that a disk is read into without the page cache */

/* Fields of the header, in bytes from its start. */
enum {
	HEADER_SIZE = 12,
	HEADER_CRC = 16,
	HEADER_SELF = 24,
	HEADER_OTHER = 32,
	HEADER_FIRST_USABLE = 40,
	HEADER_LAST_USABLE = 48,
	HEADER_ENTRIES = 72,
	HEADER_COUNT = 80,
	HEADER_ENTRY_SIZE = 84,
	HEADER_ENTRIES_CRC = 88,
};

/* Fields of an entry. */
enum {
	ENTRY_FIRST = 32,
	ENTRY_LAST = 40,
};

/* The protective MBR: one partition that covers all. */
enum {
	MBR_TYPE = 450,
	MBR_SECTORS = 458,
	MBR_SIGNATURE = 510,
	MBR_PROTECTIVE = 0xee,
};

static uint32_t crc32(const uint8_t *data, size_t len)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

static void *allocate(size_t len)
{
	void *memory = aligned_alloc(ALIGN, round_up(len, ALIGN));

	if (memory)
		memset(memory, 0, round_up(len, ALIGN));
	return memory;
}

void table_clear(struct table *table)
{
	free(table->entries);
	*table = (struct table){ .entries = NULL };
}

static bool empty_entry(const uint8_t *entry)
{
	static const uint8_t unused[16];

	return !memcmp(entry, unused, sizeof(unused));
}

static uint32_t header_crc(const uint8_t header[TABLE_SECTOR])
{
	uint8_t copy[TABLE_SECTOR];

	memcpy(copy, header, sizeof(copy));
	le32_put(copy + HEADER_CRC, 0);
	return crc32(copy, le32_get(copy + HEADER_SIZE));
}

/* Is this a header whose place is sector `self` of a disk of `sectors`? */
static bool header_valid(const uint8_t *header, uint64_t self, uint64_t sectors)
{
	uint32_t size = le32_get(header + HEADER_SIZE), count = le32_get(header + HEADER_COUNT),
		 entry_size = le32_get(header + HEADER_ENTRY_SIZE);
	uint64_t entries = le64_get(header + HEADER_ENTRIES), first = le64_get(header + HEADER_FIRST_USABLE),
		 last = le64_get(header + HEADER_LAST_USABLE), length;

	if (memcmp(header, SIGNATURE, 8) || size < HEADER_MIN || size > TABLE_SECTOR ||
	    header_crc(header) != le32_get(header + HEADER_CRC) || le64_get(header + HEADER_SELF) != self)
		return false;
	if (entry_size < ENTRY_MIN || !is_power_of_two(entry_size) ||
	    !checked_mul(count, entry_size, &length) || !length || length > ENTRIES_MAX)
		return false;
	length = div_round_up(length, TABLE_SECTOR);
	if (entries < 2 || entries >= sectors || length > sectors - entries || first > last || last >= sectors)
		return false;
	/* The entries are not where partitions may be. */
	return entries + length <= first || entries > last;
}

/* Finds out which partition is last, and whether they all lie where they may. */
static bool look_at_entries(struct table *table)
{
	uint64_t first_usable = le64_get(table->header + HEADER_FIRST_USABLE),
		 last_usable = le64_get(table->header + HEADER_LAST_USABLE), last_end = 0;

	table->npartitions = 0;
	table->last = (struct table_partition){ .number = 0 };
	for (uint32_t i = 0; i < table->count; i++) {
		const uint8_t *entry = table->entries + (size_t)i * table->entry_size;
		uint64_t first = le64_get(entry + ENTRY_FIRST), last = le64_get(entry + ENTRY_LAST);

		if (empty_entry(entry))
			continue;
		if (first > last || first < first_usable || last > last_usable)
			return false;
		table->npartitions++;
		if (last < last_end)
			continue;
		last_end = last;
		table->last = (struct table_partition){
			.number = i + 1,
			.start = first * TABLE_SECTOR,
			.size = (last - first + 1) * TABLE_SECTOR,
		};
	}
	return true;
}

/* The copy whose header is at sector `self`. 1 when it is valid, 0 when not. */
static int read_copy(const struct table_disk *disk, uint64_t self, struct table *ret)
{
	uint64_t sectors = disk->size / TABLE_SECTOR;
	_free_ uint8_t *header = allocate(TABLE_SECTOR), *entries = NULL;
	size_t len;
	int r;

	if (!header)
		return -ENOMEM;
	if (self >= sectors)
		return 0;
	r = disk->read(disk->data, header, TABLE_SECTOR, self * TABLE_SECTOR);
	if (r < 0)
		return r;
	if (!header_valid(header, self, sectors))
		return 0;
	len = (size_t)le32_get(header + HEADER_COUNT) * le32_get(header + HEADER_ENTRY_SIZE);
	entries = allocate(len);
	if (!entries)
		return -ENOMEM;
	r = disk->read(disk->data, entries, round_up(len, TABLE_SECTOR), le64_get(header + HEADER_ENTRIES) * TABLE_SECTOR);
	if (r < 0)
		return r;
	if (crc32(entries, len) != le32_get(header + HEADER_ENTRIES_CRC))
		return 0;
	memcpy(ret->header, header, TABLE_SECTOR);
	ret->count = le32_get(header + HEADER_COUNT);
	ret->entry_size = le32_get(header + HEADER_ENTRY_SIZE);
	ret->entries_len = len;
	ret->entries = entries;
	if (!look_at_entries(ret)) {
		ret->entries = NULL;
		return 0;
	}
	entries = NULL;
	return 1;
}

/* What is there when there is no valid copy at the start: a header that says where the other is, or nothing of the kind. */
static int look_for_others(const struct table_disk *disk, uint8_t *head, uint64_t *ret_other, struct ploop_error *err)
{
	const uint8_t *header = head + TABLE_SECTOR;

	*ret_other = 0;
	if (!memcmp(header, SIGNATURE, 8)) {
		*ret_other = le64_get(header + HEADER_OTHER);
		return 0;
	}
	if (!memcmp(head + LARGE_SECTOR, SIGNATURE, 8))
		return error_set(err, -EMEDIUMTYPE, PLOOP_EXIT_CHANGE_GPT,
				 "%s: its partition table counts in sectors of 4096 bytes, which cannot be changed here",
				 disk->name);
	if (head[MBR_SIGNATURE] != 0x55 || head[MBR_SIGNATURE + 1] != 0xaa || !head[MBR_TYPE])
		return -ENODATA;
	return head[MBR_TYPE] == MBR_PROTECTIVE ? 0 : -EMEDIUMTYPE;
}

static int read_second(const struct table_disk *disk, struct table *ret, struct ploop_error *err)
{
	_free_ uint8_t *head = allocate(2 * LARGE_SECTOR);
	uint64_t other, self;
	int r;

	if (!head)
		return -ENOMEM;
	if (disk->size < 2 * LARGE_SECTOR)
		return -ENODATA;
	r = disk->read(disk->data, head, 2 * LARGE_SECTOR, 0);
	if (r == 0)
		r = look_for_others(disk, head, &other, err);
	if (r < 0)
		return r;
	self = disk->size / TABLE_SECTOR - 1;
	r = read_copy(disk, self, ret);
	if (r == 0 && other > 1) {
		self = other;
		r = read_copy(disk, self, ret);
	}
	if (r <= 0)
		return r < 0 ? r : -EUCLEAN;
	ret->damaged = true;
	ret->sectors = self + 1;
	/* The first copy is where it always is. */
	le64_put(ret->header + HEADER_SELF, 1);
	le64_put(ret->header + HEADER_OTHER, self);
	le64_put(ret->header + HEADER_ENTRIES, 2);
	return 0;
}

int table_read(const struct table_disk *disk, struct table *ret, struct ploop_error *err)
{
	struct ploop_error why = { .code = 0 };
	struct table second = { .entries = NULL };
	int r;

	*ret = (struct table){ .entries = NULL };
	r = read_copy(disk, 1, ret);
	if (r == 0) {
		r = read_second(disk, ret, &why);
	} else if (r == 1) {
		ret->sectors = le64_get(ret->header + HEADER_OTHER) + 1;
		r = read_copy(disk, ret->sectors - 1, &second);
		ret->damaged = r == 0;
		table_clear(&second);
		r = r < 0 ? r : 0;
	}
	if (r < 0)
		table_clear(ret);
	if (r == -EUCLEAN)
		return error_set(err, r, PLOOP_EXIT_CHANGE_GPT,
				 "%s: both copies of its partition table are damaged; repair them with gdisk first",
				 disk->name);
	if (r == -EMEDIUMTYPE && !why.code)
		return error_set(err, r, PLOOP_EXIT_CHANGE_GPT,
				 "%s has an MBR partition table, which is not changed here: `ploop grow` makes the disk larger, "
				 "fdisk or parted its partitions",
				 disk->name);
	if (r == -EMEDIUMTYPE && err)
		*err = why;
	else if (r < 0)
		error_sys(err, r, PLOOP_EXIT_READ, "%s: Can't read the partition table", disk->name);
	return r;
}

uint64_t table_partition_end(uint64_t disk, uint32_t cluster)
{
	return disk > cluster ? round_down(disk - cluster, cluster) : 0;
}

int table_fit(struct table *table, uint64_t disk, uint64_t end, struct ploop_error *err)
{
	uint64_t sectors = disk / TABLE_SECTOR, behind = div_round_up(table->entries_len, TABLE_SECTOR) + 1;
	uint8_t *entry = table->entries + (size_t)(table->last.number - 1) * table->entry_size;

	if (!table->last.number || end <= table->last.start || end % TABLE_SECTOR || sectors < behind ||
	    end / TABLE_SECTOR > sectors - behind)
		return error_set(err, -ERANGE, PLOOP_EXIT_CHANGE_GPT,
				 "a partition that ends at byte %" PRIu64 " does not fit a disk of %" PRIu64 " bytes", end, disk);
	table->sectors = sectors;
	table->last.size = end - table->last.start;
	le64_put(entry + ENTRY_LAST, end / TABLE_SECTOR - 1);
	le64_put(table->header + HEADER_LAST_USABLE, sectors - behind - 1);
	le64_put(table->header + HEADER_OTHER, sectors - 1);
	return 0;
}

static void seal(uint8_t *header, const struct table *table)
{
	le32_put(header + HEADER_ENTRIES_CRC, crc32(table->entries, table->entries_len));
	le32_put(header + HEADER_CRC, header_crc(header));
}

/* Step 1. */
static int write_second(const struct table *table, const struct table_disk *disk)
{
	size_t len = round_up(table->entries_len, TABLE_SECTOR);
	uint64_t at = (table->sectors - 1) * TABLE_SECTOR - len;
	_free_ uint8_t *copy = allocate(len + TABLE_SECTOR);
	uint8_t *header = copy + len;
	int r;

	if (!copy)
		return -ENOMEM;
	memcpy(copy, table->entries, table->entries_len);
	memcpy(header, table->header, TABLE_SECTOR);
	le64_put(header + HEADER_SELF, table->sectors - 1);
	le64_put(header + HEADER_OTHER, 1);
	le64_put(header + HEADER_ENTRIES, at / TABLE_SECTOR);
	seal(header, table);
	r = disk->write(disk->data, copy, len + TABLE_SECTOR, at);
	return r < 0 ? r : disk->sync(disk->data);
}

static void protect(uint8_t *mbr, uint64_t sectors)
{
	if (mbr[MBR_SIGNATURE] == 0x55 && mbr[MBR_SIGNATURE + 1] == 0xaa && mbr[MBR_TYPE] == MBR_PROTECTIVE)
		le32_put(mbr + MBR_SECTORS, (uint32_t)min_u64(sectors - 1, UINT32_MAX));
}

/* Step 2. */
static int write_first(const struct table *table, const struct table_disk *disk)
{
	uint64_t entries = le64_get(table->header + HEADER_ENTRIES);
	size_t len = round_up(table->entries_len, TABLE_SECTOR), head = entries == 2 ? 2 * TABLE_SECTOR : 0;
	_free_ uint8_t *copy = allocate(2 * TABLE_SECTOR + len);
	int r;

	if (!copy)
		return -ENOMEM;
	r = disk->read(disk->data, copy, TABLE_SECTOR, 0);
	if (r < 0)
		return r;
	protect(copy, table->sectors);
	memcpy(copy + TABLE_SECTOR, table->header, TABLE_SECTOR);
	seal(copy + TABLE_SECTOR, table);
	memcpy(copy + 2 * TABLE_SECTOR, table->entries, table->entries_len);
	if (head)
		r = disk->write(disk->data, copy, head + len, 0);
	else /* room was left in between by whoever made the table: two writes, and the checksums tell */
		r = disk->write(disk->data, copy + 2 * TABLE_SECTOR, len, entries * TABLE_SECTOR);
	if (r == 0 && !head)
		r = disk->write(disk->data, copy, 2 * TABLE_SECTOR, 0);
	return r < 0 ? r : disk->sync(disk->data);
}

/* Step 3: the header is enough. `old`: the sector. */
static int wipe(const struct table_disk *disk, uint64_t old)
{
	_free_ uint8_t *sector = allocate(TABLE_SECTOR);
	int r;

	if (!sector)
		return -ENOMEM;
	r = disk->read(disk->data, sector, TABLE_SECTOR, old * TABLE_SECTOR);
	if (r < 0 || memcmp(sector, SIGNATURE, 8))
		return r;
	memset(sector, 0, TABLE_SECTOR);
	r = disk->write(disk->data, sector, TABLE_SECTOR, old * TABLE_SECTOR);
	return r < 0 ? r : disk->sync(disk->data);
}

static int write_all(const struct table *table, const struct table_disk *disk, uint64_t old)
{
	uint64_t sectors = disk->size / TABLE_SECTOR;
	int r = write_second(table, disk);

	if (r == 0)
		r = write_first(table, disk);
	if (r == 0 && old != table->sectors && old > 1 && old <= sectors)
		r = wipe(disk, old - 1);
	if (r == 0 && sectors != table->sectors && sectors != old)
		r = wipe(disk, sectors - 1);
	return r;
}

int table_write(const struct table *table, const struct table_disk *disk, struct ploop_error *err)
{
	struct table now;
	uint64_t old = 0;
	int r;

	if (table->sectors > disk->size / TABLE_SECTOR)
		return error_set(err, -ERANGE, PLOOP_EXIT_CHANGE_GPT, "%s is smaller than its partition table says", disk->name);
	if (table_read(disk, &now, NULL) == 0) {
		old = now.sectors;
		table_clear(&now);
	}
	r = write_all(table, disk, old);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_CHANGE_GPT, "%s: Can't write the partition table", disk->name) : 0;
}
