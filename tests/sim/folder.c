/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* folder.c - see folder.h. Functions called __wrap_X are called wherever X is; __real_X is X. `dir_host` stands in for the library's. */
#include "folder.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <ploop/ploop.h>

#include "base/error.h"
#include "base/prng.h"
#include "image/dir.h"
#include "io/io.h"
#include "io/loop.h"
#include "io/sim-table.h"

#define NAMES 64
#define CHANGES 256

struct names {
	char *name[NAMES];
	unsigned file[NAMES];
	unsigned n;
};

enum change_kind { LINK, UNLINK, RENAME };

struct change {
	enum change_kind kind;
	char *from, *to;
	unsigned file;
};

static struct {
	struct sim *sim;
	struct prng prng;
	struct names now, durable;
	struct change log[CHANGES]; /* what lies between the two */
	unsigned nlog, nfiles;
} folder;

int __real_io_open(struct loop *loop, const struct io_ops *module, const char *path, unsigned flags, struct io_file **ret,
		   struct ploop_error *err);
void __real_io_close(struct io_file *file);
int __wrap_io_open(struct loop *loop, const struct io_ops *module, const char *path, unsigned flags, struct io_file **ret,
		   struct ploop_error *err);
void __wrap_io_close(struct io_file *file);
int __wrap_loop_new(const char *kind, unsigned depth, struct loop **ret, struct ploop_error *err);
int __wrap_stat64(const char *path, struct stat *ret);
int __wrap_lstat64(const char *path, struct stat *ret);
int __wrap_access(const char *path, int mode);
char *__wrap_realpath(const char *path, char *buffer);
int __wrap_lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err);
int __wrap_ploop_list(struct ploop_device **ret, size_t *ret_n, struct ploop_error *err);

/* ---- Names ---- */

static int find(const struct names *names, const char *name)
{
	for (unsigned i = 0; i < names->n; i++)
		if (!strcmp(names->name[i], name))
			return (int)i;
	return -1;
}

static void forget(struct names *names, const char *name)
{
	int i = find(names, name);

	if (i < 0)
		return;
	free(names->name[i]);
	names->n--;
	names->name[i] = names->name[names->n];
	names->file[i] = names->file[names->n];
}

static void put(struct names *names, const char *name, unsigned file)
{
	forget(names, name);
	if (names->n == NAMES)
		abort();
	names->name[names->n] = strdup(name);
	names->file[names->n++] = file;
}

static void clear(struct names *names)
{
	while (names->n)
		forget(names, names->name[0]);
}

static void copy(struct names *to, const struct names *from)
{
	clear(to);
	for (unsigned i = 0; i < from->n; i++)
		put(to, from->name[i], from->file[i]);
}

static void apply(struct names *names, const struct change *change)
{
	int from = change->from ? find(names, change->from) : -1;
	bool there = from >= 0 && names->file[from] == change->file;

	if (change->kind == LINK) {
		put(names, change->to, change->file);
	} else if (there) {
		forget(names, change->from);
		if (change->kind == RENAME)
			put(names, change->to, change->file);
	}
}

static void clear_log(void)
{
	while (folder.nlog) {
		struct change *change = &folder.log[--folder.nlog];

		free(change->from);
		free(change->to);
	}
}

/* One operation and one step of the sim. */
static int step(void)
{
	struct io_file *file;
	int r = __real_io_open(sim_loop(folder.sim), &io_sim, "#steps", IO_RDWR, &file, NULL);

	if (r < 0)
		return -EIO;
	r = io_sync(file);
	__real_io_close(file);
	return r;
}

static int change(enum change_kind kind, const char *from, const char *to, unsigned file)
{
	struct change *change = &folder.log[folder.nlog];
	int r = step();

	if (r < 0)
		return r;
	if (folder.nlog == CHANGES)
		abort();
	*change = (struct change){ .kind = kind, .from = from ? strdup(from) : NULL, .to = to ? strdup(to) : NULL, .file = file };
	folder.nlog++;
	apply(&folder.now, change);
	return 0;
}

void folder_new(uint64_t seed)
{
	struct io_file *file;

	folder.sim = sim_new(seed);
	prng_seed(&folder.prng, seed ^ 0x666f6c646572);
	if (__real_io_open(sim_loop(folder.sim), &io_sim, "#steps", IO_RDWR | IO_CREATE, &file, NULL) < 0)
		abort();
	__real_io_close(file);
}

void folder_free(void)
{
	clear(&folder.now);
	clear(&folder.durable);
	clear_log();
	sim_free(folder.sim);
	memset(&folder, 0, sizeof(folder));
}

struct sim *folder_sim(void)
{
	return folder.sim;
}

void folder_boot(void)
{
	uint64_t first = prng_below(&folder.prng, folder.nlog + 1);
	unsigned style = (unsigned)prng_below(&folder.prng, 4);

	for (unsigned i = 0; i < folder.nlog; i++)
		if (style == 0 || (style == 1 && i < first) || (style == 2 && prng_one_in(&folder.prng, 2)))
			apply(&folder.durable, &folder.log[i]);
	clear_log();
	copy(&folder.now, &folder.durable);
	sim_boot(folder.sim);
}

/* ---- Files ---- */

static const char *name_of(const char *path)
{
	size_t n = strlen(FOLDER "/");

	return strncmp(path, FOLDER "/", n) ? path : path + n;
}

/* Opened as `path`, which the caller may replace. */
static int open_file(unsigned file, unsigned flags, const char *path, struct io_file **ret, struct ploop_error *err)
{
	char name[16];
	int r;

	snprintf(name, sizeof(name), "#%u", file);
	r = __real_io_open(sim_loop(folder.sim), &io_sim, name, flags, ret, err);
	if (r == 0)
		(*ret)->path = strdup(path);
	return r;
}

int __wrap_io_open(struct loop *loop, const struct io_ops *module, const char *path, unsigned flags, struct io_file **ret,
		   struct ploop_error *err)
{
	const char *name = name_of(path);
	bool memory = !strncmp(path, "/proc/self/fd/", 14);
	int r, at = find(&folder.now, name);

	(void)loop;
	(void)module;
	if (memory)
		return open_file(folder.nfiles++, flags | IO_CREATE, path, ret, err);
	if (at >= 0 && flags & IO_CREATE)
		return error_sys(err, -EEXIST, PLOOP_EXIT_CREAT, "Can't create %s", path);
	if (at >= 0)
		return open_file(folder.now.file[at], flags, path, ret, err);
	if (!(flags & IO_CREATE))
		return error_sys(err, -ENOENT, PLOOP_EXIT_OPEN, "Can't open %s", path);
	r = change(LINK, NULL, name, folder.nfiles);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_CREAT, "Can't create %s", path)
		     : open_file(folder.nfiles++, flags, path, ret, err);
}

void __wrap_io_close(struct io_file *file)
{
	char *path = file ? file->path : NULL;

	__real_io_close(file);
	free(path);
}

int __wrap_loop_new(const char *kind, unsigned depth, struct loop **ret, struct ploop_error *err)
{
	(void)kind;
	(void)depth;
	(void)err;
	*ret = sim_loop(folder.sim);
	return 0;
}

/* ---- The folder ---- */

static int dir_open_sim(const char *path, struct dir **ret);

static void dir_close_sim(struct dir *dir)
{
	free(dir);
}

static int dir_read_sim(struct dir *dir, const char *name, size_t limit, char **ret, size_t *ret_len)
{
	int r, at = find(&folder.now, name_of(name));
	struct io_file *file;
	uint64_t size;
	char *text;

	(void)dir;
	if (at < 0)
		return -ENOENT;
	r = open_file(folder.now.file[at], IO_RDONLY, name, &file, NULL);
	if (r < 0)
		return r;
	r = io_size(file, &size);
	if (r == 0 && size > limit)
		r = -EFBIG;
	if (r == 0) {
		text = sim_alloc(size + 1);
		r = io_pread(file, text, size, 0);
		*ret_len = size;
		if (r == 0)
			*ret = text;
		else
			free(text);
	}
	__wrap_io_close(file);
	return r;
}

static int dir_unlink_sim(struct dir *dir, const char *name)
{
	int at = find(&folder.now, name_of(name));

	(void)dir;
	return at < 0 ? -ENOENT : change(UNLINK, name_of(name), NULL, folder.now.file[at]);
}

static int dir_write_sim(struct dir *dir, const char *name, const void *data, size_t len, const char *like)
{
	struct io_file *file;
	int r = dir_unlink_sim(dir, name);

	(void)like;
	if (r < 0 && r != -ENOENT)
		return r;
	r = __wrap_io_open(NULL, NULL, name, IO_RDWR | IO_CREATE, &file, NULL);
	if (r < 0)
		return r;
	r = io_pwrite(file, data, len, 0);
	if (r == 0)
		r = io_sync(file);
	__wrap_io_close(file);
	return r;
}

static int dir_rename_sim(struct dir *dir, const char *from, const char *to, bool replace)
{
	int at = find(&folder.now, name_of(from));

	(void)dir;
	if (at < 0)
		return -ENOENT;
	if (!replace && find(&folder.now, name_of(to)) >= 0)
		return -EEXIST;
	return change(RENAME, name_of(from), name_of(to), folder.now.file[at]);
}

static int dir_link_sim(struct dir *dir, const char *from, const char *to)
{
	int at = find(&folder.now, name_of(from));

	(void)dir;
	if (at < 0)
		return -ENOENT;
	return find(&folder.now, name_of(to)) >= 0 ? -EEXIST : change(LINK, NULL, name_of(to), folder.now.file[at]);
}

static int dir_sync_sim(struct dir *dir)
{
	int r = step();

	(void)dir;
	if (r < 0)
		return r;
	copy(&folder.durable, &folder.now);
	clear_log();
	return 0;
}

static int dir_list_sim(struct dir *dir, int (*each)(void *data, const char *name), void *data)
{
	struct names names = { .n = 0 };
	int r = 0;

	(void)dir;
	copy(&names, &folder.now);
	for (unsigned i = 0; i < names.n && !r; i++)
		r = each(data, names.name[i]);
	clear(&names);
	return r;
}

const struct dir_ops dir_host = {
	.name = "sim",
	.open = dir_open_sim,
	.close = dir_close_sim,
	.read = dir_read_sim,
	.write = dir_write_sim,
	.rename = dir_rename_sim,
	.unlink = dir_unlink_sim,
	.link = dir_link_sim,
	.sync = dir_sync_sim,
	.list = dir_list_sim,
};

static int dir_open_sim(const char *path, struct dir **ret)
{
	if (strcmp(path, FOLDER))
		return -ENOENT;
	*ret = sim_alloc(sizeof(**ret));
	(*ret)->ops = &dir_host;
	(*ret)->path = strdup(path);
	return 0;
}

/* ---- What is asked of the host by path ---- */

int __wrap_stat64(const char *path, struct stat *ret)
{
	int at = find(&folder.now, name_of(path));
	bool is_folder = !strcmp(path, FOLDER) || !strcmp(path, FOLDER "/");

	errno = ENOENT;
	if (at < 0 && !is_folder)
		return -1;
	*ret = (struct stat){ .st_mode = is_folder ? S_IFDIR | 0755 : S_IFREG | 0600,
			      .st_dev = 1,
			      .st_ino = is_folder ? 1 : 2 + folder.now.file[at],
			      .st_nlink = 1 };
	return 0;
}

int __wrap_lstat64(const char *path, struct stat *ret)
{
	return __wrap_stat64(path, ret);
}

int __wrap_access(const char *path, int mode)
{
	struct stat st;

	(void)mode;
	return __wrap_stat64(path, &st);
}

char *__wrap_realpath(const char *path, char *buffer)
{
	struct stat st;

	if (__wrap_stat64(path, &st) < 0)
		return NULL;
	return buffer ? strcpy(buffer, path) : strdup(path);
}

int __wrap_lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err)
{
	(void)descriptor;
	(void)wait_ms;
	(void)err;
	*ret_fd = -1;
	return 0;
}

int __wrap_ploop_list(struct ploop_device **ret, size_t *ret_n, struct ploop_error *err)
{
	(void)err;
	*ret = NULL;
	*ret_n = 0;
	return 0;
}
