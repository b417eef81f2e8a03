/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dir-host.c - a folder of the real file system, held open so that it stays the same one whatever is renamed above
 * it. */
#include "image/dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

struct host {
	struct dir dir;
	int fd;
};

static int host_fd(const struct dir *dir)
{
	return ((const struct host *)dir)->fd;
}

static int host_open(const char *path, struct dir **ret)
{
	_close_
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	_free_
	char *real = NULL;
	struct host *host;

	if (fd < 0)
		return -errno;
	real = realpath(path, NULL);
	if (!real)
		return -errno;
	host = calloc(1, sizeof(*host));
	if (!host)
		return -ENOMEM;
	host->dir.ops = &dir_host;
	host->dir.path = take_ptr(real);
	host->fd = take_fd(&fd);
	*ret = &host->dir;
	return 0;
}

static void host_close(struct dir *dir)
{
	close(host_fd(dir));
	free(dir);
}

static int host_read(struct dir *dir, const char *name, size_t limit, char **ret, size_t *ret_len)
{
	/* O_NONBLOCK: a FIFO in the place of the file must not stop us. */
	_close_
	int fd = openat(host_fd(dir), name, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	_free_
	char *text = NULL;
	struct stat st;
	ssize_t n;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (!S_ISREG(st.st_mode))
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if ((uint64_t)st.st_size > limit)
		return -EFBIG;
	text = malloc((size_t)st.st_size + 1);
	if (!text)
		return -ENOMEM;
	n = fd_pread(fd, text, (size_t)st.st_size, 0);
	if (n < 0)
		return (int)n;
	text[n] = 0;
	*ret = take_ptr(text);
	*ret_len = (size_t)n;
	return 0;
}

static int host_write(struct dir *dir, const char *name, const void *data, size_t len, const char *like)
{
	_close_
	int fd = -EBADF;
	struct stat st;
	bool old = like && !fstatat(host_fd(dir), like, &st, 0);
	int r;

	/* Removed first, so that a link planted under this name is never written through. */
	if (unlinkat(host_fd(dir), name, 0) < 0 && errno != ENOENT)
		return -errno;
	fd = openat(host_fd(dir), name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0644);
	if (fd < 0)
		return -errno;
	if (old && fchmod(fd, st.st_mode & 07777) < 0)
		return -errno;
	/* Only root can give a file away; anybody else keeps it as his own. */
	if (old && (st.st_uid != geteuid() || st.st_gid != getegid()) && fchown(fd, st.st_uid, st.st_gid) < 0 &&
	    errno != EPERM)
		return -errno;
	r = fd_write(fd, data, len);
	if (r < 0)
		return r;
	return fsync(fd) < 0 ? -errno : 0;
}

/* Where renameat2 cannot refuse to replace (some network file systems), a hard link can. */
static int host_rename_new(int fd, const char *from, const char *to)
{
	if (!renameat2(fd, from, fd, to, RENAME_NOREPLACE))
		return 0;
	if (errno != EINVAL && errno != ENOSYS)
		return -errno;
	if (linkat(fd, from, fd, to, 0) < 0)
		return -errno;
	return unlinkat(fd, from, 0) < 0 ? -errno : 0;
}

static int host_rename(struct dir *dir, const char *from, const char *to, bool replace)
{
	int fd = host_fd(dir);

	if (!replace)
		return host_rename_new(fd, from, to);
	return renameat(fd, from, fd, to) < 0 ? -errno : 0;
}

static int host_unlink(struct dir *dir, const char *name)
{
	return unlinkat(host_fd(dir), name, 0) < 0 ? -errno : 0;
}

static int host_link(struct dir *dir, const char *from, const char *to)
{
	return linkat(host_fd(dir), from, host_fd(dir), to, 0) < 0 ? -errno : 0;
}

static int host_sync(struct dir *dir)
{
	if (!fsync(host_fd(dir)))
		return 0;
	/* Some file systems have no fsync of folders, and then need none. */
	return errno == EINVAL || errno == ENOTSUP ? 0 : -errno;
}

static int host_list(struct dir *dir, int (*each)(void *data, const char *name), void *data)
{
	int fd = openat(host_fd(dir), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	struct dirent *entry;
	DIR *stream;
	int r = 0;

	if (fd < 0)
		return -errno;
	stream = fdopendir(fd);
	if (!stream) {
		r = -errno;
		close(fd);
		return r;
	}
	while (!r && (errno = 0, entry = readdir(stream)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			r = each(data, entry->d_name);
	if (!r && errno)
		r = -errno;
	closedir(stream);
	return r;
}

/* The path that the kernel has for an open file. */
static int host_real_path(int fd, char *path, size_t room)
{
	char link[64];
	ssize_t n;

	snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
	n = readlink(link, path, room - 1);
	if (n < 0)
		return -errno;
	path[n] = 0;
	return 0;
}

/*
 * Whether an open file lies inside an open folder. Both are asked where they are now, after all links were followed,
 * so that nothing can be exchanged between the question and the use.
 */
static int host_beneath(int folder, int fd)
{
	char outer[PATH_MAX], inner[PATH_MAX];
	size_t len;
	int r;

	r = host_real_path(folder, outer, sizeof(outer));
	if (!r)
		r = host_real_path(fd, inner, sizeof(inner));
	if (r < 0)
		return r;
	len = strlen(outer);
	if (len == 1)
		return 0;
	return !strncmp(outer, inner, len) && inner[len] == '/' ? 0 : -EXDEV;
}

static int host_locate(struct dir *dir, const char *name, bool beneath, int *ret_fd)
{
	_close_
	int fd = openat(host_fd(dir), name, O_PATH | O_CLOEXEC);
	int r;

	if (fd < 0)
		return -errno;
	r = beneath ? host_beneath(host_fd(dir), fd) : 0;
	if (r < 0)
		return r;
	*ret_fd = take_fd(&fd);
	return 0;
}

const struct dir_ops dir_host = {
	.name = "host",
	.open = host_open,
	.close = host_close,
	.read = host_read,
	.write = host_write,
	.rename = host_rename,
	.unlink = host_unlink,
	.link = host_link,
	.sync = host_sync,
	.list = host_list,
	.locate = host_locate,
};
