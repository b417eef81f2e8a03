/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* inside.h - a device and the file system on it, at hand for work inside: ballooning, trimming. */
#ifndef LIB_INSIDE_H
#define LIB_INSIDE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

#include "lib/device-find.h"

struct inside {
	struct device_entry entry;
	char path[PATH_MAX]; /* the block device that holds the file system */
	uint64_t start, end; /* bytes of the device between which that lies */
	int root;            /* of the file system, open for reading */
	bool read_only;      /* so is the file system */
	int connection;      /* to the ploopd that we started for the time; -EBADF: it runs without us */
};

#define INSIDE_NONE                                  \
	{                                            \
		.root = -EBADF, .connection = -EBADF \
	}

/*
 * Finds a device that runs; `which` may name it and a mount point of it. -ENODEV, "The image is not mounted", for a descriptor or
 * image that has none. The caller clears with inside_close().
 */
int inside_find(const struct ploop_which *which, struct inside *ret, struct ploop_error *err);

enum inside_how {
	INSIDE_MOUNTED,   /* the file system must be mounted, in whatever namespace */
	INSIDE_AUTOMOUNT, /* what is not mounted is mounted for the time, where nobody sees it */
	INSIDE_MAYBE,     /* one that is not mounted is left alone: root is -EBADF then */
};

/* The same, and the file system on it. */
int inside_open(const struct ploop_which *which, enum inside_how how, struct inside *ret, struct ploop_error *err);

/* What is being done to the device. */
int maintenance_ask(const struct inside *inside, enum ploop_maintenance *ret, struct ploop_error *err);

/* Ends what was begun for the time. `inside` may be INSIDE_NONE. */
int inside_close(struct inside *inside, struct ploop_error *err);

#endif
