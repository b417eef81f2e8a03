/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* descriptor-file.c - finds descriptors in the file system, and the files that they name. */
#include "image/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "image/dir.h"

static bool has_suffix(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len >= n && !strcmp(text + len - n, suffix);
}

/* Whether a file starts as XML does; no image does. */
static bool starts_as_xml(const char *path)
{
	_close_
	int fd = open(path, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	char head[64];
	ssize_t n = fd < 0 ? 0 : fd_pread(fd, head, sizeof(head) - 1, 0);
	const char *at = head;

	head[n < 0 ? 0 : n] = 0;
	if (!strncmp(at, "\xef\xbb\xbf", 3))
		at += 3;
	at += strspn(at, " \t\r\n");
	return !strncmp(at, "<?xml", 5) || !strncmp(at, "<Parallels_disk_image", 21) ||
	       !strncmp(at, "<Virtuozzo_disk_image", 21);
}

int descriptor_find_file(const char *operand, char **ret, struct ploop_error *err)
{
	_free_
	char *inside = NULL;
	const char *path = operand;
	struct stat st;
	char *real;

	if (stat(operand, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", operand);
	if (S_ISDIR(st.st_mode)) {
		if (asprintf(&inside, "%s/%s", operand, DESCRIPTOR_NAME) < 0)
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", operand);
		path = inside;
	} else if (!S_ISREG(st.st_mode) || (!has_suffix(operand, ".xml") && !starts_as_xml(operand))) {
		return 0;
	}
	real = realpath(path, NULL);
	if (!real)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", path);
	*ret = real;
	return 1;
}

int descriptor_read(struct dir *dir, const char *name, struct descriptor **ret, struct ploop_error *err)
{
	_free_
	char *path = dir_path(dir, name);
	_free_
	char *text = NULL;
	size_t len;
	int r;

	if (!path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	r = dir_read(dir, name, DESCRIPTOR_MAX_TEXT, &text, &len);
	if (r == -EFBIG)
		return error_set(err, r, PLOOP_EXIT_DISKDESCR, "Can't parse %s: it is longer than %u MiB", path,
				 DESCRIPTOR_MAX_TEXT >> 20);
	if (r == -EINVAL)
		return error_set(err, r, PLOOP_EXIT_DISKDESCR, "Can't parse %s: it is not a regular file", path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", path);
	return descriptor_parse(text, len, path, ret, err);
}

int descriptor_open(const char *path, struct descriptor **ret, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	_free_
	char *real = NULL;
	const char *name;
	int r = descriptor_find_file(path, &real, err);

	if (r < 0)
		return r;
	r = dir_open_parent(NULL, real ? real : path, &dir, &name, err);
	if (r < 0)
		return r;
	return descriptor_read(dir, name, ret, err);
}

char *descriptor_file(const struct descriptor *d, const struct snapshot *snapshot)
{
	const char *slash = strrchr(d->path, '/');
	char *path;

	if (*snapshot->file == '/' || !slash)
		return strdup(snapshot->file);
	if (asprintf(&path, "%.*s/%s", (int)(slash - d->path), d->path, snapshot->file) < 0)
		return NULL;
	return path;
}
