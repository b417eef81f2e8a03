/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk-control.h - commands to the kernel's ublk driver. All of them block, and some wait for answers of whoever serves the
 * device: call them from a thread that does not serve.
 */
#ifndef EXPORT_UBLK_CONTROL_H
#define EXPORT_UBLK_CONTROL_H

#include <stdbool.h>
#include <stdint.h>

#include "export/ublk-abi.h"

struct ploop_error;

/* Can this host make devices? */
int ublk_usable(struct ploop_error *err);

/*
 * Opcodes are probed: what a kernel does not know as that of an ioctl it knows as the bare number, or not at all. Returns the
 * kernel's result, a negative errno.
 */
int ublk_command(enum ublk_command_number number, struct ublk_command *command);

/* The features of the kernel; 0 when it cannot tell. */
uint64_t ublk_features(void);

/* Whether commands, and so those of requests, are encoded as ioctls on this kernel. */
bool ublk_encoded(void);

int ublk_add(struct ublk_info *info);
int ublk_get_info(uint32_t id, struct ublk_info *ret);
int ublk_set_params(uint32_t id, const struct ublk_params *params);
int ublk_simple(enum ublk_command_number number, uint32_t id, uint64_t data);

/*
 * Removes a stopped device. Somebody may have its node open still: an old kernel would wait for him, and let nobody make or remove
 * another device meanwhile. Then it stays, a number without a disk, until the next device is made: see ublk_sweep().
 */
int ublk_delete(uint32_t id);

/* Removes what servers of ours left that are gone: devices that are stopped, or were never started. */
void ublk_sweep(void);

/* What tells our devices, in ublk_info.server: this, and the pid of their server. */
uint64_t ublk_signature(void);

/* The number in "/dev/ublkb7". */
bool ublk_id_of(const char *node, uint32_t *ret);

#endif
