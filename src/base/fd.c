/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fd.c - loops over the system calls that may transfer less than was asked. */
#include "base/fd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/cleanup.h"

ssize_t fd_pread(int fd, void *buffer, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(fd, (char *)buffer + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int fd_pwrite(int fd, const void *buffer, size_t len, uint64_t offset)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(fd, (const char *)buffer + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			return -ENOSPC;
		done += (size_t)n;
	}
	return 0;
}

ssize_t fd_read(int fd, void *buffer, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = read(fd, (char *)buffer + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int fd_write(int fd, const void *buffer, size_t len)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = write(fd, (const char *)buffer + done, len - done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return 0;
}

int fd_read_file(int dirfd, const char *path, size_t limit, char **ret, size_t *ret_len)
{
	_close_ int fd = openat(dirfd, path, O_RDONLY | O_CLOEXEC);
	_free_ char *text = NULL;
	size_t room = 4096, used = 0;

	if (fd < 0)
		return -errno;
	for (;;) {
		char *more = realloc(text, room + 1);
		ssize_t n;

		if (!more)
			return -ENOMEM;
		text = more;
		n = fd_read(fd, text + used, room - used);
		if (n < 0)
			return (int)n;
		used += (size_t)n;
		if (used > limit)
			return -EFBIG;
		if (used < room)
			break;
		room *= 2;
	}
	text[used] = 0;
	*ret = take_ptr(text);
	if (ret_len)
		*ret_len = used;
	return 0;
}
