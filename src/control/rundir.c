/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* rundir.c - names are taken under one lock, directories come and go by rename. */
#include "control/rundir.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"
#include "control/node.h"

const char *rundir_base(void)
{
	const char *path = getenv("PLOOP_RUN_DIR");

	return path && *path ? path : "/run/ploop";
}

const char *rundir_dev(void)
{
	const char *path = getenv("PLOOP_DEV_DIR");

	return path && *path ? path : "/dev";
}

bool rundir_name_ok(const char *name)
{
	size_t digits;

	if (strncmp(name, "ploop", 5))
		return false;
	name += 5;
	digits = strspn(name, "0123456789");
	if (!digits || digits > 7 || name[digits] || (digits > 1 && name[0] == '0'))
		return false;
	return strtoul(name, NULL, 10) < RUNDIR_NUMBERS;
}

unsigned rundir_number(const char *name)
{
	return (unsigned)strtoul(name + 5, NULL, 10);
}

int rundir_name_of(const char *device, char ret[RUNDIR_NAME])
{
	const char *slash = strrchr(device, '/'), *name = slash ? slash + 1 : device;
	char copy[2 * RUNDIR_NAME];
	size_t len = strlen(name);

	if (len >= sizeof(copy))
		return -EINVAL;
	memcpy(copy, name, len + 1);
	if (len > 2 && !strcmp(copy + len - 2, "p1") && isdigit((unsigned char)copy[len - 3]))
		copy[len - 2] = '\0';
	if (!rundir_name_ok(copy))
		return -EINVAL;
	memcpy(ret, copy, strlen(copy) + 1);
	return 0;
}

int rundir_path(const char *name, const char *file, char ret[PATH_MAX])
{
	int n = snprintf(ret, PATH_MAX, "%s/%s%s%s", rundir_base(), name, *file ? "/" : "", file);

	return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

static int denied(const char *path, int code, enum ploop_exit status, struct ploop_error *err)
{
	if (code == -EACCES || code == -EPERM)
		return error_set(err, code, status, "%s: permission denied; devices need root", path);
	return error_sys(err, code, status, "%s", path);
}

int rundir_prepare(struct ploop_error *err)
{
	char path[PATH_MAX];

	if (rundir_base()[0] != '/' || rundir_dev()[0] != '/')
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "PLOOP_RUN_DIR and PLOOP_DEV_DIR must be absolute paths");
	/* Parents too: /run itself is there, but a test may name a fresh folder. */
	for (const char *p = rundir_base() + 1;; p++) {
		size_t len = (size_t)(p - rundir_base());

		if (*p && *p != '/')
			continue;
		if (len >= sizeof(path))
			return error_sys(err, -ENAMETOOLONG, PLOOP_EXIT_MKDIR, "%s", rundir_base());
		memcpy(path, rundir_base(), len);
		path[len] = '\0';
		/* For all to see which devices there are, whatever the umask. */
		if (mkdir(path, 0755) == 0 ? chmod(path, 0755) < 0 : errno != EEXIST)
			return denied(path, -errno, PLOOP_EXIT_MKDIR, err);
		if (!*p)
			return 0;
	}
}

static int take_lock(int *ret, struct ploop_error *err)
{
	char path[PATH_MAX];
	_close_ int fd = -EBADF;
	int r;

	r = rundir_prepare(err);
	if (r < 0)
		return r;
	r = rundir_path("lock", "", path);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_LOCK, "%s", rundir_base());
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return denied(path, -errno, PLOOP_EXIT_LOCK, err);
	while (flock(fd, LOCK_EX) < 0)
		if (errno != EINTR)
			return error_sys(err, -errno, PLOOP_EXIT_LOCK, "%s", path);
	*ret = take_fd(&fd);
	return 0;
}

/* When the process started, in ticks since boot; 0 when it is gone or only waits to be reaped. */
static unsigned long long start_of(pid_t pid)
{
	char path[64], state;
	_free_ char *text = NULL;
	unsigned long long start;
	const char *after;
	size_t len;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (fd_read_file(AT_FDCWD, path, 4096, &text, &len) < 0)
		return 0;
	after = strrchr(text, ')'); /* the name of the program may hold anything */
	if (!after ||
	    sscanf(after + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu",
		   &state, &start) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : start;
}

/* The processes that the file names, 0 for those that are dead. Returns how many it names. */
static int owners(const char *name, pid_t ret[2])
{
	unsigned long long start[2];
	char path[PATH_MAX];
	_free_ char *text = NULL;
	size_t len;
	int n;

	if (rundir_path(name, "pid", path) < 0 || fd_read_file(AT_FDCWD, path, 128, &text, &len) < 0)
		return 0;
	n = sscanf(text, "%d %llu %d %llu", &ret[0], &start[0], &ret[1], &start[1]) / 2;
	for (int i = 0; i < n; i++)
		if (ret[i] <= 0 || !start[i] || start_of(ret[i]) != start[i])
			ret[i] = 0;
	return n;
}

pid_t rundir_pid(const char *name)
{
	pid_t pids[2] = { 0 };

	(void)owners(name, pids);
	return pids[0] ? pids[0] : pids[1];
}

pid_t rundir_engine(const char *name)
{
	pid_t pids[2] = { 0 };
	int n = owners(name, pids);

	return n ? pids[n - 1] : 0;
}

static void print_owner(char *text, size_t room, pid_t pid)
{
	size_t len = strlen(text);

	if (pid)
		snprintf(text + len, room - len, "%d %llu\n", (int)pid, start_of(pid));
}

int rundir_own(const char *name, pid_t keeper, pid_t engine)
{
	char text[128] = "";

	print_owner(text, sizeof(text), keeper);
	print_owner(text, sizeof(text), engine);
	return rundir_write(name, "pid", text, strlen(text));
}

/* Makes the directory under a name nobody looks at. */
static int prepare(char path[PATH_MAX], struct ploop_error *err)
{
	char file[PATH_MAX], text[64];
	_close_ int fd = -EBADF;
	int r;

	snprintf(text, sizeof(text), ".new-%d", (int)getpid());
	r = rundir_path(text, "", path);
	if (r == 0)
		r = rundir_path(text, "pid", file);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKDIR, "%s", rundir_base());
	if (mkdir(path, 0700) < 0 && errno != EEXIST)
		return error_sys(err, -errno, PLOOP_EXIT_MKDIR, "%s", path);
	fd = open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_MKDIR, "%s", file);
	text[0] = '\0';
	print_owner(text, sizeof(text), getpid());
	r = fd_write(fd, text, strlen(text));
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "%s", file) : 0;
}

static bool exists(const char *name)
{
	char path[PATH_MAX];
	struct stat st;

	return rundir_path(name, "", path) < 0 || lstat(path, &st) == 0;
}

/* Under the lock: may the name be taken? */
static int check_free(const char *name, struct ploop_error *err)
{
	if (!exists(name))
		return node_check(name, err);
	if (rundir_pid(name))
		return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
				 "%s/%s is in use; leave out -d to get a free one, see `ploop list`", rundir_dev(),
				 name);
	return error_set(err, -EBUSY, PLOOP_EXIT_BUSY, "%s/%s is dead; clear it with `ploop umount -d %s/%s` first",
			 rundir_dev(), name, rundir_dev(), name);
}

static int choose(char ret[RUNDIR_NAME], struct ploop_error *err)
{
	for (unsigned n = 0; n < RUNDIR_NUMBERS; n++) {
		snprintf(ret, RUNDIR_NAME, "ploop%u", n);
		if (check_free(ret, NULL) == 0)
			return 0;
	}
	return error_set(err, -ENOSPC, PLOOP_EXIT_DEVICE, "no free device name in %s", rundir_dev());
}

int rundir_next(char ret[RUNDIR_NAME], struct ploop_error *err)
{
	return choose(ret, err);
}

int rundir_claim(const char *wanted, char ret[RUNDIR_NAME], struct ploop_error *err)
{
	char name[RUNDIR_NAME], from[PATH_MAX], to[PATH_MAX];
	_close_ int lock = -EBADF;
	int r;

	r = take_lock(&lock, err);
	if (r < 0)
		return r;
	if (wanted)
		snprintf(name, sizeof(name), "%s", wanted);
	r = wanted ? check_free(name, err) : choose(name, err);
	if (r < 0)
		return r;
	r = prepare(from, err);
	if (r < 0)
		return r;
	r = rundir_path(name, "", to);
	if (r == 0 && renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) < 0)
		r = -errno;
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_MKDIR, "%s", to);
	memcpy(ret, name, sizeof(name));
	return 0;
}

/* The directory is flat and ours: unlink what is in it. */
static void remove_tree(const char *path)
{
	DIR *dir = opendir(path);
	struct dirent *entry;

	while (dir && (entry = readdir(dir)))
		if (strcmp(entry->d_name, ".") && strcmp(entry->d_name, ".."))
			unlinkat(dirfd(dir), entry->d_name, 0);
	if (dir)
		closedir(dir);
	rmdir(path);
}

int rundir_remove(const char *name)
{
	char from[PATH_MAX], to[PATH_MAX], gone[64];
	_close_ int lock = -EBADF;
	int r;

	r = take_lock(&lock, NULL);
	if (r < 0)
		return r;
	snprintf(gone, sizeof(gone), ".gone-%s-%d", name, (int)getpid());
	r = rundir_path(name, "", from);
	if (r == 0)
		r = rundir_path(gone, "", to);
	if (r < 0)
		return r;
	node_remove(name);
	if (rename(from, to) < 0)
		return errno == ENOENT ? 0 : -errno;
	remove_tree(to);
	return 0;
}

static int by_number(const void *a, const void *b)
{
	unsigned x = rundir_number(a), y = rundir_number(b);

	return (x > y) - (x < y);
}

int rundir_list(char (**ret)[RUNDIR_NAME], size_t *ret_n, struct ploop_error *err)
{
	char(*names)[RUNDIR_NAME] = NULL;
	size_t n = 0, room = 0;
	struct dirent *entry;
	DIR *dir;

	dir = opendir(rundir_base());
	if (!dir && errno != ENOENT)
		return denied(rundir_base(), -errno, PLOOP_EXIT_OPEN, err);
	while (dir && (entry = readdir(dir))) {
		if (!rundir_name_ok(entry->d_name))
			continue;
		if (n == room) {
			void *bigger = reallocarray(names, room = room ? 2 * room : 16, sizeof(*names));

			if (!bigger) {
				free(names);
				closedir(dir);
				return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", rundir_base());
			}
			names = bigger;
		}
		snprintf(names[n++], RUNDIR_NAME, "%.*s", RUNDIR_NAME - 1, entry->d_name);
	}
	if (dir)
		closedir(dir);
	if (n)
		qsort(names, n, sizeof(*names), by_number);
	*ret = names;
	*ret_n = n;
	return 0;
}

int rundir_write(const char *name, const char *file, const char *text, size_t len)
{
	char path[PATH_MAX], temporary[PATH_MAX + 4];
	_close_ int fd = -EBADF;
	int r;

	r = rundir_path(name, file, path);
	if (r < 0)
		return r;
	snprintf(temporary, sizeof(temporary), "%s.new", path);
	fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	if (fd < 0)
		return -errno;
	r = fd_write(fd, text, len);
	if (r < 0)
		return r;
	return rename(temporary, path) < 0 ? -errno : 0;
}
