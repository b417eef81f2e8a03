/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-scratch.c - unnamed files. */
#include "lib/init-scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

/* For file systems without O_TMPFILE: has a name, for a moment. */
static int open_and_unlink(const char *folder)
{
	_free_ char *path = NULL;
	int fd;

	if (asprintf(&path, "%s/.ploop-scratch-XXXXXX", folder) < 0)
		return -ENOMEM;
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return -errno;
	unlink(path);
	return fd;
}

static int open_unnamed(const char *folder)
{
	int fd = open(folder, O_RDWR | O_TMPFILE | O_CLOEXEC, 0600);

	if (fd >= 0)
		return fd;
	if (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL || errno == ENOENT)
		return open_and_unlink(folder);
	return -errno;
}

int scratch_open_memory(uint64_t size, int *ret_fd, struct ploop_error *err)
{
	_close_ int fd = memfd_create("ploop-scratch", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_CREAT, "no memory for a scratch file");
	*ret_fd = take_fd(&fd);
	return 0;
}

int scratch_open(const char *beside, uint64_t size, int *ret_fd, struct ploop_error *err)
{
	_free_ char *copy = strdup(beside);
	_close_ int fd = -EBADF;
	const char *folder;

	if (!copy)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", beside);
	folder = dirname(copy);
	fd = open_unnamed(folder);
	if (fd < 0)
		return error_sys(err, fd, PLOOP_EXIT_CREAT, "%s: cannot make a scratch file in this folder", folder);
	if (ftruncate(fd, (off_t)size) < 0) {
		/* Some file systems have a largest file below the largest disk (ext4: 16 TiB); memory has not. */
		if (errno == EFBIG)
			return scratch_open_memory(size, ret_fd, err);
		return error_sys(err, -errno, PLOOP_EXIT_FTRUNCATE, "%s: cannot make a scratch file of %llu bytes",
				 folder, (unsigned long long)size);
	}
	*ret_fd = take_fd(&fd);
	return 0;
}
