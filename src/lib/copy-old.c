/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-old.c - the original's stream: the bytes of one image file, without checksums. Coming in, it is written as it comes; who it
 * is from is trusted with no number in it. Going out, an image is built into it: its receiver needs not know of builders.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/list.h"
#include "format/format.h"
#include "image/builder.h"
#include "lib/copy-old.h"
#include "lib/copy-part.h"
#include "lib/copy-receive.h"

#define OLD_PIECE (1u << 20)
#define SYNC_SIZE 4u /* at position 0: not data, but a question */

static int take_sync(const struct builder_file *file, struct stream_in *in, int feedback, struct ploop_error *err)
{
	char ignored[SYNC_SIZE];
	int r = stream_in_raw(in, ignored, sizeof(ignored), err);

	if (r < 0)
		return r;
	if (fdatasync(file->fd) < 0) {
		r = error_sys(err, -errno, PLOOP_EXIT_FSYNC, "image");
		copy_feedback(feedback, false, NULL);
		return r;
	}
	return copy_feedback(feedback, true, err);
}

static int take_data(struct builder_file *file, struct stream_in *in, const struct stream_old *record, char *buffer,
		     struct ploop_error *err)
{
	for (uint32_t done = 0; done < record->size;) {
		uint32_t n = (uint32_t)min_u64(OLD_PIECE, record->size - done);
		int r = stream_in_raw(in, buffer, n, err);

		if (r < 0)
			return r;
		r = file->out.write(&file->out, buffer, n, record->pos + done);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write the image");
		done += n;
	}
	return 0;
}

static int take_all(struct builder_file *file, struct stream_in *in, int feedback, struct ploop_error *err)
{
	_free_ char *buffer = malloc(OLD_PIECE);
	uint8_t head[STREAM_OLD_HEAD];
	struct stream_old record;
	int r = 0;

	if (!buffer)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	for (;;) {
		r = stream_in_raw(in, head, sizeof(head), err);
		if (r == 0)
			r = stream_get_old(head, &record, err);
		if (r < 0 || !record.size)
			break;
		if (record.size == SYNC_SIZE && !record.pos)
			r = take_sync(file, in, feedback, err);
		else
			r = take_data(file, in, &record, buffer, err);
		if (r < 0)
			break;
	}
	if (r == 0 && !file->out.size)
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: no data");
	return r;
}

/* A ploop image says how long it must be; the end of one whose last cluster is zeros is not sent by all. */
static int finish(struct builder_file *file, struct ploop_error *err)
{
	uint8_t head[FORMAT_HEAD];
	struct geometry g;
	uint64_t size = file->out.size;
	int r = file->out.read(&file->out, head, sizeof(head), 0);

	if (r == 0 && format_probe(head, sizeof(head)) == &format_ploop1) {
		r = format_ploop1.parse(head, sizeof(head), UINT64_MAX / 2, 0, &g, err);
		if (r < 0)
			return r;
		size = max_u64(size, geometry_offset(&g, g.first));
		size = geometry_offset(&g, g.first) + round_up(size - geometry_offset(&g, g.first), g.cluster);
	}
	r = file->out.finish(&file->out, size);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_FSYNC, "image") : 0;
}

int copy_receive_old(struct stream_in *in, const char *target, int feedback, struct ploop_error *err)
{
	struct copy_part part;
	struct builder_file file;
	int r = copy_part_open(&part, target, false, err);

	if (r < 0)
		return r;
	r = builder_file_open(&file, part.path, false, err);
	if (r == 0) {
		r = take_all(&file, in, feedback, err);
		if (r == 0)
			r = finish(&file, err);
		if (r == 0)
			r = copy_part_publish(&part, err);
		if (r < 0)
			copy_part_remove(&part);
		builder_file_close(&file);
	}
	copy_part_close(&part);
	return r;
}

struct old_sink {
	struct copy_sink sink;
	struct builder_out out;
	struct builder *builder;
	int fd, feedback;
	uint64_t size;
};

static int put(struct old_sink *old, const void *data, uint32_t len, uint64_t pos)
{
	const struct stream_old record = { .size = len, .pos = pos };
	uint8_t head[STREAM_OLD_HEAD];
	int r;

	stream_put_old(&record, head);
	r = fd_write(old->fd, head, sizeof(head));
	return r == 0 && len ? fd_write(old->fd, data, len) : r;
}

static int old_write(struct builder_out *out, const void *data, size_t len, uint64_t pos)
{
	struct old_sink *old = container_of(out, struct old_sink, out);

	out->size = max_u64(out->size, pos + len);
	return put(old, data, (uint32_t)len, pos);
}

static int old_zero(struct builder_out *out, uint64_t pos, uint64_t len)
{
	struct old_sink *old = container_of(out, struct old_sink, out);
	static const char zeros[1u << 16];
	int r = 0;

	if (pos >= out->size)
		return 0;
	len = min_u64(len, out->size - pos);
	for (uint64_t done = 0; r == 0 && done < len; done += sizeof(zeros))
		r = put(old, zeros, (uint32_t)min_u64(sizeof(zeros), len - done), pos + done);
	return r;
}

static int old_finish(struct builder_out *out, uint64_t size)
{
	struct old_sink *old = container_of(out, struct old_sink, out);
	static const char sector[SECTOR];
	int r = 0;

	/* The receiver makes the file as long as what it writes. */
	if (out->size < size)
		r = put(old, sector, sizeof(sector), size - sizeof(sector));
	return r == 0 ? put(old, NULL, 0, 0) : r;
}

static struct old_sink *sink_of(struct copy_sink *sink)
{
	return container_of(sink, struct old_sink, sink);
}

static int written(int r, struct ploop_error *err)
{
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write the stream") : 0;
}

static int sink_image(struct copy_sink *sink, const struct stream_image *image, uint64_t size, struct ploop_error *err)
{
	struct old_sink *old = sink_of(sink);
	const struct builder_config config = {
		.raw = image->raw,
		.version = image->version,
		.cluster = image->cluster,
		.size = size,
		.base = image->flags & STREAM_BASE,
	};

	return builder_new(&config, &old->out, &old->builder, err);
}

static int sink_data(struct copy_sink *sink, const void *data, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	return written(builder_write(sink_of(sink)->builder, data, len, offset), err);
}

static int sink_zero(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	return written(builder_zero(sink_of(sink)->builder, offset, len), err);
}

static int sink_discard(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	return written(builder_discard(sink_of(sink)->builder, offset, len), err);
}

static int sink_image_end(struct copy_sink *sink, struct ploop_error *err)
{
	(void)sink;
	(void)err;
	return 0;
}

/* With feedback the receiver's disk is asked; without, there is no way to know. */
static int sink_sync(struct copy_sink *sink, struct ploop_error *err)
{
	struct old_sink *old = sink_of(sink);
	static const char question[SYNC_SIZE];

	if (old->feedback < 0)
		return 0;
	if (put(old, question, sizeof(question), 0) < 0)
		return written(-EPIPE, err);
	return copy_await(old->feedback, err);
}

static int sink_finish(struct copy_sink *sink, struct ploop_error *err)
{
	return written(builder_finish(sink_of(sink)->builder), err);
}

static void sink_free(struct copy_sink *sink)
{
	builder_free(sink_of(sink)->builder);
	free(sink_of(sink));
}

static const struct copy_sink_ops old_ops = {
	.image = sink_image,
	.data = sink_data,
	.zero = sink_zero,
	.discard = sink_discard,
	.image_end = sink_image_end,
	.sync = sink_sync,
	.finish = sink_finish,
	.free = sink_free,
};

int copy_to_old(int fd, int feedback, struct copy_sink **ret, struct ploop_error *err)
{
	struct old_sink *old = calloc(1, sizeof(*old));

	if (!old)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	old->sink.ops = &old_ops;
	old->out = (struct builder_out){ .write = old_write, .zero = old_zero, .finish = old_finish };
	old->fd = fd;
	old->feedback = feedback;
	*ret = &old->sink;
	return 0;
}
