/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * dir.h - the folder of a disk: how its small files (descriptor, journal, temporary names) are read, atomically
 * replaced, renamed and removed.
 *
 * A seam, so that operations on several files can be cut at every step by the simulated disk of the tests. `host` is
 * the real file system.
 *
 * Names are relative to the folder, or absolute where a descriptor says so. What callers may rely on:
 *  1. After dir_write() the content is durable, its name is not.
 *  2. Renames and removals are atomic each; they and new names are durable after dir_sync() of the folder they are
 *     in.
 *  3. After dir_replace() the file is, whatever happens, wholly old or wholly new, and durably new when 0 was
 *     returned.
 */
#ifndef IMAGE_DIR_H
#define IMAGE_DIR_H

#include <stdbool.h>
#include <stddef.h>

struct ploop_error;
struct dir;

struct dir_ops {
	const char *name;
	/* Opens the folder and fills *ret with a struct that embeds struct dir first. Required. */
	int (*open)(const char *path, struct dir **ret);
	void (*close)(struct dir *dir);
	/* Reads a file whole and adds a NUL; -EFBIG when it is longer than `limit`, -EINVAL when it is no plain file.
	 * Required. */
	int (*read)(struct dir *dir, const char *name, size_t limit, char **ret, size_t *ret_len);
	/* Makes or replaces a file, not atomically; syncs it. Mode and owner are those of the file `like`, if it is
	 * there; NULL or no such file: 0644. Required. */
	int (*write)(struct dir *dir, const char *name, const void *data, size_t len, const char *like);
	/* With `replace` unset -EEXIST when `to` is there. Required. */
	int (*rename)(struct dir *dir, const char *from, const char *to, bool replace);
	int (*unlink)(struct dir *dir, const char *name);
	/* Gives a file a second name; -EEXIST when `to` is there. Required. */
	int (*link)(struct dir *dir, const char *from, const char *to);
	int (*sync)(struct dir *dir);
	/* Calls each(data, name) for every name in the folder until it returns other than 0, and returns that.
	 * Required. */
	int (*list)(struct dir *dir, int (*each)(void *data, const char *name), void *data);
	/*
	 * Finds the file that `name` means and returns a descriptor of it, opened by path alone (O_PATH). `beneath`:
	 * -EXDEV when it lies outside the folder, links followed. NULL: there are no descriptors here, and no locks
	 * (sim).
	 */
	int (*locate)(struct dir *dir, const char *name, bool beneath, int *ret_fd);
};

/* An open folder. Implementations embed it first. */
struct dir {
	const struct dir_ops *ops;
	char *path; /* owned */
};

extern const struct dir_ops dir_host;

/* `ops` NULL means the host. */
int dir_open(const struct dir_ops *ops, const char *path, struct dir **ret, struct ploop_error *err);

/* Opens the folder that `file` is in; *ret_name points into `file` at its last component. */
int dir_open_parent(const struct dir_ops *ops, const char *file, struct dir **ret, const char **ret_name,
		    struct ploop_error *err);
void dir_close(struct dir *dir); /* NULL is accepted */

/* 0 or a negative errno; the caller says which file and why. */
int dir_read(struct dir *dir, const char *name, size_t limit, char **ret, size_t *ret_len);
int dir_write(struct dir *dir, const char *name, const void *data, size_t len, const char *like);
int dir_rename(struct dir *dir, const char *from, const char *to);
int dir_unlink(struct dir *dir, const char *name);
int dir_link(struct dir *dir, const char *from, const char *to);
int dir_sync(struct dir *dir);
int dir_list(struct dir *dir, int (*each)(void *data, const char *name), void *data);
bool dir_exists(struct dir *dir, const char *name);

/* Atomically and durably gives `name` this content, by way of `name`.tmp. */
int dir_replace(struct dir *dir, const char *name, const void *data, size_t len);
/* The same for a file that must not be there yet: -EEXIST. */
int dir_create(struct dir *dir, const char *name, const void *data, size_t len);

/* "folder/name", or `name` itself when that is absolute. NULL when there is no memory. The caller frees. */
char *dir_path(const struct dir *dir, const char *name);

#define _dir_close_ __attribute__((cleanup(dir_closep)))
static inline void dir_closep(struct dir **dir)
{
	dir_close(*dir);
}

#endif
