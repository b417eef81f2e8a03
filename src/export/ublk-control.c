/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk-control.c - see ublk-control.h. Each command has a ring of its own for the moment that it takes: there are five in the life
 * of a device, and a ring belongs to the thread that made it.
 */
#include "export/ublk-control.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

#define SIGNATURE UINT64_C(0x706c6f6f00000000)
#define SIGNATURE_MASK UINT64_C(0xffffffff00000000)
#define GONE_TRIES 40
#define PAUSE_NS 50000000L

static int command_ring(struct io_uring *ring)
{
	int r = io_uring_queue_init(4, ring, IORING_SETUP_SQE128);

	return r;
}

int ublk_usable(struct ploop_error *err)
{
	_close_ int control = open(UBLK_CONTROL, O_RDWR | O_CLOEXEC);
	struct io_uring ring;
	int r;

	if (control < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE,
				 "cannot open " UBLK_CONTROL " (load the kernel module 'ublk_drv', be root)");
	r = command_ring(&ring);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DEVICE,
				 "no io_uring with large entries (Linux 5.19, sysctl kernel.io_uring_disabled)");
	io_uring_queue_exit(&ring);
	return 0;
}

static uint32_t encode(enum ublk_command_number number)
{
	switch (number) {
	case UBLK_GET_DEV_INFO:
	case UBLK_GET_PARAMS:
	case UBLK_GET_FEATURES:
	case UBLK_DEL_DEV_ASYNC:
		return UBLK_ENCODED_READ(number, struct ublk_command);
	default:
		return UBLK_ENCODED(number, struct ublk_command);
	}
}

static int run(int control, struct io_uring *ring, uint32_t opcode, const struct ublk_command *command)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe;
	int r;

	if (!sqe)
		return -EAGAIN;
	memset(sqe, 0, 2 * sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = control;
	sqe->off = opcode;
	memcpy((char *)sqe + 48, command, sizeof(*command));
	r = io_uring_submit(ring);
	if (r < 0)
		return r;
	do
		r = io_uring_wait_cqe(ring, &cqe);
	while (r == -EINTR);
	if (r < 0)
		return r;
	r = cqe->res;
	io_uring_cqe_seen(ring, cqe);
	return r;
}

static int run_once(uint32_t opcode, const struct ublk_command *command)
{
	_close_ int control = open(UBLK_CONTROL, O_RDWR | O_CLOEXEC);
	struct io_uring ring;
	int r;

	if (control < 0)
		return -errno;
	r = command_ring(&ring);
	if (r < 0)
		return r;
	r = run(control, &ring, opcode, command);
	io_uring_queue_exit(&ring);
	return r;
}

uint64_t ublk_features(void)
{
	uint64_t features = 0;
	struct ublk_command command = { .id = UBLK_ANY_ID, .queue = UBLK_ANY_QUEUE, .length = sizeof(features),
					.address = (uintptr_t)&features };

	return run_once(encode(UBLK_GET_FEATURES), &command) < 0 ? 0 : features;
}

bool ublk_encoded(void)
{
	return ublk_features() & UBLK_F_CMD_IOCTL_ENCODE;
}

int ublk_command(enum ublk_command_number number, struct ublk_command *command)
{
	command->queue = UBLK_ANY_QUEUE;
	return run_once(ublk_encoded() ? encode(number) : number, command);
}

int ublk_simple(enum ublk_command_number number, uint32_t id, uint64_t data)
{
	struct ublk_command command = { .id = id, .data = data };

	return ublk_command(number, &command);
}

int ublk_add(struct ublk_info *info)
{
	struct ublk_command command = { .id = info->id, .length = sizeof(*info), .address = (uintptr_t)info };

	return ublk_command(UBLK_ADD_DEV, &command);
}

int ublk_get_info(uint32_t id, struct ublk_info *ret)
{
	struct ublk_command command = { .id = id, .length = sizeof(*ret), .address = (uintptr_t)ret };

	*ret = (struct ublk_info){ .id = id };
	return ublk_command(UBLK_GET_DEV_INFO, &command);
}

int ublk_set_params(uint32_t id, const struct ublk_params *params)
{
	struct ublk_command command = { .id = id, .length = sizeof(*params), .address = (uintptr_t)params };

	return ublk_command(UBLK_SET_PARAMS, &command);
}

/* The kernel takes parameters only while there is no disk, and a disk is there until its last user has closed it. */
static bool has_users(uint32_t id)
{
	struct ublk_params params = { .length = sizeof(params) };
	struct ublk_command command = { .id = id, .length = sizeof(params), .address = (uintptr_t)&params };

	return !ublk_command(UBLK_GET_PARAMS, &command) && ublk_set_params(id, &params) == -EACCES;
}

int ublk_delete(uint32_t id)
{
	const struct timespec pause = { .tv_nsec = PAUSE_NS };

	for (unsigned i = 0; has_users(id); i++) {
		if (i == GONE_TRIES) {
			int r = ublk_encoded() ? ublk_simple(UBLK_DEL_DEV_ASYNC, id, 0) : -EBUSY;

			return r == -EOPNOTSUPP ? -EBUSY : r;
		}
		nanosleep(&pause, NULL);
	}
	return ublk_simple(UBLK_DEL_DEV, id, 0);
}

uint64_t ublk_signature(void)
{
	return SIGNATURE | (uint32_t)getpid();
}

static bool is_left(const struct ublk_info *info)
{
	return (info->server & SIGNATURE_MASK) == SIGNATURE && info->state == UBLK_DEAD &&
	       kill((pid_t)(uint32_t)info->server, 0) < 0 && errno == ESRCH && !has_users(info->id);
}

void ublk_sweep(void)
{
	DIR *dir = opendir("/sys/class/ublk-char");
	struct dirent *entry;
	struct ublk_info info;
	unsigned id;

	while (dir && (entry = readdir(dir)))
		if (sscanf(entry->d_name, "ublkc%u", &id) == 1 && !ublk_get_info(id, &info) && is_left(&info))
			(void)ublk_simple(UBLK_DEL_DEV, id, 0);
	if (dir)
		closedir(dir);
}

bool ublk_id_of(const char *node, uint32_t *ret)
{
	char end;

	return sscanf(node, "/dev/ublkb%u%c", ret, &end) == 1;
}
