/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stream.c - see stream.h and ploop-stream.5. The header of a record:
 *
 *	 0 u32 magic      4 u16 type       6 u16 flags
 *	 8 u64 sequence  16 u64 offset    24 u64 length
 *	32 u32 payload   36 u32 CRC32C of the payload
 *	40 u32 0         44 u32 CRC32C of bytes 0..43
 */
#include "format/stream.h"

#include <errno.h>
#include <string.h>

#include "base/checked.h"
#include "base/crc32c.h"
#include "base/error.h"
#include "base/le.h"
#include "format/format.h"

#define OFF_CRC 44

#define refuse(err, ...) error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: " __VA_ARGS__)

static const char hello_text[16] = "ploop-stream";

/* What the fields of each type may be. */
static const struct {
	bool range;             /* offset and length are bytes of a disk, in whole sectors */
	uint32_t least, most;   /* payload */
} rules[] = {
	[STREAM_HELLO] = { false, STREAM_HELLO_SIZE, STREAM_HELLO_SIZE },
	[STREAM_IMAGE] = { false, STREAM_IMAGE_SIZE, STREAM_IMAGE_SIZE + STREAM_NAME_MAX },
	[STREAM_DATA] = { true, 1, STREAM_PAYLOAD_MAX },
	[STREAM_ZERO] = { true, 0, 0 },
	[STREAM_DISCARD] = { true, 0, 0 },
	[STREAM_IMAGE_END] = { false, 0, 0 },
	[STREAM_DESCRIPTOR] = { false, 1, STREAM_DATA_MAX },
	[STREAM_SYNC] = { false, 0, 0 },
	[STREAM_END] = { false, STREAM_DIGEST, STREAM_DIGEST },
	[STREAM_HAVE] = { false, STREAM_HAVE_SIZE, STREAM_DATA_MAX },
	[STREAM_HAVE_END] = { false, 0, 0 },
	[STREAM_BACKUP] = { false, STREAM_BACKUP_SIZE, STREAM_BACKUP_SIZE },
};

static void le16_put(uint8_t *p, unsigned v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static unsigned le16_get(const uint8_t *p)
{
	return p[0] | (unsigned)p[1] << 8;
}

void stream_put(const struct stream_record *record, uint8_t head[STREAM_HEAD])
{
	le32_put(head, STREAM_MAGIC);
	le16_put(head + 4, record->type);
	le16_put(head + 6, record->flags);
	le64_put(head + 8, record->sequence);
	le64_put(head + 16, record->offset);
	le64_put(head + 24, record->length);
	le32_put(head + 32, record->payload);
	le32_put(head + 36, record->payload_crc);
	le32_put(head + 40, 0);
	le32_put(head + OFF_CRC, crc32c(0, head, OFF_CRC));
}

static int judge_range(const struct stream_record *r, struct ploop_error *err)
{
	uint64_t end;

	if (!checked_add(r->offset, r->length, &end) || end > INT64_MAX)
		return refuse(err, "a range beyond all disks");
	if (!rules[r->type].range)
		return 0;
	if (!r->length || r->offset % SECTOR || r->length % SECTOR)
		return refuse(err, "a range that is not made of sectors");
	if (r->type == STREAM_DATA && r->length > STREAM_DATA_MAX)
		return refuse(err, "%llu bytes in one record", (unsigned long long)r->length);
	return 0;
}

static int judge_payload(const struct stream_record *r, struct ploop_error *err)
{
	bool plain = r->type == STREAM_DESCRIPTOR || (r->type == STREAM_DATA && !(r->flags & STREAM_ZSTD));

	if (r->payload < rules[r->type].least || r->payload > rules[r->type].most || (plain && r->payload != r->length))
		return refuse(err, "a payload of %u bytes in a record of type %u", r->payload, r->type);
	if (r->type == STREAM_HAVE && r->payload % STREAM_HAVE_SIZE)
		return refuse(err, "half an entry");
	return 0;
}

int stream_get(const uint8_t head[STREAM_HEAD], struct stream_record *ret, struct ploop_error *err)
{
	struct stream_record record = {
		.type = le16_get(head + 4),
		.flags = le16_get(head + 6),
		.sequence = le64_get(head + 8),
		.offset = le64_get(head + 16),
		.length = le64_get(head + 24),
		.payload = le32_get(head + 32),
		.payload_crc = le32_get(head + 36),
	};
	int r;

	if (le32_get(head) != STREAM_MAGIC || le32_get(head + OFF_CRC) != crc32c(0, head, OFF_CRC))
		return refuse(err, "no record where one must be");
	if (record.type < STREAM_HELLO || record.type > STREAM_BACKUP || le32_get(head + 40))
		return refuse(err, "a record of unknown type %u", record.type);
	if (record.flags & ~(record.type == STREAM_DATA ? STREAM_ZSTD : 0u))
		return refuse(err, "unknown flags 0x%x", record.flags);
	r = judge_range(&record, err);
	if (!r)
		r = judge_payload(&record, err);
	if (!r)
		*ret = record;
	return r;
}

void stream_put_hello(const struct stream_hello *hello, uint8_t payload[STREAM_HELLO_SIZE])
{
	memcpy(payload, hello_text, sizeof(hello_text));
	le32_put(payload + 16, STREAM_VERSION);
	le32_put(payload + 20, hello->flags);
	le64_put(payload + 24, hello->expected);
}

int stream_get_hello(const uint8_t *payload, size_t len, struct stream_hello *ret, struct ploop_error *err)
{
	uint32_t flags;

	if (len != STREAM_HELLO_SIZE || memcmp(payload, hello_text, sizeof(hello_text)))
		return refuse(err, "it does not begin as a stream does");
	if (le32_get(payload + 16) != STREAM_VERSION)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "the stream is of version %u; this ploop knows %u",
				 le32_get(payload + 16), STREAM_VERSION);
	flags = le32_get(payload + 20);
	if (flags & ~(STREAM_RESUME | STREAM_STACK) && flags != STREAM_IS_BACKUP)
		return refuse(err, "unknown flags 0x%x", flags);
	ret->flags = flags;
	ret->expected = le64_get(payload + 24);
	return 0;
}

void stream_put_backup(const struct stream_backup *backup, uint8_t payload[STREAM_BACKUP_SIZE])
{
	memcpy(payload, backup->id, sizeof(backup->id));
	memcpy(payload + sizeof(backup->id), backup->parent, sizeof(backup->parent));
}

void stream_get_backup(const uint8_t payload[STREAM_BACKUP_SIZE], struct stream_backup *ret)
{
	memcpy(ret->id, payload, sizeof(ret->id));
	memcpy(ret->parent, payload + sizeof(ret->id), sizeof(ret->parent));
}

size_t stream_put_image(const struct stream_image *image, uint8_t payload[STREAM_IMAGE_SIZE + STREAM_NAME_MAX])
{
	size_t len = strlen(image->name);

	le32_put(payload, image->raw ? 0 : 1);
	le32_put(payload + 4, image->version);
	le32_put(payload + 8, image->cluster);
	le32_put(payload + 12, image->flags);
	memcpy(payload + STREAM_IMAGE_SIZE, image->name, len);
	return STREAM_IMAGE_SIZE + len;
}

/* The name becomes that of a file: nothing that leads elsewhere, and nothing that a terminal would obey. */
static bool name_is_plain(const char *name, size_t len)
{
	if (!strcmp(name, ".") || !strcmp(name, ".."))
		return false;
	for (size_t i = 0; i < len; i++)
		if ((unsigned char)name[i] < ' ' || name[i] == '/' || name[i] == 0x7f)
			return false;
	return true;
}

int stream_get_image(const uint8_t *payload, size_t len, struct stream_image *ret, struct ploop_error *err)
{
	uint32_t kind, flags;

	if (len < STREAM_IMAGE_SIZE || len > STREAM_IMAGE_SIZE + STREAM_NAME_MAX)
		return refuse(err, "an image without a description");
	kind = le32_get(payload);
	flags = le32_get(payload + 12);
	if (kind > 1 || flags & ~STREAM_BASE)
		return refuse(err, "an image of an unknown kind");
	*ret = (struct stream_image){
		.raw = !kind,
		.version = le32_get(payload + 4),
		.cluster = le32_get(payload + 8),
		.flags = flags,
	};
	len -= STREAM_IMAGE_SIZE;
	memcpy(ret->name, payload + STREAM_IMAGE_SIZE, len);
	if (!name_is_plain(ret->name, len))
		return refuse(err, "a name that is no file's");
	return 0;
}

void stream_put_have(const struct stream_have *have, uint8_t payload[STREAM_HAVE_SIZE])
{
	le64_put(payload, have->offset);
	memcpy(payload + 8, have->digest, STREAM_DIGEST);
}

void stream_get_have(const uint8_t payload[STREAM_HAVE_SIZE], struct stream_have *ret)
{
	ret->offset = le64_get(payload);
	memcpy(ret->digest, payload + 8, STREAM_DIGEST);
}

void stream_put_old(const struct stream_old *record, uint8_t head[STREAM_OLD_HEAD])
{
	le32_put(head, STREAM_OLD_MARKER);
	le32_put(head + 4, record->size);
	le64_put(head + 8, record->pos);
}

int stream_get_old(const uint8_t head[STREAM_OLD_HEAD], struct stream_old *ret, struct ploop_error *err)
{
	uint64_t end;

	ret->size = le32_get(head + 4);
	ret->pos = le64_get(head + 8);
	if (le32_get(head) != STREAM_OLD_MARKER || ret->size > STREAM_OLD_SIZE_MAX ||
	    !checked_add(ret->pos, ret->size, &end) || end > INT64_MAX)
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted");
	return 0;
}
