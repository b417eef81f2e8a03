/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * fuse-server.c - see fuse-server.h. libfuse parses the protocol; what comes in and goes out is fuse-channel.c's.
 *
 * A handler either answers at once (INIT, OPEN, GETATTR ...) or takes the request, hands it to the device and answers when
 * that is done.
 *
 * A channel that another server had: libfuse is told the kernel's first message again, with nobody to hear the answer, and the
 * kernel is asked to give again what that server took and did not answer. The kernel marks such requests by a bit of their
 * number, which the answer must bear too: libfuse copies the number as it is.
 */
#define FUSE_USE_VERSION 314
#include "export/fuse-server.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <linux/falloc.h>
#include <linux/fuse.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/error.h"
#include "device/device.h"
#include "export/fuse-channel.h"
#include "io/loop.h"

#define BLOCK 4096u
#define FILE_INODE 2
#define FOREVER 1e9 /* seconds */

/* Linux 6.9; not in every header. */
#define HAS_RESEND (UINT32_C(1) << (39 - 32)) /* in flags2 */
#define NOTIFY_RESEND 7

struct fuse_server {
	struct fuse_channel channel;
	struct fuse_server_config config;
	struct fuse_session *session;
	struct fuse_hello hello;
	bool ended;                    /* released() was called */
	bool mute;                     /* what libfuse sends is for nobody */
	struct fuse_request *current;  /* being parsed, until a handler takes it */
	struct fuse_request *replying; /* whose reply libfuse is sending */
	void (*closed)(void *data);
	void *closed_data;
};

/* libfuse sends a reply. That to a request of the device goes by the channel; all others are small and written at once. */
static ssize_t server_writev(int fd, struct iovec *iov, int count, void *data)
{
	struct fuse_server *server = data;
	size_t len = 0;

	if (!server->mute && (!server->replying || !fuse_channel_reply(server->replying, iov, count)))
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
	struct fuse_server *server = container_of(request->channel, struct fuse_server, channel);

	server->replying = request;
	if (result)
		(void)fuse_reply_err(request->handle, -result);
	else if (device->kind == DEVICE_READ)
		(void)fuse_reply_buf(request->handle, request->memory, device->length);
	else if (device->kind == DEVICE_WRITE)
		(void)fuse_reply_write(request->handle, device->length);
	else
		(void)fuse_reply_err(request->handle, 0);
	/* The channel did not take it: written already. */
	if (server->replying)
		fuse_channel_put(request);
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
	    end > size || (buffer && length > FUSE_TRANSFER_MAX)) {
		(void)fuse_reply_err(req, EINVAL);
		return;
	}
	server->current = NULL;
	request->handle = req;
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

static struct stat server_attributes(const struct fuse_server *server, fuse_ino_t ino)
{
	mode_t file = S_IFREG | (server->config.read_only ? 0400 : 0600);

	return (struct stat){
		.st_ino = ino,
		.st_mode = ino == FILE_INODE ? file : S_IFDIR | 0700,
		.st_nlink = 1,
		.st_uid = getuid(),
		.st_gid = getgid(),
		.st_size = ino == FILE_INODE ? (off_t)device_size(server->config.device) : 0,
		.st_blksize = BLOCK,
	};
}

/* The kernel may not remember the size: the device can grow. */
static void server_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct stat st = server_attributes(server_of(req), ino);

	(void)fi;
	(void)fuse_reply_attr(req, &st, 0);
}

static void server_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct fuse_server *server = server_of(req);
	struct fuse_entry_param entry = {
		.ino = FILE_INODE,
		.attr = server_attributes(server, FILE_INODE),
		.entry_timeout = FOREVER,
	};

	if (parent != FUSE_ROOT_ID || strcmp(name, server->config.name))
		(void)fuse_reply_err(req, ENOENT);
	else
		(void)fuse_reply_entry(req, &entry);
}

/* By hand, as not every libfuse knows how to allow writes in parallel. The kernel skips flags that it does not know. */
static void server_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
	struct fuse_open_out out = { .open_flags = FOPEN_DIRECT_IO | (1u << 6) /* FOPEN_PARALLEL_DIRECT_WRITES */ };

	if (ino != FILE_INODE)
		(void)fuse_reply_err(req, EISDIR);
	else if (server_of(req)->config.read_only && (fi->flags & O_ACCMODE) != O_RDONLY)
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
	struct statvfs st = { .f_bsize = BLOCK, .f_frsize = BLOCK, .f_namemax = 255 };

	(void)ino;
	st.f_blocks = device_size(server_of(req)->config.device) / BLOCK;
	(void)fuse_reply_statfs(req, &st);
}

static void server_init(void *data, struct fuse_conn_info *conn)
{
	struct fuse_server *server = data;

	conn->max_write = FUSE_TRANSFER_MAX;
	conn->max_background = server->config.depth;
	conn->congestion_threshold = server->config.depth;
	conn->want |= conn->capable & FUSE_CAP_ASYNC_DIO;
	conn->want &= ~(unsigned)(FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
				  FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_AUTO_INVAL_DATA);
}

static const struct fuse_lowlevel_ops server_handlers = {
	.init = server_init,
	.lookup = server_lookup,
	.getattr = server_getattr,
	.open = server_open,
	.release = server_release,
	.read = server_read,
	.write = server_write,
	.fsync = server_fsync,
	.fallocate = server_fallocate,
	.statfs = server_statfs,
};

static void server_handle(struct fuse_channel *channel, struct fuse_request *request, const void *message, size_t len)
{
	struct fuse_server *server = container_of(channel, struct fuse_server, channel);
	struct fuse_buf buf = { .mem = (void *)(uintptr_t)message, .size = len };
	const struct fuse_in_header *header = message;

	if (!server->hello.length && len >= sizeof(*header) && len <= FUSE_HELLO && header->opcode == FUSE_INIT) {
		memcpy(server->hello.bytes, message, len);
		server->hello.length = len;
	}
	server->current = request;
	fuse_session_process_buf(server->session, &buf);
	if (server->current)
		fuse_channel_put(request);
	server->current = NULL;
}

static void server_ended(struct fuse_channel *channel)
{
	server_end(container_of(channel, struct fuse_server, channel));
}

/* Making and ending */

static void server_free(struct fuse_server *server)
{
	if (server->session)
		fuse_session_destroy(server->session); /* closes the descriptor */
	else
		close(server->config.channel);
	fuse_channel_fini(&server->channel);
	free(server);
}

static void server_closed(struct fuse_channel *channel)
{
	struct fuse_server *server = container_of(channel, struct fuse_server, channel);
	void (*closed)(void *data) = server->closed;
	void *data = server->closed_data;

	server_free(server);
	closed(data);
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

bool fuse_server_hello(const struct fuse_server *server, struct fuse_hello *ret)
{
	*ret = server->hello;
	return server->hello.length;
}

bool fuse_hello_resends(const struct fuse_hello *hello)
{
	const struct fuse_init_in *init = (const void *)(hello->bytes + sizeof(struct fuse_in_header));

	return hello->length >= sizeof(struct fuse_in_header) + sizeof(*init) && init->flags & FUSE_INIT_EXT &&
	       init->flags2 & HAS_RESEND;
}

/* Takes the place of another server. */
static int server_succeed(struct fuse_server *server)
{
	const struct fuse_out_header resend = { .len = sizeof(resend), .error = NOTIFY_RESEND };
	struct fuse_buf buf = { .mem = server->hello.bytes, .size = server->hello.length };

	server->mute = true;
	fuse_session_process_buf(server->session, &buf);
	server->mute = false;
	if (!fuse_hello_resends(&server->hello))
		return 0;
	return write(server->config.channel, &resend, sizeof(resend)) < 0 ? -errno : 0;
}

int fuse_server_new(const struct fuse_server_config *config, struct fuse_server **ret, struct ploop_error *err)
{
	struct fuse_server *server = calloc(1, sizeof(*server));
	int r;

	assert(config->depth && config->depth <= FUSE_DEPTH_MAX);
	if (!server) {
		close(config->channel);
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "cannot serve FUSE");
	}
	server->config = *config;
	server->channel = (struct fuse_channel){
		.loop = config->loop,
		.fd = config->channel,
		.depth = config->depth,
		.handle = server_handle,
		.ended = server_ended,
		.closed = server_closed,
	};
	if (config->hello)
		server->hello = *config->hello;
	r = fuse_channel_init(&server->channel);
	if (!r)
		r = server_session(server);
	if (!r && config->hello)
		r = server_succeed(server);
	if (!r)
		r = fuse_channel_start(&server->channel);
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
	fuse_channel_close(&server->channel);
}
