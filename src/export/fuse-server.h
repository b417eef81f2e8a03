/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-server.h - answers what the kernel asks about the one file of fuse-mount.h. The file is the device: read, write, fsync
 * and fallocate become device requests, many at a time.
 */
#ifndef EXPORT_FUSE_SERVER_H
#define EXPORT_FUSE_SERVER_H

#include <stdbool.h>

struct device;
struct fuse_server;
struct loop;
struct ploop_error;

struct fuse_server_config {
	struct loop *loop;
	struct device *device;
	const char *name; /* of the file; lives as long as the server */
	int channel;    /* of fuse_mount_channel(); the server's from now on, also when this fails */
	unsigned depth; /* device requests in flight */
	bool read_only;
	/* The last user of the file has closed it, or the file system is gone. Called at most once. */
	void (*released)(void *data);
	void *data;
};

/* Starts serving. */
int fuse_server_new(const struct fuse_server_config *config, struct fuse_server **ret, struct ploop_error *err);

/*
 * Takes no more requests, waits for those that are under way and frees the server; then calls closed(data). Whoever still
 * uses the file gets errors.
 */
void fuse_server_close(struct fuse_server *server, void (*closed)(void *data), void *data);

#endif
