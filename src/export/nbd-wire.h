/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-wire.h - the transmission phase of NBD, as bytes. All numbers are big-endian.
 *
 *	request  magic 4, flags 2, command 2, handle 8, offset 8, length 4; the data of a write follows
 *	reply    magic 4, error 4, handle 8; the data of a read follows when there was no error
 *
 * A handle is the client's own name of a request: it comes back as it is.
 */
#ifndef EXPORT_NBD_WIRE_H
#define EXPORT_NBD_WIRE_H

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_WIRE_REQUEST 28u /* bytes */
#define NBD_WIRE_REPLY 16u
#define NBD_WIRE_REQUEST_MAGIC 0x25609513u
#define NBD_WIRE_REPLY_MAGIC 0x67446698u
/* What a client may put into one read or write without having asked for more. */
#define NBD_WIRE_TRANSFER_MAX (32u << 20)

enum nbd_wire_command {
	NBD_WIRE_READ = 0,
	NBD_WIRE_WRITE = 1,
	NBD_WIRE_DISCONNECT = 2,
	NBD_WIRE_FLUSH = 3,
	NBD_WIRE_TRIM = 4,
	NBD_WIRE_WRITE_ZEROES = 6,
};

enum nbd_wire_command_flag {
	NBD_WIRE_FUA = 1 << 0,
	NBD_WIRE_NO_HOLE = 1 << 1,
};

/* What a server says it can do. */
enum nbd_wire_flag {
	NBD_WIRE_HAS_FLAGS = 1 << 0,
	NBD_WIRE_READ_ONLY = 1 << 1,
	NBD_WIRE_SEND_FLUSH = 1 << 2,
	NBD_WIRE_SEND_FUA = 1 << 3,
	NBD_WIRE_SEND_TRIM = 1 << 5,
	NBD_WIRE_SEND_WRITE_ZEROES = 1 << 6,
	NBD_WIRE_MULTI_CONN = 1 << 8, /* a flush covers what was written by all connections */
};

struct nbd_wire_request {
	uint16_t flags, command;
	uint64_t handle, offset;
	uint32_t length;
};

static inline uint64_t nbd_wire_get(const unsigned char *bytes, size_t n)
{
	uint64_t v = 0;

	for (size_t i = 0; i < n; i++)
		v = v << 8 | bytes[i];
	return v;
}

static inline void nbd_wire_put(unsigned char *bytes, size_t n, uint64_t v)
{
	while (n--) {
		bytes[n] = (unsigned char)v;
		v >>= 8;
	}
}

/* False: this is no request. */
static inline bool nbd_wire_parse(const unsigned char bytes[NBD_WIRE_REQUEST], struct nbd_wire_request *ret)
{
	if (nbd_wire_get(bytes, 4) != NBD_WIRE_REQUEST_MAGIC)
		return false;
	*ret = (struct nbd_wire_request){
		.flags = (uint16_t)nbd_wire_get(bytes + 4, 2),
		.command = (uint16_t)nbd_wire_get(bytes + 6, 2),
		.handle = nbd_wire_get(bytes + 8, 8),
		.offset = nbd_wire_get(bytes + 16, 8),
		.length = (uint32_t)nbd_wire_get(bytes + 24, 4),
	};
	return true;
}

static inline void nbd_wire_reply(unsigned char bytes[NBD_WIRE_REPLY], uint32_t error, uint64_t handle)
{
	nbd_wire_put(bytes, 4, NBD_WIRE_REPLY_MAGIC);
	nbd_wire_put(bytes + 4, 4, error);
	nbd_wire_put(bytes + 8, 8, handle);
}

/* The protocol has error numbers of its own, few of them. */
static inline uint32_t nbd_wire_error(int code)
{
	switch (-code) {
	case 0:
		return 0;
	case EPERM:
	case EROFS:
		return 1;
	case ENOMEM:
		return 12;
	case EINVAL:
		return 22;
	case ENOSPC:
	case EDQUOT:
		return 28;
	case EOVERFLOW:
		return 75;
	case EOPNOTSUPP:
		return 95;
	default:
		return 5;
	}
}

#endif
