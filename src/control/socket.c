/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket.c - a path of any length is reached through its folder's descriptor: sun_path has room for 107 characters only. */
#include "control/socket.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "control/rundir.h"

#define BACKLOG 64

/* Fills `address` with a path below /proc/self/fd; `*ret_dir` must stay open while it is used. */
static int address_of(const char *name, struct sockaddr_un *address, int *ret_dir)
{
	char path[PATH_MAX];
	int fd, r;

	r = rundir_path(name, "", path);
	if (r < 0)
		return r;
	fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d/control", fd);
	*ret_dir = fd;
	return 0;
}

int socket_listen(const char *name, int *ret, struct ploop_error *err)
{
	_close_ int dir = -EBADF, fd = -EBADF;
	struct sockaddr_un address;
	int r;

	r = address_of(name, &address, &dir);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "%s/%s", rundir_base(), name);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS, "socket");
	unlink(address.sun_path);
	if (fchmod(fd, 0600) < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s/%s/control", rundir_base(), name);
	*ret = take_fd(&fd);
	return 0;
}

int socket_connect(const char *name, unsigned timeout_ms, int *ret, struct ploop_error *err)
{
	struct timeval timeout = { .tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000 };
	_close_ int dir = -EBADF, fd = -EBADF;
	struct sockaddr_un address;
	int r;

	r = address_of(name, &address, &dir);
	if (r < 0)
		return error_sys(err, r, r == -ENOENT ? PLOOP_EXIT_DEVICE : PLOOP_EXIT_OPEN, "%s/%s", rundir_dev(),
				 name);
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
	    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS, "socket");
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_PROTOCOL, "%s/%s: its ploopd does not answer", rundir_dev(),
				 name);
	*ret = take_fd(&fd);
	return 0;
}

int socket_check_peer(int fd)
{
	struct ucred peer;
	socklen_t len = sizeof(peer);

	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) < 0)
		return -errno;
	return peer.uid == 0 || peer.uid == geteuid() ? 0 : -EACCES;
}
