/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk-abi.h - the kernel's ublk interface, as far as it is used here. linux/ublk_cmd.h of most distributions is older than the
 * kernels that they run on, so nothing is taken from it.
 */
#ifndef EXPORT_UBLK_ABI_H
#define EXPORT_UBLK_ABI_H

#include <linux/ioctl.h>
#include <stdint.h>

#define UBLK_CONTROL "/dev/ublk-control"
#define UBLK_ANY_ID UINT32_C(0xffffffff)
#define UBLK_ANY_QUEUE UINT16_C(0xffff)
#define UBLK_DEPTH_MAX 4096u

/* A command to the control device; the second half of a 128-byte ring entry. */
struct ublk_command {
	uint32_t id;    /* of the device */
	uint16_t queue; /* UBLK_ANY_QUEUE */
	uint16_t length;
	uint64_t address; /* of a buffer of `length` bytes */
	uint64_t data;
	uint64_t more;
};

/* Their bare numbers are the opcodes of kernels before 6.4; newer ones want them as those of ioctls. */
enum ublk_command_number {
	UBLK_GET_DEV_INFO = 0x02,
	UBLK_ADD_DEV = 0x04,
	UBLK_DEL_DEV = 0x05,
	UBLK_START_DEV = 0x06,
	UBLK_STOP_DEV = 0x07,
	UBLK_SET_PARAMS = 0x08,
	UBLK_GET_PARAMS = 0x09,
	UBLK_START_USER_RECOVERY = 0x10,
	UBLK_END_USER_RECOVERY = 0x11,
	UBLK_GET_FEATURES = 0x13,
	UBLK_DEL_DEV_ASYNC = 0x14,
	UBLK_UPDATE_SIZE = 0x15,
	UBLK_TRY_STOP_DEV = 0x17,
};

/* A command to the character device of a queue; fits into an ordinary ring entry. */
struct ublk_io_command {
	uint16_t queue;
	uint16_t tag;
	int32_t result;
	uint64_t address; /* where the kernel copies the data of the request to or from */
};

#define UBLK_FETCH 0x20
#define UBLK_COMMIT_AND_FETCH 0x21

#define UBLK_ENCODED_READ(number, type) _IOR('u', (number), type)
#define UBLK_ENCODED(number, type) _IOWR('u', (number), type)

/* Features and flags of a device: what a kernel does not know it clears. */
#define UBLK_F_USER_RECOVERY (UINT64_C(1) << 3)
#define UBLK_F_USER_RECOVERY_REISSUE (UINT64_C(1) << 4)
#define UBLK_F_CMD_IOCTL_ENCODE (UINT64_C(1) << 6)
#define UBLK_F_UPDATE_SIZE (UINT64_C(1) << 10)
#define UBLK_F_SAFE_STOP (UINT64_C(1) << 17)

enum ublk_state { UBLK_DEAD, UBLK_LIVE, UBLK_QUIESCED };

struct ublk_info {
	uint16_t queues;
	uint16_t depth;
	uint16_t state;
	uint16_t pad0;
	uint32_t buffer; /* largest transfer in bytes */
	uint32_t id;
	int32_t pid;
	uint32_t pad1;
	uint64_t flags;
	uint64_t server; /* the server's own */
	uint32_t uid, gid;
	uint64_t reserved[2];
};
_Static_assert(sizeof(struct ublk_info) == 64, "the kernel's layout");

#define UBLK_PARAMS_BASIC 1u
#define UBLK_PARAMS_DISCARD 2u
#define UBLK_READ_ONLY 1u
#define UBLK_VOLATILE_CACHE 4u
#define UBLK_FUA 8u

struct ublk_params {
	uint32_t length; /* of all of this */
	uint32_t types;
	struct {
		uint32_t attributes;
		uint8_t logical_shift, physical_shift, optimal_shift, minimal_shift;
		uint32_t max_sectors, chunk_sectors;
		uint64_t sectors;
		uint64_t boundary_mask;
	} basic;
	struct {
		uint32_t alignment, granularity;
		uint32_t max_sectors, max_zeroes_sectors;
		uint16_t max_segments, reserved;
	} discard;
} __attribute__((aligned(8)));

/* What a request asks for; the kernel writes it to shared memory before the command of its tag completes. */
struct ublk_request {
	uint32_t operation; /* bits 0-7: enum ublk_operation; above: flags */
	uint32_t sectors;
	uint64_t start; /* sector */
	uint64_t address;
};

enum ublk_operation {
	UBLK_READ = 0,
	UBLK_WRITE = 1,
	UBLK_FLUSH = 2,
	UBLK_DISCARD = 3,
	UBLK_WRITE_ZEROES = 5,
};

#define UBLK_REQUEST_FUA (UINT32_C(1) << 13)

#endif
