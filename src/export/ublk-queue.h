/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ublk-queue.h - the one queue of a ublk device: requests in and results out, on the ring of the engine's own loop.
 *
 * A tag is one request at a time, with its own part of the buffer, where the kernel copies the data of a write to before it gives
 * the tag to us, and that of a read from when we give it back:
 *
 *	fetch -> (kernel) -> serve -> device -> commit and fetch -> (kernel) -> ...
 */
#ifndef EXPORT_UBLK_QUEUE_H
#define EXPORT_UBLK_QUEUE_H

#include <stdbool.h>
#include <stdint.h>

struct device;
struct loop;
struct ublk_queue;

struct ublk_queue_config {
	struct loop *loop; /* one with a ring */
	struct device *device;
	int channel;     /* "/dev/ublkcN"; the queue's from now on, also when this fails */
	unsigned depth;  /* tags */
	unsigned buffer; /* bytes of each: the largest transfer */
	bool encoded;    /* opcodes */
	bool read_only;
	/* The kernel has taken all tags back, and the queue serves nobody any more. Called on the loop. */
	void (*ended)(void *data);
	void *data;
};

int ublk_queue_new(const struct ublk_queue_config *config, struct ublk_queue **ret);

/* Gives all tags to the kernel. On the loop: from now on the queue belongs to its thread. */
void ublk_queue_start(struct ublk_queue *queue);

/* After ended(), or without ublk_queue_start(). NULL is accepted. */
void ublk_queue_free(struct ublk_queue *queue);

/*
 * Takes no more requests and calls left() when those under way are answered. Its memory stays until the process ends: the kernel
 * copies requests there until then, which come again to the next engine.
 */
void ublk_queue_leave(struct ublk_queue *queue, void (*left)(void *data), void *data);

#endif
