/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse.c - the front end for every stock kernel: a FUSE file with a loop device on top.
 *
 * What blocks (opening the file, attaching, detaching: each waits for answers of our own server) is a job of one thread, done
 * apart (apart.h); its end comes back to the loop.
 *
 *	start: channel, server, file system -> job: open, attach -> started()
 *	stop:  job: detach, let go of the file system -> server closed -> stopped()
 *
 *	leave: server closed -> left(); adopt: the same channel and file system, a new server -> started()
 *
 * What is kept of it is the channel, the file system, and as text: which loop device, what it is attached to, and the kernel's
 * first message (fuse-server.h). Where the kernel does not give lost requests again, an engine that dies takes the channel along:
 * errors are more honest than requests that nobody ever answers.
 *
 * The loop device holds the file open. When it lets go of it without our doing, somebody has detached it by hand: gone().
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "export/apart.h"
#include "export/fuse-mount.h"
#include "export/fuse-server.h"
#include "export/loopdev.h"
#include "export/modules.h"
#include "io/loop.h"
#include "io/pool.h"

#define DEPTH_DEFAULT 128

struct fuse_export {
	struct export export;
	struct export_config config;
	struct fuse_server *server;
	struct io_pool *pool;
	struct loop_task adopted;
	int channel; /* the server's */
	int mount;
	char node[LOOPDEV_NODE];
	struct loopdev_identity identity;
	bool ready; /* started and not stopping */

	/* The job under way: one at a time. */
	struct io_pool_job job;
	int result;
	bool force;
	struct ploop_error *err;
	void (*answer)(void *data, int result);
	void (*left)(void *data);
	void *data;
};

static struct fuse_export *fuse_export(struct export *export)
{
	return container_of(export, struct fuse_export, export);
}

static struct fuse_export *fuse_job(struct io_pool_job *job)
{
	return container_of(job, struct fuse_export, job);
}

static void fuse_run(struct fuse_export *self, void (*work)(struct io_pool_job *job),
		     void (*finished)(struct io_pool_job *job))
{
	self->job.work = work;
	self->job.finished = finished;
	io_pool_submit(self->pool, &self->job);
}

/* Ending: the server is closed, or was never made. */

static void fuse_free(void *data)
{
	struct fuse_export *self = data;

	io_pool_free(self->pool);
	if (self->mount >= 0)
		close(self->mount);
	free(self);
}

static void fuse_closed(void *data)
{
	struct fuse_export *self = data;
	void (*answer)(void *data, int result) = self->answer;
	void *answer_data = self->data;
	int result = self->result;

	fuse_free(self);
	answer(answer_data, result);
}

static void fuse_released(void *data)
{
	struct fuse_export *self = data;

	if (self->ready && self->config.gone)
		self->config.gone(self->config.data);
}

/* Starting */

static int fuse_open(struct fuse_export *self)
{
	struct stat st;
	int fd = openat(self->mount, self->config.name, (self->config.read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st)) {
		close(fd);
		return -EIO;
	}
	self->identity = (struct loopdev_identity){ .device = st.st_dev, .inode = st.st_ino };
	return fd;
}

static void attach(void *data)
{
	struct fuse_export *self = data;
	_close_ int file = fuse_open(self);
	struct loopdev_params params = {
		.file = file,
		.name = self->config.name,
		.read_only = self->config.read_only,
		.block = self->config.logical_block ? self->config.logical_block : 512,
	};

	if (file < 0)
		self->result = error_sys(self->err, file, PLOOP_EXIT_DEVICE, "%s: cannot open the FUSE file",
					 self->config.name);
	else
		self->result = loopdev_attach(&params, self->node, self->err);
}

static void fuse_attach(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);
	int r = apart_run(attach, self, self->mount);

	if (r < 0)
		self->result = error_sys(self->err, r, PLOOP_EXIT_MALLOC, "%s: cannot start a thread", self->config.name);
}

static void fuse_attached(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);

	if (self->result) {
		fuse_server_close(self->server, fuse_closed, self);
		return;
	}
	self->ready = true;
	self->answer(self->data, 0);
}

static int fuse_usable(struct ploop_error *err)
{
	int r = fuse_mount_usable(err);

	return r ? r : loopdev_usable(err);
}

/* On self->channel, which is the server's then, also when this fails. */
static int fuse_serve(struct fuse_export *self, const struct fuse_hello *hello, struct ploop_error *err)
{
	const struct export_config *config = &self->config;
	struct fuse_server_config server = {
		.loop = config->loop,
		.device = config->device,
		.name = config->name,
		.channel = self->channel,
		.depth = config->depth ? config->depth : DEPTH_DEFAULT,
		.read_only = config->read_only,
		.hello = hello,
		.released = fuse_released,
		.data = self,
	};

	return fuse_server_new(&server, &self->server, err);
}

static int fuse_prepare(struct fuse_export *self, struct ploop_error *err)
{
	int r = io_pool_new(self->config.loop, 1, &self->pool, err);

	if (r)
		return r;
	self->channel = fuse_mount_channel(err);
	if (self->channel < 0)
		return self->channel;
	self->mount = fuse_mount_new(self->channel, self->config.name, err);
	if (self->mount < 0) {
		close(self->channel);
		return self->mount;
	}
	return fuse_serve(self, NULL, err);
}

static struct fuse_export *fuse_new(const struct export_config *config, void (*started)(void *data, int result),
				    void *data, struct ploop_error *err)
{
	struct fuse_export *self = calloc(1, sizeof(*self));

	if (!self) {
		error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: cannot start the front end", config->name);
		return NULL;
	}
	self->export.ops = &export_fuse_ops;
	self->config = *config;
	self->mount = -EBADF;
	self->err = err;
	self->answer = started;
	self->data = data;
	return self;
}

static int fuse_start(const struct export_config *config, void (*started)(void *data, int result), void *data,
		      struct export **ret, struct ploop_error *err)
{
	struct fuse_export *self = fuse_new(config, started, data, err);
	int r;

	if (!self)
		return -ENOMEM;
	r = fuse_prepare(self, err);
	if (r) {
		fuse_free(self);
		return r;
	}
	fuse_run(self, fuse_attach, fuse_attached);
	*ret = &self->export;
	return 0;
}

static const char *fuse_node(const struct export *export)
{
	return ((const struct fuse_export *)export)->node;
}

/* Stopping */

static void detach(void *data)
{
	struct fuse_export *self = data;

	self->result = loopdev_detach(self->node, &self->identity, self->force);
}

static void fuse_detach(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);
	int r = apart_run(detach, self, self->mount);

	if (r < 0)
		self->result = r;
	if (self->result)
		return;
	close(self->mount);
	self->mount = -EBADF;
}

static void fuse_detached(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);

	if (self->result) {
		self->ready = true;
		self->answer(self->data, self->result);
		return;
	}
	fuse_server_close(self->server, fuse_closed, self);
}

static void fuse_stop(struct export *export, bool force, void (*stopped)(void *data, int result), void *data)
{
	struct fuse_export *self = fuse_export(export);

	self->ready = false;
	self->force = force;
	self->answer = stopped;
	self->data = data;
	fuse_run(self, fuse_detach, fuse_detached);
}

/* Growing. The kernel reads the file's new size when it is asked for it, and the loop device then takes that. */

static void resize(void *data)
{
	struct fuse_export *self = data;
	struct stat st;

	self->result = fstatat(self->mount, self->config.name, &st, 0) ? -errno : loopdev_resize(self->node);
}

static void fuse_resize(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);
	int r = apart_run(resize, self, self->mount);

	if (r < 0)
		self->result = r;
}

static void fuse_resize_done(struct io_pool_job *job)
{
	struct fuse_export *self = fuse_job(job);

	self->answer(self->data, self->result);
}

static void fuse_resized(struct export *export, void (*done)(void *data, int result), void *data)
{
	struct fuse_export *self = fuse_export(export);

	self->answer = done;
	self->data = data;
	fuse_run(self, fuse_resize, fuse_resize_done);
}

/* Changing engines */

#define KEPT_VERSION 1

static int fuse_keep(const struct export *export, struct export_kept *ret)
{
	const struct fuse_export *self = (const struct fuse_export *)export;
	struct fuse_hello hello;
	int n;

	if (!fuse_server_hello(self->server, &hello))
		return -EAGAIN;
	n = snprintf(ret->text, sizeof(ret->text), "%d %s %" PRIu64 " %" PRIu64 " ", KEPT_VERSION, self->node,
		     (uint64_t)self->identity.device, (uint64_t)self->identity.inode);
	for (size_t i = 0; i < hello.length; i++)
		n += snprintf(ret->text + n, sizeof(ret->text) - (size_t)n, "%02x", (unsigned char)hello.bytes[i]);
	ret->fds[0] = self->channel;
	ret->fds[1] = self->mount;
	ret->nfds = 2;
	ret->any_time = fuse_hello_resends(&hello);
	return 0;
}

/* The text of fuse_keep(). */
static bool fuse_parse(struct fuse_export *self, const char *text, struct fuse_hello *hello)
{
	uint64_t device, inode;
	int version, at = 0;
	unsigned byte;

	*hello = (struct fuse_hello){ 0 };
	if (sscanf(text, "%d %31s %" SCNu64 " %" SCNu64 " %n", &version, self->node, &device, &inode, &at) != 4 ||
	    version != KEPT_VERSION || strncmp(self->node, "/dev/loop", 9))
		return false;
	self->identity = (struct loopdev_identity){ .device = device, .inode = inode };
	for (text += at; hello->length < FUSE_HELLO && sscanf(text, "%2x", &byte) == 1; text += 2)
		hello->bytes[hello->length++] = (char)byte;
	return !*text && hello->length;
}

static void fuse_adopted(struct loop_task *task)
{
	struct fuse_export *self = container_of(task, struct fuse_export, adopted);

	self->ready = true;
	self->answer(self->data, 0);
}

/* Takes over what is kept; the channel and the file system are its own from then on. */
static int fuse_take_over(struct fuse_export *self, const struct export_kept *kept, struct ploop_error *err)
{
	struct fuse_hello hello;
	int r = io_pool_new(self->config.loop, 1, &self->pool, err);

	self->mount = kept->fds[1];
	self->channel = kept->fds[0];
	if (!r && !fuse_parse(self, kept->text, &hello))
		r = error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s: what the engine before kept is not understood",
			      self->config.name);
	if (r) {
		close(self->channel);
		return r;
	}
	return fuse_serve(self, &hello, err);
}

static int fuse_adopt(const struct export_config *config, const struct export_kept *kept,
		      void (*started)(void *data, int result), void *data, struct export **ret, struct ploop_error *err)
{
	struct fuse_export *self = kept->nfds == 2 ? fuse_new(config, started, data, err) : NULL;
	int r;

	if (!self) {
		for (unsigned i = 0; i < kept->nfds; i++)
			close(kept->fds[i]);
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s: the engine before kept too little", config->name);
	}
	r = fuse_take_over(self, kept, err);
	if (r) {
		fuse_free(self);
		return r;
	}
	self->adopted.run = fuse_adopted;
	loop_defer(config->loop, &self->adopted);
	*ret = &self->export;
	return 0;
}

static void fuse_left(void *data)
{
	struct fuse_export *self = data;
	void (*left)(void *data) = self->left;
	void *left_data = self->data;

	fuse_free(self);
	left(left_data);
}

static void fuse_leave(struct export *export, void (*left)(void *data), void *data)
{
	struct fuse_export *self = fuse_export(export);

	self->ready = false;
	self->left = left;
	self->data = data;
	fuse_server_close(self->server, fuse_left, self);
}

/* Its server is dead: the kernel answers every access with an error. */
static int fuse_clear(const char *node)
{
	const struct loopdev_identity anything = { 0 };

	return strncmp(node, "/dev/loop", 9) ? 0 : loopdev_detach(node, &anything, true);
}

const struct export_ops export_fuse_ops = {
	.name = "fuse",
	.summary = "a FUSE file under a loop device; any kernel from 5.8 on",
	.usable = fuse_usable,
	.start = fuse_start,
	.node = fuse_node,
	.stop = fuse_stop,
	.resized = fuse_resized,
	.clear = fuse_clear,
	.keep = fuse_keep,
	.adopt = fuse_adopt,
	.leave = fuse_leave,
};
