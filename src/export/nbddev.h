/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbddev.h - the kernel's nbd devices as /dev and /sys show them. What opens a device may read or write it, and so end up in our own
 * server: call nbddev_detach() and nbddev_tune() from a thread that does not serve.
 */
#ifndef EXPORT_NBDDEV_H
#define EXPORT_NBDDEV_H

#include <stdbool.h>
#include <stddef.h>

struct ploop_error;

#define NBDDEV_NODE 32
#define NBDDEV_IDENTIFIER 96

/* "/dev/nbdN"; makes the file where nobody else does. */
int nbddev_node(unsigned index, char node[NBDDEV_NODE]);
/* False when this is no such name. */
bool nbddev_index(const char *node, unsigned *ret);

/* Is the device in use at all? */
bool nbddev_attached(const char *node);

/* Is it in the use that is called so? Before Linux 5.14 no use has a name: then any. */
bool nbddev_is(const char *node, const char *identifier);

/* What it is called; -ENOENT when it is in no use that has a name. */
int nbddev_identifier(const char *node, char ret[NBDDEV_IDENTIFIER]);

/* What the kernel's defaults are bad at. Nothing of it must work. */
void nbddev_tune(const char *node);

/*
 * Ends the device, and returns 0 when it is free for others, or is not (or no longer) in the use that `identifier` says. -EBUSY when
 * somebody has it or one of its partitions open: then nothing has changed. With `force` it ends at once, and who has it open gets
 * errors.
 */
int nbddev_detach(const char *node, const char *identifier, bool force);

#endif
