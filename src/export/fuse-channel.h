/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-channel.h - requests in and replies out of /dev/fuse, many at a time; knows nothing of what they say.
 *
 * A request is received into memory of a pool so that the data of a write begins on a page: it goes to the disk from there,
 * without a copy. The same memory takes the data of a read. A request keeps it until its reply is written; when all are in
 * use, nothing more is received and the kernel queues. Requests are taken last in, first out, so that a device that is never
 * asked for much touches little memory; and what was touched is given back when nothing comes for a while.
 *
 * A process that is killed while the kernel copies a message to it loses that message, with an error for who asked, if a page that
 * it goes to is not there: the kernel does not wait for one on behalf of the dead. So all pages are there before.
 *
 *	free -> receiving -> handle() -> fuse_channel_reply() -> reply written -> free
 *	                            `-> fuse_channel_put() -> free
 */
#ifndef EXPORT_FUSE_CHANNEL_H
#define EXPORT_FUSE_CHANNEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "device/device.h"
#include "io/loop.h"

#define FUSE_TRANSFER_MAX (1024u * 1024)
#define FUSE_DEPTH_MAX 1024u
#define FUSE_REPLY_HEAD 64

struct fuse_channel;

struct fuse_request {
	struct device_request device;
	struct fuse_channel *channel;
	struct list node;    /* in fuse_channel.free */
	void *handle;        /* libfuse's */
	char *memory;        /* FUSE_TRANSFER_MAX bytes on a page */
	bool there;          /* all pages of it */
	struct loop_completion received, replied;
	struct iovec reply[2];
	char head[FUSE_REPLY_HEAD]; /* what reply[0] points to */
};

struct fuse_channel {
	/* The caller's, set before fuse_channel_init(). */
	struct loop *loop;
	int fd; /* not blocking */
	unsigned depth;
	void (*handle)(struct fuse_channel *channel, struct fuse_request *request, const void *message, size_t len);
	void (*ended)(struct fuse_channel *channel);  /* the connection is gone; at most once */
	void (*closed)(struct fuse_channel *channel); /* after fuse_channel_close(): nothing is under way any more */

	/* The channel's own. */
	char *memory;
	struct fuse_request *requests;
	struct list free;
	unsigned busy;  /* requests not in `free` */
	bool starved;   /* receiving waits for a free request */
	bool over;      /* ended, or closing */
	bool closing;
	struct loop_task task;
	struct loop_watch watch;
	bool bulk;        /* the last message was large */
	unsigned reading; /* messages that threads of the ring are receiving */
	bool empty;       /* one of them found nothing */
	struct loop_timer idle_timer;
	uint64_t received, seen; /* messages; and as many as there were when the timer expired last */
};

/* -ENOMEM. What it made is given back by fuse_channel_fini(), also after a failure. The descriptor stays the caller's. */
int fuse_channel_init(struct fuse_channel *channel);
void fuse_channel_fini(struct fuse_channel *channel);

/* Begins to receive. */
int fuse_channel_start(struct fuse_channel *channel);

/* Receives no more; closed() is called on the loop when all requests are back. */
void fuse_channel_close(struct fuse_channel *channel);

/* The request needs its memory no longer. */
void fuse_channel_put(struct fuse_request *request);

/*
 * Writes a reply: a head, which is copied, and data, which is either copied too or lies in the request's own memory. The
 * request is put when it is written. False when the caller has to write it, as the loop has no ring or no room on it.
 */
bool fuse_channel_reply(struct fuse_request *request, const struct iovec *iov, int count);

#endif
