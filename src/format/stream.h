/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stream.h - the records of a copy stream, as ploop-stream.5 describes them: pure functions on bytes, no I/O.
 *
 * A stream is a row of records, each a header of STREAM_HEAD bytes and a payload. All numbers are little-endian. Headers are
 * numbered, and carry checksums of themselves and of their payload; the last record tells how much there was, and a digest of
 * all of it. So a stream that was cut, changed, reordered or joined from two is seen as what it is.
 */
#ifndef FORMAT_STREAM_H
#define FORMAT_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ploop_error;

#define STREAM_MAGIC 0x52534c50u /* "PLSR" */
#define STREAM_VERSION 1u
#define STREAM_HEAD 48u
#define STREAM_DATA_MAX (1u << 20)                   /* bytes of the disk in one record */
#define STREAM_PAYLOAD_MAX (STREAM_DATA_MAX + 65536) /* what cannot be compressed grows a little */
#define STREAM_NAME_MAX 255u
#define STREAM_DIGEST 16u

enum stream_type {
	STREAM_HELLO = 1,      /* first; payload: struct stream_hello */
	STREAM_IMAGE = 2,      /* an image begins: offset its number, length bytes of the disk; payload: struct stream_image */
	STREAM_DATA = 3,       /* `length` bytes at `offset`: the payload */
	STREAM_ZERO = 4,       /* these bytes are zeros, whatever lies below */
	STREAM_DISCARD = 5,    /* these bytes are not in this image: what lies below is seen */
	STREAM_IMAGE_END = 6,  /* offset: its number */
	STREAM_DESCRIPTOR = 7, /* a piece of the descriptor's text; offset and length are those of the text */
	STREAM_SYNC = 8,       /* make all that came so far durable, and answer */
	STREAM_END = 9,        /* last; offset: number of records before, length: bytes in DATA records; payload: digest */
	STREAM_HAVE = 10,      /* the other way: clusters that are there already; payload: struct stream_have, several */
	STREAM_HAVE_END = 11,
	STREAM_BACKUP = 12,    /* right after HELLO; payload: struct stream_backup */
};

enum stream_flags {
	STREAM_ZSTD = 1, /* the payload of a DATA record is compressed */
};

struct stream_record {
	enum stream_type type;
	unsigned flags;
	uint64_t sequence;
	uint64_t offset, length;
	uint32_t payload;     /* bytes */
	uint32_t payload_crc; /* CRC32C */
};

void stream_put(const struct stream_record *record, uint8_t head[STREAM_HEAD]);

/*
 * Reads a header. -EPROTO when it is none, damaged, of an unknown type, or says what no record of its type can say: what is
 * returned as payload can be allocated, and offset + length does not overflow.
 */
int stream_get(const uint8_t head[STREAM_HEAD], struct stream_record *ret, struct ploop_error *err);

#define STREAM_HELLO_SIZE 32u
enum stream_hello_flags {
	STREAM_RESUME = 1, /* before anything else the receiver answers with HAVE records */
	STREAM_IS_BACKUP = 4, /* a BACKUP record follows, and one image of all levels */
	STREAM_STACK = 2,  /* a descriptor and all images that it names follow; without it one image */
};
struct stream_hello {
	unsigned flags;
	uint64_t expected; /* bytes of data that are about to come, roughly; for progress */
};
void stream_put_hello(const struct stream_hello *hello, uint8_t payload[STREAM_HELLO_SIZE]);
int stream_get_hello(const uint8_t *payload, size_t len, struct stream_hello *ret, struct ploop_error *err);

#define STREAM_BACKUP_SIZE 32u
struct stream_backup {
	uint8_t id[16];
	uint8_t parent[16]; /* zeros: a full backup; else what follows is what has changed since that one */
};
void stream_put_backup(const struct stream_backup *backup, uint8_t payload[STREAM_BACKUP_SIZE]);
void stream_get_backup(const uint8_t payload[STREAM_BACKUP_SIZE], struct stream_backup *ret);

#define STREAM_IMAGE_SIZE 16u /* and then the name, without a NUL */
enum stream_image_flags {
	STREAM_BASE = 1, /* nothing lies below it: zeros need not be stored */
};
struct stream_image {
	bool raw;
	uint32_t version; /* of ploop1; 0 for raw */
	uint32_t cluster; /* bytes */
	unsigned flags;
	char name[STREAM_NAME_MAX + 1]; /* of the file, without folder; "" when there is but one */
};
/* Returns the length. */
size_t stream_put_image(const struct stream_image *image, uint8_t payload[STREAM_IMAGE_SIZE + STREAM_NAME_MAX]);
int stream_get_image(const uint8_t *payload, size_t len, struct stream_image *ret, struct ploop_error *err);

/* One cluster that the receiver has from a copy that broke off: where, and the digest of its bytes. */
#define STREAM_HAVE_SIZE 24u
struct stream_have {
	uint64_t offset;
	uint8_t digest[STREAM_DIGEST];
};
void stream_put_have(const struct stream_have *have, uint8_t payload[STREAM_HAVE_SIZE]);
void stream_get_have(const uint8_t payload[STREAM_HAVE_SIZE], struct stream_have *ret);

/*
 * The stream of the original: no magic, no end of checks. Its numbers are the machine's own, little-endian in practice.
 * A record is a header and `size` bytes for byte `pos` of the image file; size 0 ends the stream, size 4 at 0 asks for a sync.
 */
#define STREAM_OLD_MARKER 0x4cc0ac3du
#define STREAM_OLD_HEAD 16u
#define STREAM_OLD_SIZE_MAX (64u << 20)
struct stream_old {
	uint32_t size;
	uint64_t pos;
};
void stream_put_old(const struct stream_old *record, uint8_t head[STREAM_OLD_HEAD]);
int stream_get_old(const uint8_t head[STREAM_OLD_HEAD], struct stream_old *ret, struct ploop_error *err);

#endif
