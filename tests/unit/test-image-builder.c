/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* builder.h: random pieces in random order against flat arrays; the image is then read by its own index. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/checked.h"
#include "base/list.h"
#include "base/prng.h"
#include "format/format.h"
#include "image/builder.h"

#define CLUSTER 32768u
#define CLUSTERS 40u
#define SIZE ((uint64_t)CLUSTER * CLUSTERS - 3 * SECTOR) /* the last cluster is cut off */
#define ROOM (CLUSTER * 3u * CLUSTERS)

struct memory {
	struct builder_out out;
	unsigned char bytes[ROOM];
	bool finished;
};

static int memory_write(struct builder_out *out, const void *data, size_t len, uint64_t pos)
{
	struct memory *memory = container_of(out, struct memory, out);

	assert_true(pos + len <= ROOM);
	memcpy(memory->bytes + pos, data, len);
	out->size = max_u64(out->size, pos + len);
	return 0;
}

static int memory_zero(struct builder_out *out, uint64_t pos, uint64_t len)
{
	assert_true(pos + len <= ROOM);
	memset(container_of(out, struct memory, out)->bytes + pos, 0, len);
	return 0;
}

static int memory_read(struct builder_out *out, void *data, size_t len, uint64_t pos)
{
	assert_true(pos + len <= ROOM);
	memcpy(data, container_of(out, struct memory, out)->bytes + pos, len);
	return 0;
}

static int memory_finish(struct builder_out *out, uint64_t size)
{
	struct memory *memory = container_of(out, struct memory, out);

	memory->finished = true;
	out->size = size;
	return 0;
}

static struct memory memory;
static unsigned char disk[CLUSTER * CLUSTERS]; /* what the image must say */
static bool mapped[CLUSTERS];

static void reset(void)
{
	memset(&memory, 0, sizeof(memory));
	memory.out = (struct builder_out){
		.write = memory_write, .zero = memory_zero, .finish = memory_finish, .read = memory_read
	};
	memset(disk, 0, sizeof(disk));
	memset(mapped, 0, sizeof(mapped));
}

static struct builder *start(bool base, bool resumable, unsigned version)
{
	const struct builder_config config = {
		.version = version, .cluster = CLUSTER, .size = SIZE, .base = base, .resumable = resumable,
	};
	struct ploop_error err;
	struct builder *builder;

	assert_int_equal(builder_new(&config, &memory.out, &builder, &err), 0);
	return builder;
}

static void step(struct builder *builder, struct prng *prng, bool base)
{
	unsigned char data[3 * CLUSTER];
	uint64_t sectors = SIZE / SECTOR, at = prng_below(prng, sectors);
	uint64_t n = 1 + prng_below(prng, min_u64(sectors - at, sizeof(data) / SECTOR));
	uint64_t offset = at * SECTOR, len = n * SECTOR;

	switch (prng_below(prng, 4)) {
	case 0:
	case 1:
		memset(data, (int)prng_below(prng, 255) + 1, len);
		assert_int_equal(builder_write(builder, data, len, offset), 0);
		memcpy(disk + offset, data, len);
		for (uint64_t v = offset / CLUSTER; v * CLUSTER < offset + len; v++)
			mapped[v] = true;
		break;
	case 2:
		assert_int_equal(builder_zero(builder, offset, len), 0);
		memset(disk + offset, 0, len);
		for (uint64_t v = offset / CLUSTER; !base && v * CLUSTER < offset + len; v++)
			mapped[v] = true;
		break;
	default:
		offset = round_down(offset, CLUSTER);
		len = min_u64(2 * CLUSTER, SIZE - offset);
		assert_int_equal(builder_discard(builder, offset, len), 0);
		memset(disk + offset, 0, len);
		for (uint64_t v = offset / CLUSTER; v * CLUSTER < offset + len; v++)
			mapped[v] = false;
	}
}

/* Reads the finished image as anybody would. */
static void compare(void)
{
	struct geometry g;
	struct ploop_error err;
	bool used[ROOM / CLUSTER] = { false };

	assert_true(memory.finished);
	assert_int_equal(format_ploop1.parse(memory.bytes, FORMAT_HEAD, memory.out.size, 0, &g, &err), 0);
	assert_int_equal(g.state, FORMAT_CLEAN);
	assert_int_equal(g.size, SIZE);
	for (uint32_t v = 0; v < CLUSTERS; v++) {
		uint32_t stored, k;

		memcpy(&stored, memory.bytes + g.index + 4 * v, sizeof(stored));
		assert_int_equal(format_ploop1.decode(&g, le32toh(stored), &k), 0);
		assert_int_equal(k != 0, mapped[v]);
		if (!k)
			continue;
		assert_true(geometry_offset(&g, k) + CLUSTER <= memory.out.size);
		assert_false(used[k]);
		used[k] = true;
		assert_memory_equal(memory.bytes + geometry_offset(&g, k), disk + v * CLUSTER,
				    min_u64(CLUSTER, SIZE - v * CLUSTER));
	}
}

static void test_random(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 200; seed++) {
		struct prng prng;
		bool base = seed & 1;
		struct builder *builder;

		reset();
		prng_seed(&prng, seed);
		builder = start(base, seed & 2, 1 + (seed >> 2 & 1));
		for (unsigned i = 0; i < 100; i++)
			step(builder, &prng, base);
		assert_int_equal(builder_finish(builder), 0);
		builder_free(builder);
		compare();
	}
}

/* What was there when it broke off is there again, and goes on to the same end. */
static void test_resume(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 100; seed++) {
		struct prng prng;
		struct builder *builder;
		unsigned char data[CLUSTER];

		reset();
		prng_seed(&prng, seed);
		for (unsigned run = 0; run < 3; run++) {
			builder = start(true, true, 2);
			assert_int_equal(builder_resume(builder), 0);
			for (uint32_t v = 0, next = builder_next(builder, 0); v < CLUSTERS; v++) {
				assert_int_equal(v == next, mapped[v]);
				if (v != next)
					continue;
				assert_int_equal(builder_read(builder, v, data), 0);
				assert_memory_equal(data, disk + v * CLUSTER, min_u64(CLUSTER, SIZE - v * CLUSTER));
				next = builder_next(builder, v + 1);
			}
			for (unsigned i = 0; i < 40; i++)
				step(builder, &prng, true);
			if (run == 2)
				assert_int_equal(builder_finish(builder), 0);
			builder_free(builder);
		}
		compare();
	}
}

/* A half image is a stranger's: no entry of it is believed. */
static void test_resume_hostile(void **state)
{
	(void)state;
	for (unsigned seed = 0; seed < 300; seed++) {
		struct prng prng;
		struct builder *builder;

		reset();
		prng_seed(&prng, seed);
		builder = start(true, true, 1 + (seed & 1));
		for (unsigned i = 0; i < 20; i++)
			step(builder, &prng, true);
		builder_free(builder);
		for (unsigned i = 0; i < 20; i++)
			memory.bytes[seed % 3 ? 64 + prng_below(&prng, 4 * CLUSTERS) : prng_below(&prng, 64)] =
				(unsigned char)prng_next(&prng);
		memory.out.size = prng_below(&prng, ROOM / 2) + 1;
		builder = start(true, true, 1 + (seed & 1));
		if (builder_resume(builder) == 0) {
			unsigned char all[CLUSTER];

			for (uint32_t v = builder_next(builder, 0); v != UINT32_MAX; v = builder_next(builder, v + 1))
				assert_int_equal(builder_read(builder, v, all), 0);
			memset(disk, 7, sizeof(disk));
			memset(mapped, 1, sizeof(mapped));
			assert_int_equal(builder_write(builder, disk, SIZE, 0), 0);
			assert_int_equal(builder_finish(builder), 0);
			compare();
		}
		builder_free(builder);
	}
}

static void test_discard_of_a_part(void **state)
{
	struct builder *builder;

	(void)state;
	reset();
	builder = start(true, false, 2);
	assert_int_equal(builder_discard(builder, 0, SECTOR), -EINVAL);
	assert_int_equal(builder_discard(builder, SECTOR, CLUSTER - SECTOR), -EINVAL);
	builder_free(builder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_random),
		cmocka_unit_test(test_resume),
		cmocka_unit_test(test_resume_hostile),
		cmocka_unit_test(test_discard_of_a_part),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
