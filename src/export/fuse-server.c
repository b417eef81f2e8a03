/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-server.c - see fuse-server.h. libfuse parses the protocol; receiving and replying are done here.
 *
 * A request is received into a buffer of the pool so that the data of a write begins on a page: it goes to the disk from
 * there, without a copy. The same memory takes the data of a read. The request keeps its buffer until its reply is written;
 * when all are in use, nothing more is received and the kernel queues. Buffers are taken last in, first out, so that a
 * device that is never asked for much touches little memory.
 *
 *	free -> receiving -> device_submit() -> reply written -> free
 *	             `-> answered at once (INIT, OPEN, GETATTR ...) -> free
 *
 * On a loop with a ring, replies are entries on it: those of a turn cost one system call.
 */
#define FUSE_USE_VERSION 314
#include "export/fuse-server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "base/log.h"
#include "device/device.h"
#include "io/loop.h"

#define PAGE 4096u
#define TRANSFER_MAX (1024u * 1024)
#define WRITE_HEAD (sizeof(struct fuse_in_header) + sizeof(struct fuse_write_in))
#define STRIDE (PAGE + TRANSFER_MAX)
#define DEPTH_MAX 1024u
#define RECEIVE_BUDGET 64
#define REPLY_HEAD 64

struct fuse_request {
	struct device_request device;
	struct fuse_server *server;
	struct list node; /* in fuse_server.free */
	fuse_req_t req;
	char *memory; /* TRANSFER_MAX bytes on a page; a request begins WRITE_HEAD bytes before */
	struct loop_completion replied;
	struct iovec reply[2];
	char head[REPLY_HEAD]; /* what reply[0] points to: outlives libfuse's stack */
};

struct fuse_server {
	struct fuse_server_config config;
	struct fuse_session *session;
	struct loop_watch watch;
	struct loop_task task;
	char *memory;
	struct fuse_request *requests;
	struct list free;
	unsigned busy; /* requests not in `free` */
	bool starved;  /* receiving waits for a free request */
	bool ended;    /* released() was called */
	struct fuse_request *current;  /* being parsed, until a handler takes it */
	struct fuse_request *replying; /* whose reply libfuse is sending */
	void (*closed)(void *data);
	void *closed_data;
};

/* The pool of requests */

static struct fuse_request *server_request_get(struct fuse_server *server)
{
	struct list *node = list_pop(&server->free);

	if (!node)
		return NULL;
	server->busy++;
	return container_of(node, struct fuse_request, node);
}

static void server_request_put(struct fuse_request *request)
{
	struct fuse_server *server = request->server;

	list_push_front(&server->free, &request->node);
	server->busy--;
	if (server->starved || (server->closed && !server->busy)) {
		server->starved = false;
		loop_defer(server->config.loop, &server->task);
	}
}

/* Replying */

static bool server_reply_again(int result)
{
	return result == -EAGAIN || result == -EINTR || result == -ENOMEM;
}

static bool server_reply_ring(struct fuse_request *request)
{
	struct io_uring *ring = loop_ring(request->server->config.loop);
	struct io_uring_sqe *sqe = ring ? io_uring_get_sqe(ring) : NULL;

	if (!sqe)
		return false;
	io_uring_prep_writev(sqe, request->server->config.channel, request->reply, request->reply[1].iov_len ? 2 : 1, 0);
	io_uring_sqe_set_data(sqe, &request->replied);
	return true;
}

/* A reply that gets -ENOENT belongs to a request that was aborted: nobody waits for it. */
static void server_replied(struct loop_completion *completion, int result, unsigned flags)
{
	struct fuse_request *request = container_of(completion, struct fuse_request, replied);

	(void)flags;
	if (server_reply_again(result) && server_reply_ring(request))
		return;
	server_request_put(request);
}

/*
 * libfuse sends a reply. That of a device request goes on the ring: its head is copied, its data lies in the request's own
 * memory. All others are small and written at once.
 */
static ssize_t server_writev(int fd, struct iovec *iov, int count, void *data)
{
	struct fuse_server *server = data;
	struct fuse_request *request = server->replying;
	size_t len = 0;

	if (!request || count > 2 || iov[0].iov_len > REPLY_HEAD)
		return writev(fd, iov, count);
	memcpy(request->head, iov[0].iov_base, iov[0].iov_len);
	request->reply[0] = (struct iovec){ request->head, iov[0].iov_len };
	request->reply[1] = (struct iovec){ 0 };
	if (count == 2 && iov[1].iov_base == request->memory) {
		request->reply[1] = iov[1];
	} else if (count == 2) {
		if (iov[0].iov_len + iov[1].iov_len > REPLY_HEAD)
			return writev(fd, iov, count);
		memcpy(request->head + iov[0].iov_len, iov[1].iov_base, iov[1].iov_len);
		request->reply[0].iov_len += iov[1].iov_len;
	}
	if (!server_reply_ring(request))
		return writev(fd, iov, count);
	server->replying = NULL;
	for (int i = 0; i < count; i++)
		len += iov[i].iov_len;
	return (ssize_t)len;
}

static ssize_t server_no_read(int fd, void *buffer, size_t len, void *data)
{
	(void)fd;
	(void)buffer;
	(void)len;
	(void)data;
	errno = EINVAL;
	return -1;
}

static const struct fuse_custom_io server_io = { .writev = server_writev, .read = server_no_read };

static void server_request_done(struct device_request *device, int result)
{
	struct fuse_request *request = container_of(device, struct fuse_request, device);
	struct fuse_server *server = request->server;

	server->replying = request;
	if (result)
		(void)fuse_reply_err(request->req, -result);
	else if (device->kind == DEVICE_READ)
		(void)fuse_reply_buf(request->req, request->memory, device->length);
	else if (device->kind == DEVICE_WRITE)
		(void)fuse_reply_write(request->req, device->length);
	else
		(void)fuse_reply_err(request->req, 0);
	/* Not on the ring: written already. */
	if (server->replying)
		server_request_put(request);
	server->replying = NULL;
}

/* Handlers */

static struct fuse_server *server_of(fuse_req_t req)
{
	return fuse_req_userdata(req);
}

static bool server_changes(enum device_kind kind)
{
	return kind != DEVICE_READ && kind != DEVICE_FLUSH;
}

/* Takes the request that is being parsed and hands it to the device. */
static void server_submit(fuse_req_t req, enum device_kind kind, off_t offset, uint64_t length, void *buffer)
{
	struct fuse_server *server = server_of(req);
	struct fuse_request *request = server->current;
	uint64_t size = device_size(server->config.device), end;

	if (server->config.read_only && server_changes(kind)) {
		(void)fuse_reply_err(req, EROFS);
		return;
	}
	if (offset < 0 || offset % 512 || length % 512 || __builtin_add_overflow((uint64_t)offset, length, &end) ||
	    end > size || (buffer && length > TRANSFER_MAX)) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	server->current = NULL;
	request->req = req;
	request->device.kind = kind;
	request->device.flags = 0;
	request->device.offset = (uint64_t)offset;
	request->device.length = length;
	request->device.buffer = buffer;
	request->device.done = server_request_done;
	device_submit(server->config.device, &request->device);
}

static void server_read(fuse_req_t req, fuse_ino_t ino, size_t len, off_t offset, struct fuse_file_info *fi)
{
	struct fuse_server *server = server_of(req);
	uint64_t size = device_size(server->config.device);

	(void)ino;
	(void)fi;
	if (offset >= 0 && (uint64_t)offset + len > size)
		len = (uint64_t)offset < size ? size - (uint64_t)offset : 0;
	if (len)
		server_submit(req, DEVICE_READ, offset, len, server->current->memory);
	else
		(void)fuse_reply_buf(req, NULL, 0);
}

static void server_write(fuse_req_t req, fuse_ino_t ino, const char *data, size_t len, off_t offset,
			 struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	if (len)
		server_submit(req, DEVICE_WRITE, offset, len, (void *)(uintptr_t)data);
	else
		(void)fuse_reply_write(req, 0);
}

static void server_fsync(fuse_req_t req, fuse_ino_t ino, int datasync, struct fuse_file_info *fi)
{
	(void)ino;
	(void)datasync;
	(void)fi;
	if (server_of(req)->config.read_only)
		(void)fuse_reply_err(req, 0);
	else
		server_submit(req, DEVICE_FLUSH, 0, 0, NULL);
}

static void server_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t offset, off_t length,
			     struct fuse_file_info *fi)
{
	(void)ino;
	(void)fi;
	if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE))
		server_submit(req, DEVICE_DISCARD, offset, (uint64_t)length, NULL);
	else if ((mode & ~FALLOC_FL_KEEP_SIZE) == FALLOC_FL_ZERO_RANGE)
		server_submit(req, DEVICE_WRITE_ZEROES, offset, (uint64_t)length, NULL);
	else
		(void)fuse_reply_err(req, EOPNOTSUPP);
}

/* The kernel may not remember the size: the device can grow. */
static void server_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_server *server = server_of(req);
	struct stat st = {
		.st_ino = ino,
		.st_mode = S_IFREG | (server->config.read_only ? 0400 : 0600),
		.st_nlink = 1,
		.st_uid = getuid(),
		.st_gid = getgid(),
		.st_size = (off_t)device_size(server->config.device),
		.st_blksize = PAGE,
	};

	(void)fi;
	(void)fuse_reply_attr(req, &st, 0);
}

/* By hand, as not every libfuse knows how to allow writes in parallel. The kernel skips flags that it does not know. */
static void server_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = { .open_flags = FOPEN_DIRECT_IO | (1u << 6) /* FOPEN_PARALLEL_DIRECT_WRITES */ };

	(void)ino;
	if (server_of(req)->config.read_only && (fi->flags & O_ACCMODE) != O_RDONLY)
		(void)fuse_reply_err(req, EROFS);
	else
		(void)fuse_reply_buf(req, (const char *)&out, sizeof(out));
}

static void server_end(struct fuse_server *server)
{
	if (server->ended || server->closed)
		return;
	server->ended = true;
	server->config.released(server->config.data);
}

static void server_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_server *server = server_of(req);

	(void)ino;
	(void)fi;
	(void)fuse_reply_err(req, 0);
	server_end(server);
}

/* The loop device takes its discard granularity from f_bsize. */
static void server_statfs(fuse_req_t req, fuse_ino_t ino)
{
	struct statvfs st = { .f_bsize = PAGE, .f_frsize = PAGE, .f_namemax = 255 };

	(void)ino;
	st.f_blocks = device_size(server_of(req)->config.device) / PAGE;
	(void)fuse_reply_statfs(req, &st);
}

static void server_init(void *data, struct fuse_conn_info *conn)
{
	struct fuse_server *server = data;

	conn->max_write = TRANSFER_MAX;
	conn->max_background = server->config.depth;
	conn->congestion_threshold = server->config.depth;
	conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA);
}

static const struct fuse_lowlevel_ops server_handlers = {
	.init = server_init,
	.getattr = server_getattr,
	.open = server_open,
	.release = server_release,
	.read = server_read,
	.write = server_write,
	.fsync = server_fsync,
	.fallocate = server_fallocate,
	.statfs = server_statfs,
};

/* Receiving */

static void server_handle(struct fuse_server *server, struct fuse_request *request, size_t len)
{
	struct fuse_buf buf = { .mem = request->memory - WRITE_HEAD, .size = len };

	server->current = request;
	fuse_session_process_buf(server->session, &buf);
	if (server->current)
		server_request_put(request);
	server->current = NULL;
}

/* Returns 1 for a request handled, 0 when there is none, or a negative errno when the connection is gone. */
static int server_receive_one(struct fuse_server *server)
{
	struct fuse_request *request = server_request_get(server);
	ssize_t n;

	if (!request) {
		server->starved = true;
		return -ENOBUFS;
	}
	n = read(server->config.channel, request->memory - WRITE_HEAD, WRITE_HEAD + TRANSFER_MAX);
	if (n >= 0) {
		server_handle(server, request, (size_t)n);
		return 1;
	}
	n = -errno;
	server_request_put(request);
	/* ENOENT: the request was aborted while it was read. */
	if (n == -EINTR || n == -ENOENT)
		return 1;
	return n == -EAGAIN ? 0 : (int)n;
}

static void server_receive(struct fuse_server *server)
{
	for (unsigned budget = RECEIVE_BUDGET; budget && !server->closed; budget--) {
		int r = server_receive_one(server);

		if (r == -ENOBUFS)
			return;
		if (r < 0) {
			server_end(server);
			return;
		}
		if (!r) {
			(void)loop_watch_add(server->config.loop, &server->watch);
			return;
		}
	}
	if (!server->closed)
		loop_defer(server->config.loop, &server->task);
}

static void server_ready(struct loop_watch *watch, int revents)
{
	(void)revents;
	server_receive(container_of(watch, struct fuse_server, watch));
}

/* Making and ending */

static void server_free(struct fuse_server *server)
{
	if (server->session)
		fuse_session_destroy(server->session); /* closes the channel */
	else
		close(server->config.channel);
	io_buffer_free(server->memory, (size_t)STRIDE * server->config.depth);
	io_buffer_free(server->requests, server->config.depth * sizeof(*server->requests));
	free(server);
}

static void server_run(struct loop_task *task)
{
	struct fuse_server *server = container_of(task, struct fuse_server, task);
	void (*closed)(void *data) = server->closed;
	void *data = server->closed_data;

	if (!closed) {
		server_receive(server);
	} else if (!server->busy) {
		server_free(server);
		closed(data);
	}
}

static void server_log(enum fuse_log_level level, const char *format, va_list ap)
{
	(void)level;
	(void)format;
	(void)ap;
}

static int server_session(struct fuse_server *server)
{
	char *argv[] = { (char[]){ "ploop" }, NULL };
	struct fuse_args args = FUSE_ARGS_INIT(1, argv);

	/* It would print. */
	fuse_set_log_func(server_log);
	server->session = fuse_session_new(&args, &server_handlers, sizeof(server_handlers), server);
	fuse_opt_free_args(&args);
	if (!server->session)
		return -ENOMEM;
	if (fuse_session_custom_io(server->session, &server_io, server->config.channel)) {
		fuse_session_destroy(server->session);
		server->session = NULL;
		return -ENOMEM;
	}
	return 0;
}

static int server_make_requests(struct fuse_server *server)
{
	unsigned depth = server->config.depth;

	server->memory = io_buffer_new((size_t)STRIDE * depth);
	server->requests = io_buffer_new(depth * sizeof(*server->requests));
	if (!server->memory || !server->requests)
		return -ENOMEM;
	for (unsigned i = depth; i--;) {
		struct fuse_request *request = &server->requests[i];

		request->server = server;
		request->memory = server->memory + (size_t)i * STRIDE + PAGE;
		request->replied.done = server_replied;
		list_push_front(&server->free, &request->node);
	}
	return 0;
}

int fuse_server_new(const struct fuse_server_config *config, struct fuse_server **ret, struct ploop_error *err)
{
	struct fuse_server *server = calloc(1, sizeof(*server));
	int r;

	assert(config->depth && config->depth <= DEPTH_MAX);
	if (!server) {
		close(config->channel);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot serve FUSE");
	}
	server->config = *config;
	list_init(&server->free);
	server->task.run = server_run;
	server->watch = (struct loop_watch){ .fd = config->channel, .events = POLLIN, .ready = server_ready };
	r = server_make_requests(server);
	if (!r)
		r = server_session(server);
	if (!r)
		r = loop_watch_add(config->loop, &server->watch);
	if (r) {
		server_free(server);
		return error_sys(err, r, PLOOP_EXIT_DEVICE, "cannot serve FUSE");
	}
	*ret = server;
	return 0;
}

void fuse_server_close(struct fuse_server *server, void (*closed)(void *data), void *data)
{
	server->closed = closed;
	server->closed_data = data;
	loop_watch_remove(server->config.loop, &server->watch);
	if (!server->busy)
		loop_defer(server->config.loop, &server->task);
}
