/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* stream.h: what is put is got, and nothing else is. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/le.h"
#include "format/stream.h"

static const struct stream_record good[] = {
	{ .type = STREAM_HELLO, .payload = STREAM_HELLO_SIZE, .payload_crc = 5 },
	{ .type = STREAM_IMAGE, .sequence = 1, .length = 1u << 30, .payload = STREAM_IMAGE_SIZE + 9 },
	{ .type = STREAM_DATA, .sequence = 2, .offset = 512, .length = 1024, .payload = 1024 },
	{ .type = STREAM_DATA, .flags = STREAM_ZSTD, .sequence = 3, .length = STREAM_DATA_MAX, .payload = 17 },
	{ .type = STREAM_ZERO, .sequence = 4, .offset = INT64_MAX / 1024 * 512, .length = 512 },
	{ .type = STREAM_DISCARD, .sequence = UINT64_MAX, .length = 1u << 20 },
	{ .type = STREAM_SYNC },
	{ .type = STREAM_DESCRIPTOR, .offset = 7, .length = 9, .payload = 9 },
	{ .type = STREAM_END, .offset = 8, .length = 1024, .payload = STREAM_DIGEST },
	{ .type = STREAM_HAVE, .payload = 2 * STREAM_HAVE_SIZE },
	{ .type = STREAM_HAVE_END },
	{ .type = STREAM_BACKUP, .sequence = 1, .payload = STREAM_BACKUP_SIZE },
};

static const struct stream_record bad[] = {
	{ .type = 0 },
	{ .type = 13 },
	{ .type = STREAM_BACKUP, .payload = STREAM_BACKUP_SIZE - 1 },
	{ .type = 0x7fff },
	{ .type = STREAM_HELLO, .payload = STREAM_HELLO_SIZE - 1 },
	{ .type = STREAM_ZERO, .flags = STREAM_ZSTD, .length = 512 },
	{ .type = STREAM_DATA, .flags = 2, .length = 512, .payload = 512 },
	{ .type = STREAM_DATA, .length = 512, .payload = 511 },
	{ .type = STREAM_DATA, .length = 511, .payload = 511 },
	{ .type = STREAM_DATA, .offset = 1, .length = 512, .payload = 512 },
	{ .type = STREAM_DATA },
	{ .type = STREAM_DATA, .flags = STREAM_ZSTD, .length = STREAM_DATA_MAX + 512, .payload = 9 },
	{ .type = STREAM_DATA, .flags = STREAM_ZSTD, .length = 512, .payload = STREAM_PAYLOAD_MAX + 1 },
	{ .type = STREAM_DATA, .flags = STREAM_ZSTD, .length = 512, .payload = UINT32_MAX },
	{ .type = STREAM_ZERO, .offset = UINT64_MAX - 511, .length = 512 },
	{ .type = STREAM_ZERO, .offset = 512, .length = UINT64_C(1) << 63 },
	{ .type = STREAM_ZERO, .length = 512, .payload = 1 },
	{ .type = STREAM_HAVE, .payload = STREAM_HAVE_SIZE + 1 },
};

static void test_round_trip(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(good) / sizeof(*good); i++) {
		uint8_t head[STREAM_HEAD];
		struct stream_record got;
		struct ploop_error err;

		stream_put(&good[i], head);
		assert_int_equal(stream_get(head, &got, &err), 0);
		assert_int_equal(got.type, good[i].type);
		assert_int_equal(got.flags, good[i].flags);
		assert_int_equal(got.sequence, good[i].sequence);
		assert_int_equal(got.offset, good[i].offset);
		assert_int_equal(got.length, good[i].length);
		assert_int_equal(got.payload, good[i].payload);
		assert_int_equal(got.payload_crc, good[i].payload_crc);
		for (unsigned bit = 0; bit < 8 * STREAM_HEAD; bit++) {
			head[bit / 8] ^= (uint8_t)(1u << bit % 8);
			assert_int_equal(stream_get(head, &got, &err), -EPROTO);
			assert_int_equal(err.status, PLOOP_EXIT_PROTOCOL);
			head[bit / 8] ^= (uint8_t)(1u << bit % 8);
		}
	}
}

static void test_refused(void **state)
{
	(void)state;
	for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
		uint8_t head[STREAM_HEAD];
		struct stream_record got;

		stream_put(&bad[i], head);
		assert_int_equal(stream_get(head, &got, NULL), -EPROTO);
	}
}

static void test_hello(void **state)
{
	const struct stream_hello hello = { STREAM_RESUME | STREAM_STACK, 12345 };
	uint8_t payload[STREAM_HELLO_SIZE];
	struct stream_hello got;

	(void)state;
	stream_put_hello(&hello, payload);
	assert_int_equal(stream_get_hello(payload, sizeof(payload), &got, NULL), 0);
	assert_int_equal(got.flags, hello.flags);
	assert_int_equal(got.expected, 12345);
	payload[20] |= 4;
	assert_int_equal(stream_get_hello(payload, sizeof(payload), &got, NULL), -EPROTO);
	payload[20] &= 3;
	payload[16] = 2;
	assert_int_equal(stream_get_hello(payload, sizeof(payload), &got, NULL), -EPROTO);
	payload[16] = 1;
	payload[0] = 'P';
	assert_int_equal(stream_get_hello(payload, sizeof(payload), &got, NULL), -EPROTO);
}

static void test_names(void **state)
{
	static const char *const names[] = { "", "root.hdd", "root.hdd.{a-b}", "..x" };
	static const char *const evil[] = { "..", ".", "a/b", "/etc/passwd", "a\nb", "\033[2J" };
	uint8_t payload[STREAM_IMAGE_SIZE + STREAM_NAME_MAX];
	struct stream_image image = { .version = 2, .cluster = 1u << 20, .flags = STREAM_BASE }, got;

	(void)state;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		strcpy(image.name, names[i]);
		assert_int_equal(stream_get_image(payload, stream_put_image(&image, payload), &got, NULL), 0);
		assert_string_equal(got.name, names[i]);
		assert_int_equal(got.cluster, 1u << 20);
	}
	for (size_t i = 0; i < sizeof(evil) / sizeof(*evil); i++) {
		strcpy(image.name, evil[i]);
		assert_int_equal(stream_get_image(payload, stream_put_image(&image, payload), &got, NULL), -EPROTO);
	}
	payload[STREAM_IMAGE_SIZE] = 0;
	assert_int_equal(stream_get_image(payload, STREAM_IMAGE_SIZE + 1, &got, NULL), -EPROTO);
}

static void test_old(void **state)
{
	const struct stream_old record = { 4096, 1u << 20 };
	uint8_t head[STREAM_OLD_HEAD];
	struct stream_old got;

	(void)state;
	stream_put_old(&record, head);
	assert_int_equal(stream_get_old(head, &got, NULL), 0);
	assert_int_equal(got.size, 4096);
	assert_int_equal(got.pos, 1u << 20);
	le64_put(head + 8, UINT64_MAX - 10);
	assert_int_equal(stream_get_old(head, &got, NULL), -EPROTO);
	le64_put(head + 8, 0);
	le32_put(head + 4, UINT32_MAX);
	assert_int_equal(stream_get_old(head, &got, NULL), -EPROTO);
	le32_put(head + 4, 4096);
	head[0]++;
	assert_int_equal(stream_get_old(head, &got, NULL), -EPROTO);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_refused), cmocka_unit_test(test_hello),
		cmocka_unit_test(test_names),      cmocka_unit_test(test_old),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
