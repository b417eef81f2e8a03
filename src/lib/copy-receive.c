/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * copy-receive.c - a stream becomes calls of a sink. What may follow what:
 *
 *	HELLO, [DESCRIPTOR.. when it is a stack,] then for each image: IMAGE, (DATA | ZERO | DISCARD | SYNC).., IMAGE_END; END
 */
#include "lib/copy-receive.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "image/descriptor.h"

enum stage {
	STAGE_START,
	STAGE_DESCRIPTOR, /* of a stack, before the first image */
	STAGE_BETWEEN,    /* an image or the end may come */
	STAGE_IMAGE,
	STAGE_OVER,
};

struct taking {
	struct copy_receive *receive;
	enum stage stage;
	struct stream_hello hello;
	char *text; /* of the descriptor, so far */
	size_t length;
	uint64_t images, done;
	struct stream_out *back; /* HAVE records go there */
};

static int protocol(struct ploop_error *err, const char *why)
{
	return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: %s", why);
}

int copy_feedback(int fd, bool success, struct ploop_error *err)
{
	int r = fd < 0 ? 0 : fd_write(fd, success ? "SUCCESS\n" : "FAILURE\n", 8);

	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write feedback") : 0;
}

static int take_hello(struct taking *taking, const uint8_t *payload, size_t len, struct ploop_error *err)
{
	int r = stream_get_hello(payload, len, &taking->hello, err);

	if (r < 0)
		return r;
	if (taking->hello.flags & STREAM_IS_BACKUP)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "this is a backup: `ploop restore` takes it");
	if (taking->hello.flags & STREAM_RESUME && taking->receive->feedback < 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "the sender wants to resume, which needs a way back to it: give -f");
	taking->stage = taking->hello.flags & STREAM_STACK ? STAGE_DESCRIPTOR : STAGE_BETWEEN;
	return 0;
}

static int take_descriptor(struct taking *taking, const struct stream_record *record, const uint8_t *payload,
			   struct ploop_error *err)
{
	char *text;

	if (record->offset != taking->length || record->payload > DESCRIPTOR_MAX_TEXT - taking->length)
		return protocol(err, "a descriptor out of order");
	text = realloc(taking->text, taking->length + record->payload);
	if (!text)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "descriptor");
	memcpy(text + taking->length, payload, record->payload);
	taking->text = text;
	taking->length += record->payload;
	return 0;
}

struct having {
	struct stream_out *out;
	struct ploop_error *err;
	uint8_t payload[STREAM_HAVE_SIZE * 1024];
	size_t length;
};

static int flush_having(struct having *having)
{
	int r = 0;

	if (having->length)
		r = stream_out_write(having->out, STREAM_HAVE, 0, 0, having->payload, having->length, having->err);
	having->length = 0;
	return r;
}

static int add_having(void *data, const struct stream_have *have)
{
	struct having *having = data;

	stream_put_have(have, having->payload + having->length);
	having->length += STREAM_HAVE_SIZE;
	return having->length == sizeof(having->payload) ? flush_having(having) : 0;
}

/* Tells the sender what of this image is here already. */
static int answer_have(struct taking *taking, struct ploop_error *err)
{
	struct copy_sink *sink = taking->receive->sink;
	_free_ struct having *having = calloc(1, sizeof(*having));
	int r = 0;

	if (!having)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "copy");
	if (!taking->back)
		r = stream_out_new(taking->receive->feedback, false, &taking->back, err);
	having->out = taking->back;
	having->err = err;
	if (r == 0)
		r = sink->ops->have(sink, add_having, having, err);
	if (r == 0)
		r = flush_having(having);
	return r == 0 ? stream_out_write(taking->back, STREAM_HAVE_END, 0, 0, NULL, 0, err) : r;
}

static int take_image(struct taking *taking, const struct stream_record *record, const uint8_t *payload, size_t len,
		      struct ploop_error *err)
{
	struct copy_sink *sink = taking->receive->sink;
	struct stream_image image;
	int r = 0;

	if (taking->stage == STAGE_DESCRIPTOR) {
		if (!taking->length)
			return protocol(err, "a stack without a descriptor");
		r = sink->ops->descriptor(sink, taking->text, taking->length, err);
	}
	if (r == 0 && record->offset != taking->images)
		r = protocol(err, "an image out of order");
	if (r == 0)
		r = stream_get_image(payload, len, &image, err);
	if (r == 0)
		r = sink->ops->image(sink, &image, record->length, err);
	if (r == 0 && taking->hello.flags & STREAM_RESUME)
		r = answer_have(taking, err);
	taking->stage = STAGE_IMAGE;
	return r;
}

static int take_image_end(struct taking *taking, const struct stream_record *record, struct ploop_error *err)
{
	struct copy_sink *sink = taking->receive->sink;

	if (record->offset != taking->images)
		return protocol(err, "the end of another image");
	taking->images++;
	taking->stage = STAGE_BETWEEN;
	return sink->ops->image_end(sink, err);
}

static int take_sync(struct taking *taking, struct ploop_error *err)
{
	struct copy_sink *sink = taking->receive->sink;
	int r = sink->ops->sync(sink, err);

	if (r == 0)
		return copy_feedback(taking->receive->feedback, true, err);
	copy_feedback(taking->receive->feedback, false, NULL);
	return r;
}

static bool is_allowed(enum stage stage, enum stream_type type)
{
	switch (type) {
	case STREAM_HELLO:
		return stage == STAGE_START;
	case STREAM_DESCRIPTOR:
		return stage == STAGE_DESCRIPTOR;
	case STREAM_IMAGE:
		return stage == STAGE_DESCRIPTOR || stage == STAGE_BETWEEN;
	case STREAM_DATA:
	case STREAM_ZERO:
	case STREAM_DISCARD:
	case STREAM_SYNC:
	case STREAM_IMAGE_END:
		return stage == STAGE_IMAGE;
	case STREAM_END:
		return stage == STAGE_BETWEEN;
	default:
		return false;
	}
}

static int take(struct taking *taking, const struct stream_record *record, const uint8_t *payload, size_t len,
		struct ploop_error *err)
{
	struct copy_sink *sink = taking->receive->sink;

	if (!is_allowed(taking->stage, record->type))
		return protocol(err, "a record where it makes no sense");
	switch (record->type) {
	case STREAM_HELLO:
		return take_hello(taking, payload, len, err);
	case STREAM_DESCRIPTOR:
		return take_descriptor(taking, record, payload, err);
	case STREAM_IMAGE:
		return take_image(taking, record, payload, len, err);
	case STREAM_DATA:
		taking->done += len;
		return sink->ops->data(sink, payload, len, record->offset, err);
	case STREAM_ZERO:
		return sink->ops->zero(sink, record->length, record->offset, err);
	case STREAM_DISCARD:
		return sink->ops->discard(sink, record->length, record->offset, err);
	case STREAM_IMAGE_END:
		return take_image_end(taking, record, err);
	case STREAM_SYNC:
		return take_sync(taking, err);
	default:
		taking->stage = STAGE_OVER;
		return sink->ops->finish(sink, err);
	}
}

static int take_all(struct taking *taking, struct ploop_error *err)
{
	struct copy_receive *receive = taking->receive;
	struct stream_record record;
	const uint8_t *payload;
	size_t len;
	int r = 0;

	while (r == 0 && taking->stage != STAGE_OVER) {
		r = stream_in_read(receive->in, &record, &payload, &len, err);
		if (r == 0)
			r = take(taking, &record, payload, len, err);
		if (r == 0 && receive->progress &&
		    receive->progress(receive->progress_data, "copy", taking->done,
				      max_u64(taking->done, taking->hello.expected)))
			r = error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "stopped");
	}
	return r;
}

int copy_receive(struct copy_receive *receive, struct ploop_error *err)
{
	struct taking taking = { .receive = receive };
	int r = take_all(&taking, err);

	if (r == 0)
		r = copy_feedback(receive->feedback, true, err);
	else
		copy_feedback(receive->feedback, false, NULL);
	free(taking.text);
	stream_out_free(taking.back);
	return r;
}
