/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * loopdev.h - the kernel's loop devices. All of this blocks: what reads the backing file may end up in our own server, so
 * call it from a thread or process that does not serve.
 */
#ifndef EXPORT_LOOPDEV_H
#define EXPORT_LOOPDEV_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct ploop_error;

#define LOOPDEV_NODE 32

struct loopdev_params {
	int file;         /* the backing file; the kernel keeps it open */
	const char *name; /* what `losetup` shows */
	bool read_only;
	uint32_t block; /* logical block size in bytes */
};

/* What a loop device is attached to; all zero means "whatever it is". */
struct loopdev_identity {
	dev_t device;
	ino_t inode;
};

/* Can loop devices be made here? */
int loopdev_usable(struct ploop_error *err);

/* Attaches the file to a free loop device with direct I/O and partition scan; fills `node` with "/dev/loopN". */
int loopdev_attach(const struct loopdev_params *params, char node[LOOPDEV_NODE], struct ploop_error *err);

/* Is the device attached at all? */
bool loopdev_attached(const char *node);

/*
 * Detaches, and returns 0 when the device is really gone, or is not (or no longer) attached to `identity`. -EBUSY when
 * somebody has it or one of its partitions open: then nothing has changed. With `force` it goes when the last one closes it.
 */
int loopdev_detach(const char *node, const struct loopdev_identity *identity, bool force);

/* Takes the backing file's new size. */
int loopdev_resize(const char *node);

#endif
