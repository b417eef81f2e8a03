/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-receive.h: a whole stream becomes the image that was sent; of a damaged one no file is left. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/crc32c.h"
#include "base/le.h"
#include "base/prng.h"
#include "lib/copy-old.h"
#include "lib/copy-receive.h"
#include "lib/copy-target.h"
#include "lib/copy-to-stream.h"

#define CLUSTER 32768u
#define SIZE (UINT64_C(40) * CLUSTER)
#define RECORDS_MOST 200

struct bytes {
	uint8_t *data;
	size_t len, at;
};

/* In memory: every complete image is synced, and there are many. */
static char folder[] = "/dev/shm/ploop-test-copy-XXXXXX";
static char target[64];
static uint8_t disk[SIZE];
static struct bytes good;
static size_t starts[RECORDS_MOST], nrecords; /* where records begin */

static ssize_t read_bytes(void *data, void *buffer, size_t len)
{
	struct bytes *bytes = data;
	size_t n = len < bytes->len - bytes->at ? len : bytes->len - bytes->at;

	memcpy(buffer, bytes->data + bytes->at, n);
	bytes->at += n;
	return (ssize_t)n;
}

/* What a sender says: pieces, some of them twice, zeros and discards, a question between. */
static void send(struct copy_sink *sink)
{
	const struct stream_image image = { .version = 2, .cluster = CLUSTER, .flags = STREAM_BASE };
	struct ploop_error err;
	struct prng prng;

	prng_seed(&prng, 5);
	assert_int_equal(sink->ops->image(sink, &image, SIZE, &err), 0);
	for (unsigned i = 0; i < 60; i++) {
		uint64_t v = prng_below(&prng, SIZE / CLUSTER), at = v * CLUSTER;
		uint64_t skip = prng_below(&prng, 8) * 4096, len = 512 * (1 + prng_below(&prng, 8));

		switch (prng_below(&prng, 5)) {
		case 0:
			assert_int_equal(sink->ops->zero(sink, len, at + skip, &err), 0);
			memset(disk + at + skip, 0, len);
			break;
		case 1:
			assert_int_equal(sink->ops->discard(sink, CLUSTER, at, &err), 0);
			memset(disk + at, 0, CLUSTER);
			break;
		default:
			for (uint64_t b = 0; b < len; b++)
				disk[at + skip + b] = (uint8_t)(i % 2 ? prng_next(&prng) : i);
			assert_int_equal(sink->ops->data(sink, disk + at + skip, len, at + skip, &err), 0);
		}
	}
	assert_int_equal(sink->ops->sync(sink, &err), 0);
	assert_int_equal(sink->ops->image_end(sink, &err), 0);
	assert_int_equal(sink->ops->finish(sink, &err), 0);
	sink->ops->free(sink);
}

static void take_stream(int fd)
{
	off_t size = lseek(fd, 0, SEEK_END);

	good = (struct bytes){ .data = malloc((size_t)size), .len = (size_t)size };
	assert_int_equal(pread(fd, good.data, good.len, 0), size);
	close(fd);
}

static int set_up(void **state)
{
	const struct copy_to_stream config = { .fd = memfd_create("stream", 0), .feedback = -1, .compress = true };
	struct copy_sink *sink;
	struct ploop_error err;

	(void)state;
	assert_non_null(mkdtemp(folder));
	snprintf(target, sizeof(target), "%s/image", folder);
	assert_int_equal(copy_to_stream(&config, &sink, &err), 0);
	send(sink);
	take_stream(config.fd);
	for (size_t at = 0; at < good.len; at += STREAM_HEAD + le32_get(good.data + at + 32))
		starts[nrecords++] = at;
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	free(good.data);
	return rmdir(folder);
}

static unsigned files_left(void)
{
	DIR *dir = opendir(folder);
	unsigned n = 0;

	for (struct dirent *entry; (entry = readdir(dir)) != NULL;)
		n += entry->d_name[0] != '.';
	closedir(dir);
	return n;
}

static int receive(const uint8_t *data, size_t len, struct ploop_error *err)
{
	struct bytes bytes = { .data = (uint8_t *)data, .len = len };
	struct copy_receive receive = { .feedback = -1 };
	int r;

	assert_int_equal(stream_in_new(read_bytes, &bytes, &receive.in, err), 0);
	assert_int_equal(copy_target_new(target, false, &receive.sink, err), 0);
	r = copy_receive(&receive, err);
	receive.sink->ops->free(receive.sink);
	stream_in_free(receive.in);
	return r;
}

static void test_whole(void **state)
{
	const char *const paths[] = { target };
	const struct ploop_files files = { .paths = paths, .npaths = 1 };
	struct ploop_disk *copy;
	struct ploop_error err;
	uint8_t *content = malloc(SIZE);

	(void)state;
	assert_int_equal(receive(good.data, good.len, &err), 0);
	assert_int_equal(files_left(), 1);
	assert_int_equal(ploop_disk_open(&files, &copy, &err), 0);
	assert_int_equal(ploop_disk_size(copy), SIZE);
	assert_int_equal(ploop_disk_read(copy, content, SIZE, 0, &err), 0);
	assert_memory_equal(content, disk, SIZE);
	ploop_disk_close(copy);
	free(content);
	unlink(target);
}

/* Refused, for one of the two reasons, and nothing is left. */
static void must_refuse(const uint8_t *data, size_t len, bool cut)
{
	struct ploop_error err = { 0 };
	int r = receive(data, len, &err);

	if (cut)
		assert_int_equal(r, -ENODATA);
	else
		assert_true(r == -EPROTO || r == -ENODATA);
	assert_int_equal(err.status, r == -EPROTO ? PLOOP_EXIT_PROTOCOL : PLOOP_EXIT_READ);
	assert_int_equal(files_left(), 0);
}

static void test_cut(void **state)
{
	(void)state;
	for (size_t i = 0; i < nrecords; i++) {
		must_refuse(good.data, starts[i], true);
		must_refuse(good.data, starts[i] + STREAM_HEAD / 2, true);
		must_refuse(good.data, starts[i] + STREAM_HEAD - 1, true);
	}
	must_refuse(good.data, good.len - 1, true);
}

static void test_bits(void **state)
{
	uint8_t *bad = malloc(good.len);
	struct prng prng;

	(void)state;
	prng_seed(&prng, 9);
	for (unsigned i = 0; i < 600; i++) {
		size_t at = i % 2 ? prng_below(&prng, good.len) : starts[prng_below(&prng, nrecords)] + prng_below(&prng, 48);

		memcpy(bad, good.data, good.len);
		bad[at] ^= (uint8_t)(1u << prng_below(&prng, 8));
		must_refuse(bad, good.len, false);
	}
	free(bad);
}

static size_t length_of(size_t i)
{
	return (i + 1 < nrecords ? starts[i + 1] : good.len) - starts[i];
}

/* Two records in each other's place; one left out; one twice; one of another stream with the right number. */
static void test_order(void **state)
{
	uint8_t *bad = malloc(2 * good.len);

	(void)state;
	for (size_t i = 0; i + 1 < nrecords; i++) {
		size_t a = length_of(i), b = length_of(i + 1), rest = good.len - starts[i] - a - b;

		memcpy(bad, good.data, starts[i]);
		memcpy(bad + starts[i], good.data + starts[i + 1], b);
		memcpy(bad + starts[i] + b, good.data + starts[i], a);
		memcpy(bad + starts[i] + a + b, good.data + starts[i + 1] + b, rest);
		must_refuse(bad, good.len, false);
		memcpy(bad + starts[i], good.data + starts[i + 1], good.len - starts[i + 1]);
		must_refuse(bad, good.len - a, false);
		memcpy(bad + starts[i], good.data + starts[i], a);
		memcpy(bad + starts[i] + a, good.data + starts[i], good.len - starts[i]);
		must_refuse(bad, good.len + a, false);
	}
	free(bad);
}

/* Whoever can compute checksums can still say what is impossible. */
static void test_lies(void **state)
{
	static const uint64_t numbers[] = { UINT64_C(1) << 63, UINT64_MAX, UINT64_MAX - 511, SIZE, SIZE - 512, 1, 0 };
	uint8_t *bad = malloc(good.len);

	(void)state;
	for (size_t i = 0; i < nrecords; i++) {
		for (size_t n = 0; n < 2 * sizeof(numbers) / sizeof(*numbers); n++) {
			uint8_t *head = bad + starts[i];

			memcpy(bad, good.data, good.len);
			le64_put(head + 16 + 8 * (n % 2), numbers[n / 2]);
			le32_put(head + 44, crc32c(0, head, 44));
			if (memcmp(bad, good.data, good.len) != 0)
				must_refuse(bad, good.len, false);
		}
	}
	free(bad);
}

static void test_old(void **state)
{
	struct copy_sink *sink;
	struct ploop_error err;
	int fd = memfd_create("stream", 0);
	struct stream_in *in;
	struct prng prng;
	uint8_t *bad;

	(void)state;
	assert_int_equal(copy_to_old(fd, -1, &sink, &err), 0);
	free(good.data);
	send(sink);
	take_stream(fd);
	bad = malloc(good.len);
	prng_seed(&prng, 3);
	for (unsigned i = 0; i < 200; i++) {
		struct bytes bytes = { .data = bad, .len = i % 2 ? prng_below(&prng, good.len) : good.len };
		int r;

		memcpy(bad, good.data, good.len);
		if (i % 2 == 0)
			le32_put(bad + (i % 3 ? 0 : STREAM_OLD_HEAD + le32_get(bad + 4)), i % 5 ? 0x4cc0ac3e : 0);
		assert_int_equal(stream_in_new(read_bytes, &bytes, &in, &err), 0);
		r = copy_receive_old(in, target, -1, &err);
		assert_int_equal(r, i % 2 ? -ENODATA : -EPROTO);
		stream_in_free(in);
		assert_int_equal(files_left(), 0);
	}
	free(bad);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whole), cmocka_unit_test(test_cut),  cmocka_unit_test(test_bits),
		cmocka_unit_test(test_order), cmocka_unit_test(test_lies), cmocka_unit_test(test_old),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
