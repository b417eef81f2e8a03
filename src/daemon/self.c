/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* self.c - namespace, memory, limits. */
#include "daemon/self.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "base/log.h"

#ifndef PR_SET_IO_FLUSHER
#define PR_SET_IO_FLUSHER 57
#define PR_GET_IO_FLUSHER 58
#endif

#define OPEN_FILES 65536
#define OOM_SCORE "-900"

/* In the new namespace: forgets every mount, and makes the old root ours again. */
static int empty_namespace(int root)
{
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return -errno;
	if (umount2("/", MNT_DETACH) < 0)
		return -errno;
	if (fchdir(root) < 0 || chroot(".") < 0)
		return -errno;
	return 0;
}

static int isolate(void)
{
	_close_ int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	_close_ int old = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
	int r;

	if (root < 0 || old < 0)
		return -errno;
	if (unshare(CLONE_NEWNS) < 0)
		return -errno;
	r = empty_namespace(root);
	if (r < 0 && setns(old, CLONE_NEWNS) == 0 && fchdir(root) == 0)
		(void)!chroot(".");
	return r;
}

void self_isolate(void)
{
	int r = isolate();

	if (r < 0)
		log_info("keeping the mount namespace: %s", strerror(-r));
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
