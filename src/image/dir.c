/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* dir.c - what all kinds of folders share: opening, and files replaced in one step. */
#include "image/dir.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"

int dir_open(const struct dir_ops *ops, const char *path, struct dir **ret, struct ploop_error *err)
{
	int r = (ops ? ops : &dir_host)->open(path, ret);

	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open the folder %s", path);
	return 0;
}

int dir_open_parent(const struct dir_ops *ops, const char *file, struct dir **ret, const char **ret_name,
		    struct ploop_error *err)
{
	const char *slash = strrchr(file, '/');
	_free_
	char *folder = NULL;
	int r;

	if (!slash)
		folder = strdup(".");
	else if (slash == file)
		folder = strdup("/");
	else
		folder = strndup(file, (size_t)(slash - file));
	if (!folder)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", file);
	r = dir_open(ops, folder, ret, err);
	if (r < 0)
		return r;
	*ret_name = slash ? slash + 1 : file;
	return 0;
}

void dir_close(struct dir *dir)
{
	if (!dir)
		return;
	free(take_ptr(dir->path));
	dir->ops->close(dir);
}

int dir_read(struct dir *dir, const char *name, size_t limit, char **ret, size_t *ret_len)
{
	return dir->ops->read(dir, name, limit, ret, ret_len);
}

int dir_write(struct dir *dir, const char *name, const void *data, size_t len, const char *like)
{
	return dir->ops->write(dir, name, data, len, like);
}

int dir_rename(struct dir *dir, const char *from, const char *to)
{
	return dir->ops->rename(dir, from, to, true);
}

int dir_unlink(struct dir *dir, const char *name)
{
	return dir->ops->unlink(dir, name);
}

int dir_link(struct dir *dir, const char *from, const char *to)
{
	return dir->ops->link(dir, from, to);
}

int dir_sync(struct dir *dir)
{
	return dir->ops->sync(dir);
}

int dir_list(struct dir *dir, int (*each)(void *data, const char *name), void *data)
{
	return dir->ops->list(dir, each, data);
}

static int dir_is(void *data, const char *name)
{
	return !strcmp(data, name);
}

bool dir_exists(struct dir *dir, const char *name)
{
	return dir_list(dir, dir_is, (void *)name) == 1;
}

static int dir_put(struct dir *dir, const char *name, const void *data, size_t len, bool replace)
{
	_free_
	char *tmp = NULL;
	int r;

	if (asprintf(&tmp, "%s.tmp", name) < 0)
		return -ENOMEM;
	r = dir_write(dir, tmp, data, len, name);
	if (!r)
		r = dir->ops->rename(dir, tmp, name, replace);
	if (r < 0) {
		dir_unlink(dir, tmp);
		return r;
	}
	return dir_sync(dir);
}

int dir_replace(struct dir *dir, const char *name, const void *data, size_t len)
{
	return dir_put(dir, name, data, len, true);
}

int dir_create(struct dir *dir, const char *name, const void *data, size_t len)
{
	return dir_put(dir, name, data, len, false);
}

char *dir_path(const struct dir *dir, const char *name)
{
	char *path;

	if (*name == '/')
		return strdup(name);
	if (asprintf(&path, "%s/%s", strcmp(dir->path, "/") ? dir->path : "", name) < 0)
		return NULL;
	return path;
}
