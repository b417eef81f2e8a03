/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockdev.h - a block device as the kernel shows it: its numbers, where it is mounted, and who holds it. */
#ifndef LIB_BLOCKDEV_H
#define LIB_BLOCKDEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define BLOCKDEV_NUMBERS 64

struct blockdev {
	char name[32];                   /* "loop3" */
	dev_t numbers[BLOCKDEV_NUMBERS]; /* of the device and its partitions; none when it is gone */
	size_t n;
};

/* `diskseq` (0: not known) tells whether the node is still in the use that we mean; if not, it has no numbers. */
void blockdev_look(const char *node, uint64_t diskseq, struct blockdev *ret);
bool blockdev_has(const struct blockdev *device, dev_t number);

/* One line of a mountinfo file. */
struct mount_entry {
	uint64_t id; /* what the kernel calls the mount */
	dev_t number;
	bool whole; /* the root of the file system is there, not a folder of it */
	char *target;
	char *type; /* of the file system */
	char *source;
};

struct mount_table {
	struct mount_entry *entries;
	size_t n;
};

/* Reads /proc/PID/mountinfo, "self" for our own. */
int mounts_read(const char *pid, struct mount_table *ret);
void mounts_clear(struct mount_table *table);

/* Is this entry a mount of the device or of one of its partitions? */
bool mounts_match(const struct mount_entry *entry, const struct blockdev *device);

/*
 * Who holds a device, or the file system mounted at `target`, in words that follow "in use: ". False when nobody was found. Looks at
 * mounts in all namespaces, holders in sysfs, swap, and open files of processes.
 */
bool holders_of_device(const struct blockdev *device, char *text, size_t size);
bool holders_of_mount(const char *target, dev_t number, char *text, size_t size);

#endif
