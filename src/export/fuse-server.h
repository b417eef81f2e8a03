/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-server.h - answers what the kernel asks about the one file of fuse-mount.h. The file is the device: read, write, fsync
 * and fallocate become device requests, many at a time.
 */
#ifndef EXPORT_FUSE_SERVER_H
#define EXPORT_FUSE_SERVER_H

#include <stdbool.h>
#include <stddef.h>

struct device;
struct fuse_server;
struct loop;
struct ploop_error;

/*
 * The kernel's first message: it says so only once what it can do, and a server that takes a channel over must know it.
 */
#define FUSE_HELLO 256
struct fuse_hello {
	char bytes[FUSE_HELLO];
	size_t length;
};

struct fuse_server_config {
	struct loop *loop;
	struct device *device;
	const char *name; /* of the file; lives as long as the server */
	int channel;    /* of fuse_mount_channel(); the server's from now on, also when this fails */
	unsigned depth; /* device requests in flight */
	bool read_only;
	const struct fuse_hello *hello; /* of a channel that another server had; NULL: a new one. Copied */
	/* The last user of the file has closed it, or the file system is gone. Called at most once. */
	void (*released)(void *data);
	void *data;
};

/* Starts serving. On a channel that another server had: first of all what it did not answer. */
int fuse_server_new(const struct fuse_server_config *config, struct fuse_server **ret, struct ploop_error *err);

/* False: the kernel has not said it yet. */
bool fuse_server_hello(const struct fuse_server *server, struct fuse_hello *ret);

/* Whether this kernel gives requests again that a dead server has taken (Linux 6.9). */
bool fuse_hello_resends(const struct fuse_hello *hello);

/*
 * Takes no more requests, waits for those that are under way and frees the server; then calls closed(data). Whoever still
 * uses the file gets errors.
 */
void fuse_server_close(struct fuse_server *server, void (*closed)(void *data), void *data);

#endif
