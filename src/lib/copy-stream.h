/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-stream.h - a copy stream on a descriptor: records written, and records read and checked. See format/stream.h. */
#ifndef LIB_COPY_STREAM_H
#define LIB_COPY_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "format/stream.h"

struct ploop_error;
struct stream_out;
struct stream_in;

/* `fd` stays the caller's. `compress`: DATA records by zstd where that makes them smaller. */
int stream_out_new(int fd, bool compress, struct stream_out **ret, struct ploop_error *err);
void stream_out_free(struct stream_out *out); /* NULL is accepted */

/* Writes one record. `len` bytes of payload, which for DATA are the bytes of the disk, and then `length` too. */
int stream_out_write(struct stream_out *out, enum stream_type type, uint64_t offset, uint64_t length, const void *payload,
		     size_t len, struct ploop_error *err);

/* The last record, with the digest. */
int stream_out_end(struct stream_out *out, struct ploop_error *err);

uint64_t stream_out_bytes(const struct stream_out *out); /* written so far, headers included */

/* Where a stream comes from: fills `buffer`; fewer bytes only at the end. Or a negative errno. */
typedef ssize_t (*stream_read_fn)(void *data, void *buffer, size_t len);

int stream_in_new(stream_read_fn read, void *data, struct stream_in **ret, struct ploop_error *err);
void stream_in_free(struct stream_in *in); /* NULL is accepted */

/* A stream_read_fn; `data` points to the descriptor. */
ssize_t stream_read_fd(void *data, void *buffer, size_t len);

/* The first four bytes, which tell a stream of ours from the original's; they are read again afterwards. */
int stream_in_peek(struct stream_in *in, uint32_t *ret, struct ploop_error *err);

/*
 * Reads the next record. *ret_payload is what it carries, checked and uncompressed, good until the next call; of *ret_len bytes.
 * -EPROTO (status 13) for what is damaged or out of order, -ENODATA (status 6) when the stream ends before its END. After END
 * was read, its count and digest are known to be right.
 */
int stream_in_read(struct stream_in *in, struct stream_record *ret, const uint8_t **ret_payload, size_t *ret_len,
		   struct ploop_error *err);

/* Bytes that are no records of ours, for the original's stream. */
int stream_in_raw(struct stream_in *in, void *buffer, size_t len, struct ploop_error *err);

/* The digest by which the two sides compare a cluster. */
void stream_digest(const void *data, size_t len, uint8_t ret[STREAM_DIGEST]);

#endif
