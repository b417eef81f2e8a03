/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd.c - the front end for kernels with nbd: the driver's sockets end in our own loop.
 *
 * What waits for the kernel is a job of one thread. A job that may open the device, or change its queue, waits for answers of our own
 * server, and so is done apart (apart.h), without the sockets: the kernel sees the end of a killed process by them.
 *
 *	start: server, sockets -> job: connect, node, tune -> started()
 *	stop:  job: detach -> server closed -> stopped()
 *	leave: the server leaves -> left(); adopt: on the same sockets, or -> job: new sockets -> started()
 *
 * A socket that ends without a goodbye is replaced. With a goodbye, or when the kernel takes no other, somebody has disconnected the
 * device by hand: gone().
 *
 * What is kept: the device's number and name in text; the sockets; and an eventfd that says whether the engine before left them between
 * two requests, so that they can be used on. If it did not they are useless: what it took is known to nobody. Then they are shut
 * down and the kernel gets new ones; it sends again what was not answered, all that it had sent on the old ones within some
 * seconds (nbddev.c says why).
 *
 * One socket is enough for an engine with one thread, and it has an advantage: with several of them the kernel takes a request that is
 * slow, on a host that is full say, for a dead socket. So more are made only when PLOOP_NBD_CONNECTIONS says so.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "device/device.h"
#include "export/apart.h"
#include "export/modules.h"
#include "export/nbd-link.h"
#include "export/nbd-server.h"
#include "export/nbddev.h"
#include "io/loop.h"
#include "io/pool.h"

#define DEPTH_DEFAULT 128
#define SOCKETS_MAX (EXPORT_KEPT_FDS - 1)
#define SOCKET_BUFFER (4 << 20) /* bytes: a few of the largest requests */
#define DEAD_S 60               /* seconds that requests wait for the next engine before they fail */
#define MEND_TRIES 200
#define MEND_PAUSE_MS 25

/* New sockets for a device that has lost some. */
struct nbd_mend {
	struct io_pool_job job;
	bool running;
	unsigned wanted;
	int fds[SOCKETS_MAX];
	unsigned got;
	int result;
};

struct nbd_export {
	struct export export;
	struct export_config config;
	struct nbd_server *server;
	struct io_pool *pool;
	struct loop_task adopted;
	int theirs[SOCKETS_MAX]; /* the kernel's ends, until it has them */
	unsigned nsockets;
	int whole; /* eventfd: the sockets stand between two requests */
	unsigned index;
	char node[NBDDEV_NODE];
	char identifier[NBDDEV_IDENTIFIER];
	bool ready; /* started and not stopping */
	bool leaving;
	struct nbd_mend mend;

	/* The job under way: one at a time. */
	struct io_pool_job job;
	int result;
	bool force;
	struct ploop_error *err;
	void (*answer)(void *data, int result);
	void (*left)(void *data);
	void *data;
};

static struct nbd_export *nbd_export(struct export *export)
{
	return container_of(export, struct nbd_export, export);
}

static struct nbd_export *nbd_job(struct io_pool_job *job)
{
	return container_of(job, struct nbd_export, job);
}

static void nbd_run(struct nbd_export *self, void (*work)(struct io_pool_job *job),
		    void (*finished)(struct io_pool_job *job))
{
	self->job.work = work;
	self->job.finished = finished;
	io_pool_submit(self->pool, &self->job);
}

static void nbd_pause(void)
{
	struct timespec time = { .tv_nsec = MEND_PAUSE_MS * 1000000L };

	nanosleep(&time, NULL);
}

static void close_all(int *fds, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		cleanup_close(&fds[i]);
		fds[i] = -EBADF;
	}
}

/* Our end and the kernel's. */
static int socket_pair(int ends[2])
{
	const int size = SOCKET_BUFFER;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends))
		return -errno;
	for (unsigned i = 0; i < 2; i++)
		(void)setsockopt(ends[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
	return 0;
}

/* Ending: the server is closed, or was never made. */

static void nbd_free(struct nbd_export *self)
{
	io_pool_free(self->pool);
	close_all(self->theirs, self->nsockets);
	cleanup_close(&self->whole);
	free(self);
}

static void nbd_closed(void *data)
{
	struct nbd_export *self = data;
	void (*answer)(void *data, int result) = self->answer;
	void *answer_data = self->data;
	int result = self->result;

	nbd_free(self);
	answer(answer_data, result);
}

/* Mending */

static void nbd_gone(struct nbd_export *self)
{
	if (!self->ready)
		return;
	self->ready = false;
	if (self->config.gone)
		self->config.gone(self->config.data);
}

/* The kernel takes a socket only when it has seen the end of another one, and does not say whether it did: but it lets go of it. */
static int mend_one(const struct nbd_export *self, int *ret)
{
	for (unsigned i = 0; i < MEND_TRIES; i++) {
		struct pollfd look = { .events = POLLIN };
		int ends[2], r = socket_pair(ends);

		if (r)
			return r;
		r = nbd_link_socket(self->index, self->identifier, ends[1]);
		close(ends[1]);
		look.fd = ends[0];
		if (!r && (poll(&look, 1, 0) <= 0 || !(look.revents & POLLHUP))) {
			*ret = ends[0];
			return 0;
		}
		close(ends[0]);
		if (r)
			return r;
		nbd_pause();
	}
	return -ETIMEDOUT;
}

static void mend_work(struct io_pool_job *job)
{
	struct nbd_mend *mend = container_of(job, struct nbd_mend, job);
	struct nbd_export *self = container_of(mend, struct nbd_export, mend);

	mend->result = 0;
	for (mend->got = 0; mend->got < mend->wanted && !mend->result; mend->got += !mend->result)
		mend->result = mend_one(self, &mend->fds[mend->got]);
}

/* The new sockets become the server's. */
static int mend_add(struct nbd_export *self)
{
	struct nbd_mend *mend = &self->mend;
	int r = mend->result;

	for (unsigned i = 0; i < mend->got; i++) {
		if (r) {
			close(mend->fds[i]);
			continue;
		}
		r = nbd_server_add(self->server, mend->fds[i]);
	}
	return r;
}

static void nbd_leave_now(struct nbd_export *self);

static void mend_finished(struct io_pool_job *job)
{
	struct nbd_mend *mend = container_of(job, struct nbd_mend, job);
	struct nbd_export *self = container_of(mend, struct nbd_export, mend);

	mend->running = false;
	if (!self->ready && !self->leaving) {
		close_all(mend->fds, mend->got);
		return;
	}
	if (mend_add(self))
		nbd_gone(self);
	else if (self->config.kept)
		self->config.kept(self->config.data);
	if (self->leaving)
		nbd_leave_now(self);
}

static void nbd_mend(struct nbd_export *self)
{
	struct nbd_mend *mend = &self->mend;

	if (mend->running || nbd_server_connections(self->server) >= self->nsockets)
		return;
	mend->running = true;
	mend->wanted = self->nsockets - nbd_server_connections(self->server);
	mend->job.work = mend_work;
	mend->job.finished = mend_finished;
	io_pool_submit(self->pool, &mend->job);
}

static void nbd_ended(void *data, bool goodbye)
{
	struct nbd_export *self = data;

	if (!self->ready)
		return;
	if (goodbye)
		nbd_gone(self);
	else
		nbd_mend(self);
}

/* Starting */

static int nbd_usable(struct ploop_error *err)
{
	return nbd_link_usable(err);
}

static unsigned nbd_wanted_sockets(void)
{
	const char *text = secure_getenv("PLOOP_NBD_CONNECTIONS");
	long n = text ? strtol(text, NULL, 10) : 1;

	return n < 1 ? 1 : n > SOCKETS_MAX ? SOCKETS_MAX : (unsigned)n;
}

static int nbd_name(struct nbd_export *self)
{
	uint64_t number;

	/* Nobody else's device, now or later, is called the same. */
	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return -EIO;
	snprintf(self->identifier, sizeof(self->identifier), "ploop:%.40s:%016" PRIx64, self->config.name,
		 number & INT64_MAX);
	return 0;
}

static void nbd_connect_work(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);
	struct nbd_link_device device = {
		.size = device_size(self->config.device),
		.block = self->config.logical_block ? self->config.logical_block : 512,
		.flags = nbd_server_flags(self->server),
		.sockets = self->theirs,
		.nsockets = self->nsockets,
		.dead_s = DEAD_S,
		.identifier = self->identifier,
	};
	int r = nbd_link_connect(&device, &self->index);

	close_all(self->theirs, self->nsockets);
	if (r) {
		self->result = error_sys(self->err, r, PLOOP_EXIT_DEVICE, "%s: cannot set up an nbd device",
					 self->config.name);
		return;
	}
	self->result = nbddev_node(self->index, self->node);
	if (!self->result)
		return;
	error_sys(self->err, self->result, PLOOP_EXIT_MKNOD, "%s", self->node);
	(void)nbd_link_disconnect(self->index);
}

static void tune(void *data)
{
	struct nbd_export *self = data;

	nbddev_tune(self->node);
}

static void nbd_tune_work(struct io_pool_job *job)
{
	(void)apart_run(tune, nbd_job(job), -1);
}

static void nbd_tuned(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);

	self->ready = true;
	nbd_mend(self); /* for what has ended meanwhile */
	self->answer(self->data, 0);
}

static void nbd_connected(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);

	if (self->result)
		nbd_server_close(self->server, nbd_closed, self);
	else
		nbd_run(self, nbd_tune_work, nbd_tuned);
}

static struct nbd_export *nbd_new(const struct export_config *config, void (*started)(void *data, int result),
				  void *data, struct ploop_error *err)
{
	struct nbd_export *self = calloc(1, sizeof(*self));

	if (!self) {
		error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s: cannot start the front end", config->name);
		return NULL;
	}
	self->export.ops = &export_nbd_ops;
	self->config = *config;
	self->whole = -EBADF;
	for (unsigned i = 0; i < SOCKETS_MAX; i++)
		self->theirs[i] = -EBADF;
	self->err = err;
	self->answer = started;
	self->data = data;
	return self;
}

static int nbd_serve(struct nbd_export *self, struct ploop_error *err)
{
	const struct export_config *config = &self->config;
	struct nbd_server_config server = {
		.loop = config->loop,
		.device = config->device,
		.depth = config->depth ? config->depth : DEPTH_DEFAULT,
		.read_only = config->read_only,
		.ended = nbd_ended,
		.data = self,
	};
	int r = io_pool_new(config->loop, 1, &self->pool, err);

	return r ? r : nbd_server_new(&server, &self->server, err);
}

/* Makes the sockets; ours are the server's at once. */
static int nbd_make_sockets(struct nbd_export *self)
{
	for (unsigned n = nbd_wanted_sockets(); self->nsockets < n; self->nsockets++) {
		int ends[2], r = socket_pair(ends);

		if (r)
			return r;
		self->theirs[self->nsockets] = ends[1];
		r = nbd_server_add(self->server, ends[0]);
		if (r) {
			close(ends[1]);
			return r;
		}
	}
	return 0;
}

static void nbd_failed(struct loop_task *task)
{
	struct nbd_export *self = container_of(task, struct nbd_export, adopted);

	nbd_server_close(self->server, nbd_closed, self);
}

static int nbd_start(const struct export_config *config, void (*started)(void *data, int result), void *data,
		     struct export **ret, struct ploop_error *err)
{
	struct nbd_export *self = nbd_new(config, started, data, err);
	int r;

	if (!self)
		return -ENOMEM;
	r = nbd_serve(self, err);
	if (r) {
		nbd_free(self);
		return r;
	}
	*ret = &self->export;
	r = nbd_name(self);
	if (!r)
		r = nbd_make_sockets(self);
	self->whole = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (!r && self->whole < 0)
		r = -errno;
	if (!r) {
		nbd_run(self, nbd_connect_work, nbd_connected);
		return 0;
	}
	/* The server has to be closed first, which takes a moment. */
	self->result = error_sys(err, r, PLOOP_EXIT_SYS, "%s: cannot start the front end", config->name);
	self->adopted.run = nbd_failed;
	loop_defer(config->loop, &self->adopted);
	return 0;
}

static const char *nbd_node(const struct export *export)
{
	return ((const struct nbd_export *)export)->node;
}

/* Stopping */

static void detach(void *data)
{
	struct nbd_export *self = data;

	self->result = nbddev_detach(self->node, self->identifier, self->force);
}

static void nbd_detach_work(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);
	int r = apart_run(detach, self, -1);

	if (r < 0)
		self->result = r;
}

static void nbd_detached(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);

	if (!self->result) {
		nbd_server_close(self->server, nbd_closed, self);
		return;
	}
	self->ready = true;
	nbd_mend(self);
	self->answer(self->data, self->result);
}

static void nbd_stop(struct export *export, bool force, void (*stopped)(void *data, int result), void *data)
{
	struct nbd_export *self = nbd_export(export);

	self->ready = false;
	self->force = force;
	self->answer = stopped;
	self->data = data;
	nbd_run(self, nbd_detach_work, nbd_detached);
}

/* Growing */

static void resize(void *data)
{
	struct nbd_export *self = data;

	self->result = nbd_link_resize(self->index, self->identifier, device_size(self->config.device));
}

static void nbd_resize_work(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);
	int r = apart_run(resize, self, -1);

	if (r < 0)
		self->result = r;
}

static void nbd_resize_done(struct io_pool_job *job)
{
	struct nbd_export *self = nbd_job(job);

	self->answer(self->data, self->result);
}

static void nbd_resized(struct export *export, void (*done)(void *data, int result), void *data)
{
	struct nbd_export *self = nbd_export(export);

	self->answer = done;
	self->data = data;
	nbd_run(self, nbd_resize_work, nbd_resize_done);
}

/* No other engine will come: what waits for one gets errors, and the device is free when nobody has it open any more. */
static int nbd_fail(const char *node)
{
	unsigned index;
	int r = nbddev_index(node, &index) ? nbd_link_disconnect(index) : -EINVAL;

	return r == -EINVAL && !nbddev_attached(node) ? 0 : r;
}

/* Changing engines */

#define KEPT_VERSION 1

static int nbd_keep(const struct export *export, struct export_kept *ret)
{
	const struct nbd_export *self = (const struct nbd_export *)export;

	snprintf(ret->text, sizeof(ret->text), "%d %u %u %s", KEPT_VERSION, self->index, self->nsockets,
		 self->identifier);
	ret->fds[0] = self->whole;
	ret->nfds = 1 + nbd_server_sockets(self->server, ret->fds + 1, SOCKETS_MAX);
	ret->any_time = true;
	return 0;
}

static bool nbd_parse(struct nbd_export *self, const struct export_kept *kept)
{
	unsigned nsockets;
	int version, at = 0;

	if (sscanf(kept->text, "%d %u %u %n", &version, &self->index, &nsockets, &at) != 3 || version != KEPT_VERSION ||
	    !nsockets || nsockets > SOCKETS_MAX || kept->nfds > 1 + nsockets ||
	    strlen(kept->text + at) >= sizeof(self->identifier))
		return false;
	self->nsockets = nsockets;
	snprintf(self->identifier, sizeof(self->identifier), "%s", kept->text + at);
	return nbddev_node(self->index, self->node) == 0;
}

static void nbd_adopted(struct loop_task *task)
{
	struct nbd_export *self = container_of(task, struct nbd_export, adopted);

	self->ready = true;
	nbd_mend(self);
	self->answer(self->data, 0);
}

/* The first sockets of an engine whose predecessor died. */
static void nbd_revived(struct io_pool_job *job)
{
	struct nbd_mend *mend = container_of(job, struct nbd_mend, job);
	struct nbd_export *self = container_of(mend, struct nbd_export, mend);
	int r = mend_add(self);

	mend->running = false;
	if (r) {
		self->result = error_sys(self->err, r, PLOOP_EXIT_DEVICE, "%s: %s takes no new sockets",
					 self->config.name, self->node);
		nbd_server_close(self->server, nbd_closed, self);
		return;
	}
	nbd_adopted(&self->adopted);
}

static void nbd_revive(struct nbd_export *self, const int *sockets, unsigned n)
{
	for (unsigned i = 0; i < n; i++) {
		(void)shutdown(sockets[i], SHUT_RDWR);
		close(sockets[i]);
	}
	self->mend.running = true;
	self->mend.wanted = self->nsockets;
	self->mend.job.work = mend_work;
	self->mend.job.finished = nbd_revived;
	io_pool_submit(self->pool, &self->mend.job);
}

static void nbd_go_on(struct nbd_export *self, const int *sockets, unsigned n)
{
	for (unsigned i = 0; i < n; i++)
		(void)nbd_server_add(self->server, sockets[i]); /* one that fails is mended */
	self->adopted.run = nbd_adopted;
	loop_defer(self->config.loop, &self->adopted);
}

/* What is kept of the device, and whether it is still that. */
static int nbd_take_over(struct nbd_export *self, const struct export_kept *kept, struct ploop_error *err)
{
	if (!nbd_parse(self, kept))
		return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "%s: what the engine before kept is not understood",
				 self->config.name);
	if (!nbddev_is(self->node, self->identifier))
		return error_set(err, -ENODEV, PLOOP_EXIT_DEVICE, "%s: %s is not what it was", self->config.name,
				 self->node);
	return nbd_serve(self, err);
}

static int nbd_adopt(const struct export_config *config, const struct export_kept *kept,
		     void (*started)(void *data, int result), void *data, struct export **ret, struct ploop_error *err)
{
	struct nbd_export *self = nbd_new(config, started, data, err);
	int r = self ? nbd_take_over(self, kept, err) : -ENOMEM;
	eventfd_t whole = 0;

	if (r) {
		for (unsigned i = 0; i < kept->nfds; i++)
			close(kept->fds[i]);
		if (self)
			nbd_free(self);
		return r;
	}
	*ret = &self->export;
	if (!kept->nfds) { /* nobody kept the sockets */
		self->whole = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		nbd_revive(self, NULL, 0);
		return 0;
	}
	self->whole = kept->fds[0];
	if (eventfd_read(self->whole, &whole) == 0 && whole)
		nbd_go_on(self, kept->fds + 1, kept->nfds - 1);
	else
		nbd_revive(self, kept->fds + 1, kept->nfds - 1);
	return 0;
}

static void nbd_left(void *data, bool whole)
{
	struct nbd_export *self = data;
	void (*left)(void *data) = self->left;
	void *left_data = self->data;

	if (whole)
		(void)eventfd_write(self->whole, 1);
	nbd_free(self);
	left(left_data);
}

static void nbd_leave_now(struct nbd_export *self)
{
	nbd_server_leave(self->server, nbd_left, self);
}

static void nbd_leave(struct export *export, void (*left)(void *data), void *data)
{
	struct nbd_export *self = nbd_export(export);

	self->ready = false;
	self->leaving = true;
	self->left = left;
	self->data = data;
	if (!self->mend.running)
		nbd_leave_now(self);
}

const struct export_ops export_nbd_ops = {
	.name = "nbd",
	.summary = "the kernel's nbd over sockets in this host",
	.usable = nbd_usable,
	.start = nbd_start,
	.node = nbd_node,
	.stop = nbd_stop,
	.resized = nbd_resized,
	.fail = nbd_fail,
	.keep = nbd_keep,
	.adopt = nbd_adopt,
	.leave = nbd_leave,
};
