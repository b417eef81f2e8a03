/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-to-stream.c - calls of a sink become records; what the receiver has and says comes back over the feedback. */
#include "lib/copy-to-stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/list.h"
#include "lib/copy-old.h"
#include "lib/copy-stream.h"

struct stream_sink {
	struct copy_sink sink;
	struct stream_out *out;
	struct stream_in *back; /* records that come back; NULL: none did yet */
	int feedback;
	uint64_t images;
};

static struct stream_sink *sink_of(struct copy_sink *sink)
{
	return container_of(sink, struct stream_sink, sink);
}

int copy_await(int feedback, struct ploop_error *err)
{
	char answer[9] = "";
	ssize_t n;

	if (feedback < 0)
		return 0;
	n = fd_read(feedback, answer, 8);
	if (n < 0)
		return error_sys(err, (int)n, PLOOP_EXIT_READ, "Can't read feedback");
	if (n != 8)
		return error_set(err, -EPIPE, PLOOP_EXIT_PROTOCOL, "Can't read feedback: the other side is gone");
	if (!strcmp(answer, "FAILURE\n"))
		return error_set(err, -EIO, PLOOP_EXIT_FSYNC, "Remote side reported sync failure");
	if (strcmp(answer, "SUCCESS\n"))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Got back feedback: %.8s", answer);
	return 0;
}

static int sink_descriptor(struct copy_sink *sink, const char *text, size_t len, struct ploop_error *err)
{
	int r = 0;

	for (size_t done = 0; r == 0 && done < len;) {
		size_t n = min_u64(len - done, STREAM_DATA_MAX);

		r = stream_out_write(sink_of(sink)->out, STREAM_DESCRIPTOR, done, n, text + done, n, err);
		done += n;
	}
	return r;
}

static int sink_image(struct copy_sink *sink, const struct stream_image *image, uint64_t size, struct ploop_error *err)
{
	uint8_t payload[STREAM_IMAGE_SIZE + STREAM_NAME_MAX];
	size_t len = stream_put_image(image, payload);

	return stream_out_write(sink_of(sink)->out, STREAM_IMAGE, sink_of(sink)->images, size, payload, len, err);
}

static int sink_data(struct copy_sink *sink, const void *data, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	const char *p = data;
	int r = 0;

	while (r == 0 && len) {
		uint64_t n = min_u64(len, STREAM_DATA_MAX);

		r = stream_out_write(sink_of(sink)->out, STREAM_DATA, offset, n, p, n, err);
		p += n;
		offset += n;
		len -= n;
	}
	return r;
}

static int sink_zero(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	return stream_out_write(sink_of(sink)->out, STREAM_ZERO, offset, len, NULL, 0, err);
}

static int sink_discard(struct copy_sink *sink, uint64_t len, uint64_t offset, struct ploop_error *err)
{
	return stream_out_write(sink_of(sink)->out, STREAM_DISCARD, offset, len, NULL, 0, err);
}

static int sink_image_end(struct copy_sink *sink, struct ploop_error *err)
{
	return stream_out_write(sink_of(sink)->out, STREAM_IMAGE_END, sink_of(sink)->images++, 0, NULL, 0, err);
}

/* Without feedback nobody would answer, and the question would only cost time. */
static int sink_sync(struct copy_sink *sink, struct ploop_error *err)
{
	struct stream_sink *out = sink_of(sink);
	int r = out->feedback < 0 ? 0 : stream_out_write(out->out, STREAM_SYNC, 0, 0, NULL, 0, err);

	return r == 0 ? copy_await(out->feedback, err) : r;
}

static int sink_finish(struct copy_sink *sink, struct ploop_error *err)
{
	int r = stream_out_end(sink_of(sink)->out, err);

	return r == 0 ? copy_await(sink_of(sink)->feedback, err) : r;
}

static int take_having(const uint8_t *payload, size_t len, int (*each)(void *data, const struct stream_have *have),
		       void *data)
{
	int r = 0;

	for (size_t at = 0; r == 0 && at < len; at += STREAM_HAVE_SIZE) {
		struct stream_have have;

		stream_get_have(payload + at, &have);
		r = each(data, &have);
	}
	return r;
}

static int sink_have(struct copy_sink *sink, int (*each)(void *data, const struct stream_have *have), void *data,
		     struct ploop_error *err)
{
	struct stream_sink *out = sink_of(sink);
	struct stream_record record;
	const uint8_t *payload;
	size_t len;
	int r = 0;

	if (!out->back)
		r = stream_in_new(stream_read_fd, &out->feedback, &out->back, err);
	while (r == 0) {
		r = stream_in_read(out->back, &record, &payload, &len, err);
		if (r < 0 || record.type == STREAM_HAVE_END)
			return r;
		if (record.type != STREAM_HAVE)
			return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "the receiver says what it cannot say");
		r = take_having(payload, len, each, data);
		if (r < 0)
			return error_sys(err, r, PLOOP_EXIT_PROTOCOL, "the receiver says what it cannot have");
	}
	return r;
}

static void sink_free(struct copy_sink *sink)
{
	stream_out_free(sink_of(sink)->out);
	stream_in_free(sink_of(sink)->back);
	free(sink_of(sink));
}

#define COMMON_OPS                                                                                                  \
	.descriptor = sink_descriptor, .image = sink_image, .data = sink_data, .zero = sink_zero,                   \
	.discard = sink_discard, .image_end = sink_image_end, .sync = sink_sync, .finish = sink_finish, .free = sink_free

static const struct copy_sink_ops stream_ops = { COMMON_OPS };
static const struct copy_sink_ops resume_ops = { COMMON_OPS, .have = sink_have };

int copy_to_stream(const struct copy_to_stream *config, struct copy_sink **ret, struct ploop_error *err)
{
	struct stream_sink *sink = calloc(1, sizeof(*sink));
	uint8_t payload[STREAM_HELLO_SIZE];
	int r;

	if (!sink)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	sink->sink.ops = config->hello.flags & STREAM_RESUME ? &resume_ops : &stream_ops;
	sink->feedback = config->feedback;
	r = stream_out_new(config->fd, config->compress, &sink->out, err);
	if (r == 0) {
		stream_put_hello(&config->hello, payload);
		r = stream_out_write(sink->out, STREAM_HELLO, 0, 0, payload, sizeof(payload), err);
	}
	if (r == 0 && config->backup) {
		stream_put_backup(config->backup, payload);
		r = stream_out_write(sink->out, STREAM_BACKUP, 0, 0, payload, STREAM_BACKUP_SIZE, err);
	}
	if (r < 0)
		sink_free(&sink->sink);
	else
		*ret = &sink->sink;
	return r;
}
