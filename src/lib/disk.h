/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* disk.h - a disk opened in this process: a loop, a stack and a device of its own. */
#ifndef LIB_DISK_H
#define LIB_DISK_H

#include <stdbool.h>
#include <stdint.h>

#include <ploop/ploop.h>

struct device;
struct loop;
struct stack;

struct ploop_disk {
	struct loop *loop;
	struct stack *stack;
	struct device *device;
};

struct disk_config {
	const struct ploop_files *files;
	bool write;
	const char *loop; /* NULL: chosen */
	unsigned depth;
};

int disk_open(const struct disk_config *config, struct ploop_disk **ret, struct ploop_error *err);

/* Makes a range of a disk that is open for writing read as zeros; 512-byte sectors. */
int disk_erase(struct ploop_disk *disk, uint64_t offset, uint64_t length, struct ploop_error *err);

/* Makes a disk of one image, open for writing, as large as that. */
int disk_resize(struct ploop_disk *disk, uint64_t size, struct ploop_error *err);

/* Closes the device, which writes to the files when it was opened so; tells how that went. Frees `disk` in any case. */
int disk_close(struct ploop_disk *disk, struct ploop_error *err);

#endif
