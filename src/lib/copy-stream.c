/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-stream.c - see copy-stream.h. The digest is XXH3 of 128 bits (libxxhash): as fast as memory, and it sees every damage. */
#include "lib/copy-stream.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>
#include <zstd.h>

#include "base/cleanup.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/fd.h"
#include "base/le.h"

#define ZSTD_LEVEL 1

#define PIPE_BYTES (1 << 20) /* what anybody may have */

struct stream_out {
	int fd;
	uint64_t sequence, data_bytes, bytes;
	XXH3_state_t *digest;
	ZSTD_CCtx *zstd; /* NULL: nothing is compressed */
	uint8_t *packed;
};

struct stream_in {
	stream_read_fn read;
	void *data;
	uint8_t peeked[4];
	size_t npeeked;
	uint64_t sequence, data_bytes;
	XXH3_state_t *digest;
	ZSTD_DCtx *zstd;
	uint8_t *payload, *unpacked;
};

static void digest_end(const XXH3_state_t *state, uint8_t ret[STREAM_DIGEST])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits_digest(state));
	memcpy(ret, canonical.digest, STREAM_DIGEST);
}

void stream_digest(const void *data, size_t len, uint8_t ret[STREAM_DIGEST])
{
	XXH128_canonical_t canonical;

	XXH128_canonicalFromHash(&canonical, XXH3_128bits(data, len));
	memcpy(ret, canonical.digest, STREAM_DIGEST);
}

int stream_out_new(int fd, bool compress, struct stream_out **ret, struct ploop_error *err)
{
	struct stream_out *out = calloc(1, sizeof(*out));

	if (out) {
		out->fd = fd;
		out->digest = XXH3_createState();
		out->packed = compress ? malloc(STREAM_PAYLOAD_MAX) : NULL;
		out->zstd = compress ? ZSTD_createCCtx() : NULL;
	}
	if (!out || !out->digest || (compress && (!out->packed || !out->zstd))) {
		stream_out_free(out);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "stream");
	}
	XXH3_128bits_reset(out->digest);
	/* A pipe that holds some records lets both halves work at the same time. What is none, or may not, stays as it is. */
	(void)fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
	*ret = out;
	return 0;
}

void stream_out_free(struct stream_out *out)
{
	if (!out)
		return;
	XXH3_freeState(out->digest);
	ZSTD_freeCCtx(out->zstd);
	free(out->packed);
	free(out);
}

uint64_t stream_out_bytes(const struct stream_out *out)
{
	return out->bytes;
}

static int put_bytes(struct stream_out *out, const void *data, size_t len, struct ploop_error *err)
{
	int r = fd_write(out->fd, data, len);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write the stream");
	XXH3_128bits_update(out->digest, data, len);
	out->bytes += len;
	return 0;
}

/* The payload gets smaller, if it does. */
static size_t pack(struct stream_out *out, const void **payload, size_t len)
{
	size_t n = ZSTD_compressCCtx(out->zstd, out->packed, STREAM_PAYLOAD_MAX, *payload, len, ZSTD_LEVEL);

	if (ZSTD_isError(n) || n >= len)
		return 0;
	*payload = out->packed;
	return n;
}

int stream_out_write(struct stream_out *out, enum stream_type type, uint64_t offset, uint64_t length, const void *payload,
		     size_t len, struct ploop_error *err)
{
	struct stream_record record = { .type = type, .sequence = out->sequence, .offset = offset, .length = length };
	size_t packed = type == STREAM_DATA && out->zstd ? pack(out, &payload, len) : 0;
	uint8_t head[STREAM_HEAD];
	int r;

	record.flags = packed ? STREAM_ZSTD : 0;
	record.payload = (uint32_t)(packed ? packed : len);
	record.payload_crc = crc32c(0, payload, record.payload);
	stream_put(&record, head);
	r = put_bytes(out, head, sizeof(head), err);
	if (r == 0 && record.payload)
		r = put_bytes(out, payload, record.payload, err);
	out->sequence++;
	if (type == STREAM_DATA)
		out->data_bytes += length;
	return r;
}

int stream_out_end(struct stream_out *out, struct ploop_error *err)
{
	uint8_t digest[STREAM_DIGEST];

	digest_end(out->digest, digest);
	return stream_out_write(out, STREAM_END, out->sequence, out->data_bytes, digest, sizeof(digest), err);
}

int stream_in_new(stream_read_fn read, void *data, struct stream_in **ret, struct ploop_error *err)
{
	struct stream_in *in = calloc(1, sizeof(*in));

	if (in) {
		in->read = read;
		in->data = data;
		in->digest = XXH3_createState();
		in->zstd = ZSTD_createDCtx();
		in->payload = malloc(STREAM_PAYLOAD_MAX);
		in->unpacked = malloc(STREAM_DATA_MAX);
	}
	if (!in || !in->digest || !in->zstd || !in->payload || !in->unpacked) {
		stream_in_free(in);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "stream");
	}
	XXH3_128bits_reset(in->digest);
	*ret = in;
	return 0;
}

void stream_in_free(struct stream_in *in)
{
	if (!in)
		return;
	XXH3_freeState(in->digest);
	ZSTD_freeDCtx(in->zstd);
	free(in->payload);
	free(in->unpacked);
	free(in);
}

ssize_t stream_read_fd(void *data, void *buffer, size_t len)
{
	return fd_read(*(int *)data, buffer, len);
}

int stream_in_raw(struct stream_in *in, void *buffer, size_t len, struct ploop_error *err)
{
	size_t old = len < in->npeeked ? len : in->npeeked;
	ssize_t n = 0;

	memcpy(buffer, in->peeked, old);
	memmove(in->peeked, in->peeked + old, in->npeeked - old);
	in->npeeked -= old;
	if (len > old)
		n = in->read(in->data, (char *)buffer + old, len - old);
	if (n < 0)
		return error_sys(err, (int)n, PLOOP_EXIT_READ, "Can't read the stream");
	if ((size_t)n != len - old)
		return error_set(err, -ENODATA, PLOOP_EXIT_READ, "the stream ends before its end");
	return 0;
}

int stream_in_peek(struct stream_in *in, uint32_t *ret, struct ploop_error *err)
{
	int r = stream_in_raw(in, in->peeked, sizeof(in->peeked), err);

	if (r < 0)
		return r;
	in->npeeked = sizeof(in->peeked);
	*ret = le32_get(in->peeked);
	return 0;
}

static int refuse(struct ploop_error *err, const char *why)
{
	return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: %s", why);
}

/* All before END was as the sender says. */
static int check_end(struct stream_in *in, const struct stream_record *record, const uint8_t *digest,
		     struct ploop_error *err)
{
	uint8_t ours[STREAM_DIGEST];

	digest_end(in->digest, ours);
	if (record->offset != record->sequence || record->length != in->data_bytes || memcmp(ours, digest, sizeof(ours)))
		return refuse(err, "what came is not what was sent");
	return 0;
}

static int unpack(struct stream_in *in, const struct stream_record *record, struct ploop_error *err)
{
	size_t n = ZSTD_decompressDCtx(in->zstd, in->unpacked, STREAM_DATA_MAX, in->payload, record->payload);

	if (ZSTD_isError(n) || n != record->length)
		return refuse(err, "a record cannot be uncompressed");
	return 0;
}

static int read_payload(struct stream_in *in, const uint8_t head[STREAM_HEAD], const struct stream_record *record,
			struct ploop_error *err)
{
	int r = stream_in_raw(in, in->payload, record->payload, err);

	if (r < 0)
		return r;
	if (crc32c(0, in->payload, record->payload) != record->payload_crc)
		return refuse(err, "the checksum of a record is wrong");
	if (record->sequence != in->sequence)
		return refuse(err, "a record is not where it belongs");
	if (record->type == STREAM_END) {
		r = check_end(in, record, in->payload, err);
	} else {
		XXH3_128bits_update(in->digest, head, STREAM_HEAD);
		XXH3_128bits_update(in->digest, in->payload, record->payload);
	}
	if (r == 0 && record->flags & STREAM_ZSTD)
		r = unpack(in, record, err);
	return r;
}

int stream_in_read(struct stream_in *in, struct stream_record *ret, const uint8_t **ret_payload, size_t *ret_len,
		   struct ploop_error *err)
{
	uint8_t head[STREAM_HEAD];
	int r = stream_in_raw(in, head, sizeof(head), err);

	if (r == 0)
		r = stream_get(head, ret, err);
	if (r == 0)
		r = read_payload(in, head, ret, err);
	if (r < 0)
		return r;
	in->sequence++;
	if (ret->type == STREAM_DATA)
		in->data_bytes += ret->length;
	*ret_payload = ret->flags & STREAM_ZSTD ? in->unpacked : in->payload;
	*ret_len = ret->flags & STREAM_ZSTD ? (size_t)ret->length : ret->payload;
	return 0;
}
