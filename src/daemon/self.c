/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* self.c - namespace, memory, limits. */
#include "daemon/self.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"
#include "control/rundir.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

#define OPEN_FILES 65536
#define OOM_SCORE "-900"

/* Makes all folders of an absolute path below `base`. */
static int make_folders(const char *base, const char *path, char ret[PATH_MAX])
{
	size_t len = strlen(base);

	if (snprintf(ret, PATH_MAX, "%s%s", base, path) >= PATH_MAX)
		return -ENAMETOOLONG;
	for (char *p = ret + len + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(ret, 0700) < 0 && errno != EEXIST)
			return -errno;
		*p = c;
		if (!c)
			return 0;
	}
}

/* In the new namespace: puts a tmpfs over /dev and, in that, the folders that we need under their names. */
static int build_refuge(void)
{
	const char *const paths[] = { "/proc", "/sys", "/dev", rundir_base(), rundir_dev() };
	int trees[ARRAY_SIZE(paths)], r = 0;
	char target[PATH_MAX];

	for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
		trees[i] = open_tree(AT_FDCWD, paths[i], OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (mount("ploopd", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0700,size=256k") < 0)
		r = -errno;
	for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
		if (r == 0)
			r = make_folders("/dev", paths[i], target);
		if (r == 0 && move_mount(trees[i], "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			r = -errno;
		if (trees[i] >= 0)
			close(trees[i]);
	}
	return r;
}

/* In the new namespace: makes the refuge its root, forgets every other mount, and makes `root` our root again. */
static int settle(int root, int *ret_refuge)
{
	_close_ int refuge = -EBADF;
	int r;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	r = build_refuge();
	if (r < 0)
		return r;
	if (chdir("/dev") < 0 || syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		return -errno;
	refuge = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (refuge < 0 || fchdir(root) < 0 || chroot(".") < 0)
		return -errno;
	*ret_refuge = take_fd(&refuge);
	return 0;
}

static int isolate(int *ret_refuge)
{
	_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_close_ int old = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	int r;

	if (root < 0 || old < 0)
		return -errno;
	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	r = settle(root, ret_refuge);
	if (r < 0 && setns(old, CLONE_NEWNS) == 0 && fchdir(root) == 0)
		(void)!chroot(".");
	return r;
}

int self_isolate(void)
{
	int refuge = -EBADF, r = isolate(&refuge);

	if (r < 0)
		log_info("keeping the mount namespace: %s", strerror(-r));
	return refuge;
}

void self_find_root(int refuge)
{
	if (refuge < 0 || access("/sys/block", F_OK) == 0)
		return;
	if (fchdir(refuge) < 0 || chroot(".") < 0)
		log_warning("the mount namespace has ended, and paths with it: %s", strerror(errno));
	else
		log_info("the mount namespace has ended; going on in our own");
}

static void raise_limit(int resource, rlim_t want)
{
	struct rlimit limit;

	if (getrlimit(resource, &limit) < 0 || limit.rlim_cur >= want)
		return;
	limit.rlim_cur = want;
	if (limit.rlim_max < want)
		limit.rlim_max = want;
	if (setrlimit(resource, &limit) < 0 && getrlimit(resource, &limit) == 0) {
		limit.rlim_cur = limit.rlim_max;
		(void)setrlimit(resource, &limit);
	}
}

static void avoid_oom(void)
{
	_close_ int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
	int r;

	r = fd < 0 ? -errno : fd_write(fd, OOM_SCORE, strlen(OOM_SCORE));
	if (r < 0)
		log_warning("the OOM killer may choose this process: %s", strerror(-r));
}

void self_protect(void)
{
	if (prctl(PR_SET_IO_FLUSHER, 1, 0, 0, 0) < 0)
		log_warning("PR_SET_IO_FLUSHER: %s; under memory pressure the device may hang", strerror(errno));
	else if (prctl(PR_GET_IO_FLUSHER, 0, 0, 0, 0) != 1)
		log_warning("PR_SET_IO_FLUSHER had no effect; under memory pressure the device may hang");
	raise_limit(RLIMIT_NOFILE, OPEN_FILES);
	raise_limit(RLIMIT_MEMLOCK, RLIM_INFINITY);
	if (mlockall(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT) < 0)
		log_warning("cannot lock memory: %s; under memory pressure the device may be slow", strerror(errno));
	avoid_oom();
}
