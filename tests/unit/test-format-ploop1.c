/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* ploop1.c on byte arrays: every field of the header right, broken, at its limits; geometry; entries both ways. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "base/le.h"
#include "format/ploop1.h"
#include <ploop/ploop.h>

#define MIB (UINT64_C(1) << 20)

/* A good header: 1 GiB, 1 MiB clusters. */
static const struct ploop1_header good[3] = {
	[1] = { .version = 1,
		.type = 2,
		.heads = 16,
		.cylinders = 2080,
		.cluster_sectors = 2048,
		.entries = 1024,
		.size_sectors = 2097152,
		.first_sector = 2048,
		.flags = 1 },
	[2] = { .version = 2,
		.type = 2,
		.heads = 16,
		.cylinders = 2080,
		.cluster_sectors = 2048,
		.entries = 1024,
		.size_sectors = 2097152,
		.first_sector = 2048,
		.flags = 1 },
};

static int parse_sized(const struct ploop1_header *h, uint64_t file_size, struct geometry *g, struct ploop_error *err)
{
	uint8_t head[PLOOP1_HEADER];

	ploop1_header_put(h, head);
	return format_ploop1.parse(head, sizeof(head), file_size, 0, g, err);
}

static int parse(const struct ploop1_header *h, struct geometry *g, struct ploop_error *err)
{
	return parse_sized(h, UINT64_C(1) << 62, g, err);
}

static void same_geometry(const struct geometry *a, const struct geometry *b)
{
	assert_int_equal(a->version, b->version);
	assert_int_equal(a->size, b->size);
	assert_int_equal(a->cluster, b->cluster);
	assert_int_equal(a->clusters, b->clusters);
	assert_int_equal(a->base, b->base);
	assert_int_equal(a->first, b->first);
	assert_int_equal(a->index, b->index);
	assert_int_equal(a->state, b->state);
	assert_int_equal(a->raw_state, b->raw_state);
	assert_int_equal(a->flags, b->flags);
	assert_int_equal(a->extension, b->extension);
	assert_int_equal(a->heads, b->heads);
	assert_int_equal(a->cylinders, b->cylinders);
	assert_int_equal(a->read_only, b->read_only);
}

/* Refused with status 11 and a text with this in it. */
static void refused(const struct ploop1_header *h, uint64_t file_size, const char *text)
{
	struct ploop_error err = { 0 };
	struct geometry g;

	assert_int_equal(parse_sized(h, file_size, &g, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_FORMAT);
	if (!strstr(err.text, text))
		fail_msg("'%s' is not in '%s'", text, err.text);
	assert_int_equal(parse_sized(h, file_size, &g, NULL), -EINVAL);
}

#define REFUSED(ver, field, value, text)             \
	do {                                         \
		struct ploop1_header h_ = good[ver]; \
		h_.field = (value);                  \
		refused(&h_, 4096 * MIB, text);      \
	} while (0)

static void test_bytes(void **state)
{
	/* The first 64 bytes of a new 1 GiB image, written out. */
	static const uint8_t expect[64] = {
		'W', 'i', 't',	'h', 'o', 'u', 'F', 'r', 'e', 'S', 'p', 'a', 'c', 'E', 'x', 't', 2,    0, 0, 0, 16, 0,
		0,   0,	  0x20, 8,   0,	  0,   0,   8,	 0,   0,   0,	4,   0,	  0,   0,   0,	 0x20, 0, 0, 0, 0,  0,
		0,   0,	  0,	0,   0,	  8,   0,   0,	 1,   0,   0,	0,   0,	  0,   0,   0,	 0,    0, 0, 0,
	};
	const struct format_params params = { .version = 2, .size = 1024 * MIB, .cluster = MIB };
	uint8_t head[64];
	struct geometry g, back;

	(void)state;
	memset(head, 0xAA, sizeof(head));
	assert_int_equal(format_ploop1.plan(&params, &g, NULL), 0);
	format_ploop1.build(&g, head);
	assert_memory_equal(head, expect, 64);
	assert_int_equal(format_ploop1.parse(head, 64, MIB, 0, &back, NULL), 0);
	same_geometry(&back, &g);

	g.state = FORMAT_IN_USE;
	format_ploop1.build(&g, head);
	assert_memory_equal(head + 44, "\x59\x6E\x6F\x74", 4);
}

static void test_signature(void **state)
{
	uint8_t head[64];
	struct geometry g;
	struct ploop_error err;

	(void)state;
	for (unsigned version = 1; version <= 2; version++) {
		ploop1_header_put(&good[version], head);
		assert_ptr_equal(format_probe(head, 64), &format_ploop1);
		for (unsigned len = 0; len < 64; len++)
			assert_int_equal(format_ploop1.parse(head, len, MIB, 0, &g, &err), -EINVAL);
		for (unsigned i = 0; i < 16; i++) {
			ploop1_header_put(&good[version], head);
			head[i] ^= 0x20;
			assert_null(format_probe(head, 64));
			assert_int_equal(format_ploop1.parse(head, 64, MIB, 0, &g, &err), -EINVAL);
			assert_non_null(strstr(err.text, "wrong signature"));
		}
	}
	memset(head, 0, sizeof(head)); /* the empty entry of the signature table must not match */
	assert_null(format_probe(head, 64));
}

static void test_broken_fields(void **state)
{
	(void)state;
	for (unsigned v = 1; v <= 2; v++) {
		REFUSED(v, type, 0, "wrong type");
		REFUSED(v, type, 1, "wrong type");
		REFUSED(v, type, UINT32_MAX, "wrong type");
		REFUSED(v, cluster_sectors, 0, "wrong cluster size");
		REFUSED(v, cluster_sectors, UINT32_MAX, "wrong cluster size");
		REFUSED(v, cluster_sectors, PLOOP1_CLUSTER_LIMIT + 1, "wrong cluster size");
		REFUSED(v, cluster_sectors, 1024, "too short for a disk");
		REFUSED(v, entries, 0, "wrong size 0");
		REFUSED(v, entries, 1023, "too short for a disk");
		REFUSED(v, entries, UINT32_MAX, "shorter than its index");
		REFUSED(v, entries, UINT32_MAX / 4 + 1, "shorter than its index");
		REFUSED(v, entries, UINT32_MAX / 8, "inside the index");
		REFUSED(v, entries, (MIB - 64) / 4 + 1, "inside the index");
		REFUSED(v, size_sectors, 0, "wrong size 0");
		REFUSED(v, size_sectors, 2097153, "too short for a disk");
		REFUSED(v, first_sector, UINT32_MAX & ~2047u, "beyond the end");
		REFUSED(v, first_sector, 8, v == 1 ? "inside the index" : "not a multiple");
	}
	REFUSED(2, first_sector, 0, "first block offset 0");
	REFUSED(2, first_sector, 1, "not a multiple");
	REFUSED(2, first_sector, 2049, "not a multiple");
	REFUSED(2, first_sector, UINT32_MAX, "not a multiple");
	REFUSED(1, first_sector, 1, "inside the index");
	REFUSED(2, size_sectors, UINT64_MAX, "too short for a disk");
	REFUSED(2, size_sectors, UINT64_C(1) << 55, "too short for a disk");
	REFUSED(2, size_sectors, (UINT64_C(1) << 32) + 1, "too short for a disk");
	REFUSED(1, size_sectors, UINT64_C(1) << 32, "wrong size 0");
	REFUSED(1, size_sectors, UINT32_MAX, "too short for a disk");
}

static void test_file_length(void **state)
{
	struct geometry g;

	(void)state;
	refused(&good[2], 0, "shorter than its index");
	refused(&good[2], 64 + 4095, "shorter than its index");
	refused(&good[2], 64 + 4096, "beyond the end");
	refused(&good[2], MIB - 1, "beyond the end");
	assert_int_equal(parse_sized(&good[2], MIB, &g, NULL), 0);
	assert_int_equal(parse_sized(&good[2], MIB + 7, &g, NULL), 0); /* a torn extension is no reason to refuse */
}

static void test_lenient(void **state)
{
	struct ploop1_header h;
	struct geometry g;

	(void)state;
	for (unsigned v = 1; v <= 2; v++) {
		h = good[v];
		h.heads = h.cylinders = UINT32_MAX;
		h.flags = PLOOP1_FLAGS_INVALID;
		h.first_sector = 20480; /* room for the index to grow */
		assert_int_equal(parse(&h, &g, NULL), 0);
		assert_int_equal(g.first, 10);
		assert_int_equal(g.base, 0);
		assert_false(g.read_only);
	}
	h = good[1];
	h.size_sectors |= UINT64_C(0xDEADBEEF) << 32; /* never valid in version 1 */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.size, 1024 * MIB);
	h = good[2];
	h.size_sectors -= 2047; /* the last cluster is one sector short of empty */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.size, 1023 * MIB + 512);
	assert_int_equal(g.clusters, 1024);
	h.entries = 4096; /* more than the disk needs */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.clusters, 4096);
}

static void test_states(void **state)
{
	static const struct {
		uint32_t stored;
		enum format_state state;
		bool legal;
	} cases[] = {
		{ 0, FORMAT_CLEAN, true },   { 0x312E3276, FORMAT_CLEAN, true },   { 0x746F6E59, FORMAT_IN_USE, true },
		{ 1, FORMAT_IN_USE, false }, { UINT32_MAX, FORMAT_IN_USE, false }, { 0x746F6E58, FORMAT_IN_USE, false },
	};
	struct ploop1_header h = good[2];
	struct ploop_error err;
	struct geometry g;

	(void)state;
	for (unsigned i = 0; i < 6; i++) {
		h.in_use = cases[i].stored;
		assert_int_equal(parse(&h, &g, NULL), 0);
		assert_int_equal(g.state, cases[i].state);
		assert_int_equal(g.raw_state, cases[i].stored);
		assert_int_equal(ploop1_in_use_legal(h.in_use), cases[i].legal);
	}
	h.flags = PLOOP1_FLAG_CONVERTING;
	h.in_use = PLOOP1_IN_USE;
	assert_int_equal(parse(&h, &g, &err), -EBUSY);
	assert_int_equal(err.status, PLOOP_EXIT_BUSY);
	h.in_use = PLOOP1_CLOSED;
	assert_int_equal(parse(&h, &g, &err), 0);
}

static void test_extension_state(void **state)
{
	struct ploop1_header h = good[2], back;
	uint8_t head[64];
	struct geometry g;

	(void)state;
	h.extension_sector = 4096;
	assert_int_equal(parse(&h, &g, NULL), 0); /* closed with 0: the field means nothing */
	assert_int_equal(g.extension, 0);
	assert_false(g.read_only);
	h.in_use = PLOOP1_CLOSED_V21;
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.extension, 2 * MIB);
	assert_true(g.read_only);
	assert_non_null(g.reason);
	format_ploop1.build(&g, head); /* kept: as it was */
	assert_true(ploop1_header_get(head, 64, &back));
	assert_int_equal(back.in_use, PLOOP1_CLOSED_V21);
	assert_int_equal(back.extension_sector, 4096);
	g.extension = 0; /* dropped: "v2.1" would be a lie */
	format_ploop1.build(&g, head);
	assert_true(ploop1_header_get(head, 64, &back));
	assert_int_equal(back.in_use, PLOOP1_CLOSED);
	assert_int_equal(back.extension_sector, 0);
	h.in_use = PLOOP1_IN_USE;
	h.extension_sector = UINT64_MAX;
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.extension, UINT64_MAX);
	assert_true(g.read_only);
}

static void test_plan_clusters(void **state)
{
	struct format_params params;
	struct geometry g, back;
	uint8_t head[64];

	(void)state;
	for (params.version = 1; params.version <= 2; params.version++)
		for (params.cluster = 64 * 512; params.cluster <= 131072 * 512; params.cluster *= 2) {
			params.size = 20000 * (uint64_t)params.cluster;
			if (params.version == 1 && params.size > UINT32_MAX * UINT64_C(512))
				params.size = 10 * (uint64_t)params.cluster;
			assert_int_equal(format_ploop1.plan(&params, &g, NULL), 0);
			assert_false(g.read_only);
			assert_int_equal(geometry_offset(&g, g.first) % g.cluster, 0);
			assert_true(geometry_offset(&g, g.first) >= 64 + 4 * (uint64_t)g.clusters);
			assert_true(geometry_offset(&g, g.first) - g.cluster < 64 + 4 * (uint64_t)g.clusters);
			format_ploop1.build(&g, head);
			assert_int_equal(format_ploop1.parse(head, 64, geometry_offset(&g, g.first), 0, &back, NULL),
					 0);
			same_geometry(&back, &g);
		}
}

static void plan_refused(uint32_t version, uint64_t size, uint32_t cluster, const char *text)
{
	const struct format_params params = { .version = version, .size = size, .cluster = cluster };
	struct ploop_error err = { 0 };
	struct geometry g;

	assert_true(format_ploop1.plan(&params, &g, &err) < 0);
	assert_int_equal(err.status, PLOOP_EXIT_PARAM);
	if (!strstr(err.text, text))
		fail_msg("'%s' is not in '%s'", text, err.text);
}

static void test_plan_limits(void **state)
{
	struct format_params params = { .version = 2, .size = UINT32_MAX * MIB, .cluster = MIB };
	struct geometry g;

	(void)state;
	assert_int_equal(format_ploop1.plan(&params, &g, NULL), 0);
	plan_refused(2, (UINT32_MAX + UINT64_C(1)) * MIB, MIB, "maximum allowed size is 8796093020160 sectors");
	plan_refused(1, 2048 * 1024 * MIB, MIB, "maximum allowed size is 4294967295 sectors");
	plan_refused(1, UINT64_MAX - 511, MIB, "maximum allowed size");
	plan_refused(0, MIB, MIB, "Unknown ploop image version: 0");
	plan_refused(3, MIB, MIB, "Unknown ploop image version: 3");
	plan_refused(2, 0, MIB, "Incorrect block device size specified: 0");
	plan_refused(2, MIB + 512, MIB, "aligned to the cluster block size 2048");
	plan_refused(2, MIB, 0, "Incorrect blocksize specified: 0");
	plan_refused(2, MIB, 16384, "Incorrect blocksize specified: 32");
	plan_refused(2, 256 * MIB, 128 * MIB, "Incorrect blocksize specified: 262144");
	plan_refused(2, 3 * MIB, 3 * MIB, "Incorrect blocksize specified: 6144");
}

static void test_chs(void **state)
{
	static const struct {
		uint64_t n;
		struct ploop1_chs expect;
	} cases[] = {
		{ 2097152, { 2080, 16, 63 } },
		{ 20971520, { 40960, 16, 32 } },
		{ 131072, { 256, 16, 32 } },
		{ 1032192, { 1024, 16, 63 } },
		{ 1032193, { 1024, 16, 63 } },
		{ 16777215, { 16644, 16, 63 } },
		{ 16777216, { 32768, 16, 32 } },
		{ 7, { 7, 1, 1 } },
		{ 63, { 63, 1, 1 } },
		{ 126, { 1, 2, 63 } },
		{ 24, { 24, 1, 1 } },
		{ 16777217, { 16777217, 1, 1 } },
		{ (UINT64_C(1) << 40) + 1, { 1, 1, 1 } },
	};

	(void)state;
	for (unsigned i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct ploop1_chs chs = ploop1_chs(cases[i].n);

		assert_int_equal(chs.cylinders, cases[i].expect.cylinders);
		assert_int_equal(chs.heads, cases[i].expect.heads);
		assert_int_equal(chs.sectors, cases[i].expect.sectors);
	}
}

/* Images of old products: clusters of odd size, data at any sector. Read, never written. */
static void test_legacy(void **state)
{
	struct ploop1_header h = {
		.version = 1, .type = 2, .cluster_sectors = 63, .entries = 1000, .size_sectors = 63000
	};
	struct geometry g;
	uint32_t k;

	(void)state;
	assert_int_equal(parse(&h, &g, NULL), 0); /* data right after the index: 4064 bytes, so at sector 8 */
	assert_true(g.read_only);
	assert_int_equal(g.first, 1);
	assert_int_equal(g.base, 8 * 512 - 63 * 512);
	assert_int_equal(geometry_offset(&g, 1), 8 * 512);
	assert_int_equal(format_ploop1.decode(&g, 8, &k), 0);
	assert_int_equal(k, 1);
	assert_int_equal(format_ploop1.decode(&g, 8 + 63 * 999, &k), 0);
	assert_int_equal(k, 1000);
	assert_int_equal(format_ploop1.encode(&g, 1000), 8 + 63 * 999);
	assert_int_equal(format_ploop1.decode(&g, 7, &k), -EINVAL);
	assert_int_equal(format_ploop1.decode(&g, 9, &k), -EINVAL);
	assert_int_equal(format_ploop1.decode(&g, 63, &k), -EINVAL);

	h.first_sector = 130; /* only sector-aligned */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_int_equal(g.first, 2);
	assert_int_equal(g.base, 4 * 512);
	assert_int_equal(format_ploop1.decode(&g, 130, &k), 0);
	assert_int_equal(k, 2);
	assert_int_equal(format_ploop1.decode(&g, 67, &k), -EINVAL); /* before the data area */

	h = good[1];
	h.first_sector = 0; /* good clusters, but the data shares a page with the index */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_true(g.read_only);
	h.first_sector = 16; /* the next page: safe */
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_false(g.read_only);
	assert_int_equal(format_ploop1.decode(&g, 16 + 2048, &k), 0);
	assert_int_equal(k, 2);

	h = good[2];
	h.cluster_sectors = 1;
	h.size_sectors = h.entries = 1024;
	h.first_sector = 9;
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_true(g.read_only);
	h.cluster_sectors = 262144;
	h.first_sector = 262144;
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_true(g.read_only);
	h.cluster_sectors = h.first_sector = PLOOP1_CLUSTER_LIMIT;
	assert_int_equal(parse(&h, &g, NULL), 0);
	assert_true(geometry_offset(&g, format_ploop1.last(&g)) < (uint64_t)INT64_MAX - g.cluster);
}

static void test_entries(void **state)
{
	struct geometry g;
	uint32_t k;

	(void)state;
	assert_int_equal(parse(&good[2], &g, NULL), 0);
	assert_int_equal(format_ploop1.decode(&g, 0, &k), 0);
	assert_int_equal(k, 0);
	assert_int_equal(format_ploop1.decode(&g, 1, &k), 0);
	assert_int_equal(k, 1);
	assert_int_equal(format_ploop1.decode(&g, UINT32_MAX, &k), -EINVAL);
	assert_int_equal(format_ploop1.decode(&g, UINT32_MAX - 1, &k), 0);
	assert_int_equal(k, format_ploop1.last(&g));
	g.first = 3;
	assert_int_equal(format_ploop1.decode(&g, 2, &k), -EINVAL);
	assert_int_equal(format_ploop1.encode(&g, 0), 0);
	assert_int_equal(format_ploop1.encode(&g, 77), 77);

	assert_int_equal(parse(&good[1], &g, NULL), 0);
	assert_int_equal(format_ploop1.decode(&g, 0, &k), 0);
	assert_int_equal(k, 0);
	assert_int_equal(format_ploop1.decode(&g, 2048, &k), 0);
	assert_int_equal(k, 1);
	assert_int_equal(format_ploop1.decode(&g, 2047, &k), -EINVAL);
	assert_int_equal(format_ploop1.decode(&g, 4097, &k), -EINVAL);
	assert_int_equal(format_ploop1.decode(&g, UINT32_MAX, &k), -EINVAL);
	assert_int_equal(format_ploop1.encode(&g, 0), 0);
	k = format_ploop1.last(&g);
	assert_int_equal(k, 2097151); /* the last whole MiB below 2 TiB */
	assert_int_equal(format_ploop1.encode(&g, k), 0xFFFFF800);
	assert_int_equal(format_ploop1.decode(&g, 0xFFFFF800, &k), 0);
	assert_int_equal(k, 2097151);
}

static void test_pages(void **state)
{
	const struct format_params params = { .version = 2, .size = 3000 * MIB, .cluster = MIB };
	struct geometry g;
	uint32_t next = 0;

	(void)state;
	assert_int_equal(format_ploop1.plan(&params, &g, NULL), 0);
	assert_int_equal(geometry_pages(&g), 3);
	for (uint64_t page = 0; page < 3; page++) {
		assert_int_equal(geometry_page_first(&g, page), next);
		next = geometry_page_end(&g, page);
		assert_int_equal(geometry_page_of(&g, next - 1), page);
	}
	assert_int_equal(next, 3000);
	assert_int_equal(geometry_page_end(&g, 0), 1008);
}

static void test_find(void **state)
{
	(void)state;
	assert_ptr_equal(format_find("ploop1"), &format_ploop1);
	assert_ptr_equal(format_find("expanded"), &format_ploop1);
	assert_ptr_equal(format_find("raw"), &format_raw);
	assert_null(format_find("qcow"));
	assert_null(format_find(""));
}

static void test_raw(void **state)
{
	struct format_params params = { .size = 1024 * MIB + 512, .cluster = MIB };
	struct ploop_error err;
	struct geometry g;
	uint32_t k;

	(void)state;
	assert_int_equal(format_raw.parse("", 0, 10 * MIB + 1000, 0, &g, NULL), 0);
	assert_int_equal(g.size, 10 * MIB + 512); /* what follows the last whole sector is not part of the disk */
	assert_int_equal(g.cluster, MIB);
	assert_int_equal(g.clusters, 11);
	assert_int_equal(geometry_offset(&g, 1), 0);
	assert_int_equal(geometry_offset(&g, 11), 10 * MIB);
	assert_int_equal(format_raw.decode(&g, 11, &k), 0);
	assert_int_equal(format_raw.decode(&g, 12, &k), -EINVAL);
	assert_int_equal(format_raw.last(&g), 11);
	assert_int_equal(format_raw.parse("", 0, 511, 0, &g, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_FORMAT);
	assert_int_equal(format_raw.parse("", 0, MIB, 1000, &g, &err), -EINVAL);
	assert_int_equal(err.status, PLOOP_EXIT_PARAM);
	assert_int_equal(format_raw.parse("", 0, UINT64_C(1) << 62, 64 * 512, &g, &err), -EFBIG);
	assert_int_equal(format_raw.plan(&params, &g, NULL), 0);
	params.size = 0;
	assert_int_equal(format_raw.plan(&params, &g, NULL), -EINVAL);
	params.size = 1000;
	assert_int_equal(format_raw.plan(&params, &g, NULL), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_signature),
		cmocka_unit_test(test_broken_fields),
		cmocka_unit_test(test_file_length),
		cmocka_unit_test(test_lenient),
		cmocka_unit_test(test_states),
		cmocka_unit_test(test_extension_state),
		cmocka_unit_test(test_plan_clusters),
		cmocka_unit_test(test_plan_limits),
		cmocka_unit_test(test_chs),
		cmocka_unit_test(test_legacy),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_pages),
		cmocka_unit_test(test_find),
		cmocka_unit_test(test_raw),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
