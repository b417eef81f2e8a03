/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * Copy streams. The first byte says how the rest is meant: 0, as the bytes of a stream; else as records whose numbers and checksums
 * are put right here, so that the search gets behind them. What is accepted must be inside the disk that was announced.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <ploop/ploop.h>

#include "base/crc32c.h"
#include "base/le.h"
#include "base/list.h"
#include "fuzz.h"
#include "image/builder.h"
#include "image/descriptor.h"
#include "lib/copy-receive.h"

#define DISK_MOST (UINT64_C(1) << 28)

static void must(bool good)
{
	if (!good)
		abort();
}

/* Nothing is kept but how long it is. */
static int out_write(struct builder_out *out, const void *data, size_t len, uint64_t pos)
{
	must(data && pos + len > pos);
	if (pos + len > out->size)
		out->size = pos + len;
	return 0;
}

static int out_zero(struct builder_out *out, uint64_t pos, uint64_t len)
{
	(void)out;
	must(pos + len > pos);
	return 0;
}

static int out_finish(struct builder_out *out, uint64_t size)
{
	must(size >= out->size);
	return 0;
}

struct sink {
	struct copy_sink sink;
	struct builder_out out;
	struct builder *builder;
	uint64_t size;
};

static struct sink *of(struct copy_sink *sink)
{
	return container_of(sink, struct sink, sink);
}

static int take_descriptor(struct copy_sink *sink, const char *text, size_t len, struct ploop_error *err)
{
	struct descriptor *d;
	int r = descriptor_parse(text, len, "fuzz", &d, err);

	(void)sink;
	if (r == 0)
		descriptor_free(d);
	return r;
}

static int take_image(struct copy_sink *sink, const struct stream_image *image, uint64_t size, struct ploop_error *err)
{
	const struct builder_config config = {
		.raw = image->raw, .version = image->version, .cluster = image->cluster, .size = size,
		.base = image->flags & STREAM_BASE,
	};

	must(!strchr(image->name, '/'));
	if (!size || size % 512 || size > DISK_MOST)
		return -EFBIG;
	must(!of(sink)->builder);
	of(sink)->size = size;
	of(sink)->out = (struct builder_out){ .write = out_write, .zero = out_zero, .finish = out_finish };
	return builder_new(&config, &of(sink)->out, &of(sink)->builder, err);
}

static bool is_inside(struct copy_sink *sink, uint64_t len, uint64_t offset)
{
	must(of(sink)->builder && len && len <= INT64_MAX && offset <= INT64_MAX);
	return offset + len <= of(sink)->size;
}

static int take_data(struct copy_sink *sink, const void *data, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	(void)err;
	must(len <= STREAM_DATA_MAX);
	return is_inside(sink, len, offset) ? builder_write(of(sink)->builder, data, len, offset) : -EPROTO;
}

static int take_zero(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	(void)err;
	return is_inside(sink, len, offset) ? builder_zero(of(sink)->builder, offset, len) : -EPROTO;
}

static int take_discard(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	(void)err;
	return is_inside(sink, len, offset) ? builder_discard(of(sink)->builder, offset, len) : -EPROTO;
}

static int take_image_end(struct copy_sink *sink, struct ploop_error *err)
{
	int r = builder_finish(of(sink)->builder);

	(void)err;
	builder_free(of(sink)->builder);
	of(sink)->builder = NULL;
	return r;
}

static int nothing(struct copy_sink *sink, struct ploop_error *err)
{
	(void)sink;
	(void)err;
	return 0;
}

static const struct copy_sink_ops ops = {
	.descriptor = take_descriptor,
	.image = take_image,
	.data = take_data,
	.zero = take_zero,
	.discard = take_discard,
	.image_end = take_image_end,
	.sync = nothing,
	.finish = nothing,
};

struct bytes {
	const uint8_t *data;
	size_t len;
};

static ssize_t read_bytes(void *data, void *buffer, size_t len)
{
	struct bytes *bytes = data;
	size_t n = len < bytes->len ? len : bytes->len;

	memcpy(buffer, bytes->data, n);
	bytes->data += n;
	bytes->len -= n;
	return (ssize_t)n;
}

/* Records where their headers say they are; each gets the number and the checksums that it should have. */
static void put_right(uint8_t *data, size_t len)
{
	uint64_t sequence = 0;

	for (size_t at = 0; len - at >= STREAM_HEAD; sequence++) {
		uint32_t payload = le32_get(data + at + 32);

		if (payload > len - at - STREAM_HEAD)
			payload = (uint32_t)(len - at - STREAM_HEAD);
		le32_put(data + at, STREAM_MAGIC);
		le64_put(data + at + 8, sequence);
		le32_put(data + at + 32, payload);
		le32_put(data + at + 36, crc32c(0, data + at + STREAM_HEAD, payload));
		le32_put(data + at + 40, 0);
		le32_put(data + at + 44, crc32c(0, data + at, 44));
		at += STREAM_HEAD + payload;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct sink sink = { .sink = { &ops } };
	uint8_t *copy = malloc(size + 1);
	struct copy_receive receive = { .sink = &sink.sink, .feedback = -1 };
	struct bytes bytes = { .data = copy, .len = size ? size - 1 : 0 };
	struct ploop_error err;

	must(copy != NULL);
	memcpy(copy, size ? data + 1 : data, bytes.len);
	if (size && data[0])
		put_right(copy, bytes.len);
	must(stream_in_new(read_bytes, &bytes, &receive.in, &err) == 0);
	(void)copy_receive(&receive, &err);
	stream_in_free(receive.in);
	builder_free(sink.builder);
	free(copy);
	return 0;
}
