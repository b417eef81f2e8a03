/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * freeze.c - a frozen file system stays so when its freezer dies, so one process more watches over it: a child that was
 * there before the first file system froze, in a session of its own, deaf to signals. It holds the mount points and one end
 * of a pipe. It thaws
 *  - when the other end is closed: by freeze_end(), or by the kernel when we die, however we die;
 *  - and after FREEZE_SECONDS whatever happens, as often as it takes. (Tests set less by PLOOP_FREEZE_SECONDS.)
 * When the child itself is killed, freeze_end() thaws.
 */
#include "lib/freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/freeze-mounts.h"

#define FREEZE_SECONDS 10
#define FREEZE_AGAIN_MS 500

struct freeze {
	pid_t watchdog; /* 0: none yet */
	int pipe;       /* closing it thaws */
	struct open_mounts mounts;
	/* So many of them, the first ones, are frozen by us, or are just about to be. Shared with the child. */
	volatile unsigned *frozen;
};

static void thaw_all(const struct freeze *freeze)
{
	for (unsigned i = *freeze->frozen; i-- > 0;)
		(void)ioctl(freeze->mounts.fds[i], FITHAW, 0); /* EINVAL: it was not frozen */
}

/* Everything that we have open but what the child needs: also the disk's lock, which must not outlive us. */
static void keep_only(const struct freeze *freeze, int pipe)
{
	int highest = pipe;

	for (unsigned i = 0; i < freeze->mounts.n; i++)
		highest = freeze->mounts.fds[i] > highest ? freeze->mounts.fds[i] : highest;
	for (int fd = 0; fd <= highest; fd++) {
		bool needed = fd == pipe;

		for (unsigned i = 0; i < freeze->mounts.n; i++)
			needed = needed || fd == freeze->mounts.fds[i];
		if (!needed)
			close(fd);
	}
	close_range((unsigned)highest + 1, ~0u, 0);
}

static int freeze_ms(void)
{
	const char *text = secure_getenv("PLOOP_FREEZE_SECONDS");
	long seconds = text ? strtol(text, NULL, 10) : 0;

	return 1000 * (seconds > 0 && seconds < FREEZE_SECONDS ? (int)seconds : FREEZE_SECONDS);
}

/* The child. Its exit status tells whether it had to act by itself. */
static _Noreturn void watch(const struct freeze *freeze, int pipe)
{
	struct pollfd wait = { .fd = pipe };
	int timeout = freeze_ms(), late = 0;

	setsid();
	keep_only(freeze, pipe);
	while (poll(&wait, 1, timeout) == 0) {
		/* Again and again: a freeze that takes long may only then come to its end. */
		thaw_all(freeze);
		timeout = FREEZE_AGAIN_MS;
		late = 1;
	}
	thaw_all(freeze);
	_exit(late);
}

/* All signals are blocked while the child is made, so that it is born deaf. */
static int start_watchdog(struct freeze *freeze)
{
	sigset_t all, old;
	int ends[2], r = 0;

	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &old);
	freeze->watchdog = fork();
	if (freeze->watchdog == 0)
		watch(freeze, ends[0]);
	if (freeze->watchdog < 0) {
		r = -errno;
		freeze->watchdog = 0;
	}
	sigprocmask(SIG_SETMASK, &old, NULL);
	close(ends[0]);
	freeze->pipe = ends[1];
	return r;
}

static struct freeze *freeze_new(void)
{
	struct freeze *freeze = calloc(1, sizeof(*freeze));

	if (!freeze)
		return NULL;
	freeze->pipe = -EBADF;
	freeze->frozen = mmap(NULL, sizeof(*freeze->frozen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (freeze->frozen == MAP_FAILED) {
		free(freeze);
		return NULL;
	}
	return freeze;
}

static int freeze_all(struct freeze *freeze, const struct ploop_device *device, struct ploop_error *err)
{
	for (unsigned i = 0; i < freeze->mounts.n; i++) {
		*freeze->frozen = i + 1;
		if (ioctl(freeze->mounts.fds[i], FIFREEZE, 0) == 0)
			continue;
		*freeze->frozen = i;
		if (errno == EOPNOTSUPP)
			return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_DEVIOC,
					 "%s: its file system is of a kind that cannot be frozen; --no-freeze takes the "
					 "snapshot all the same",
					 device->device);
		if (errno == EBUSY) /* thawing it is for whoever froze it */
			return error_set(err, -EBUSY, PLOOP_EXIT_BUSY,
					 "%s: its file system is frozen by somebody else; --no-freeze takes the snapshot "
					 "all the same",
					 device->device);
		return error_sys(err, -errno, PLOOP_EXIT_DEVIOC, "%s: Can't freeze its file system", device->device);
	}
	return 0;
}

int freeze_start(const struct ploop_device *device, const char *folder, struct freeze **ret, struct ploop_error *err)
{
	struct freeze *freeze;
	struct stat st;
	int r;

	*ret = NULL;
	if (stat(folder, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", folder);
	freeze = freeze_new();
	if (!freeze)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	r = open_mounts_find(device->node, st.st_dev, &freeze->mounts);
	if (r < 0)
		error_sys(err, r, PLOOP_EXIT_SYS, "%s: Can't find its mount points", device->device);
	if (r == 0 && freeze->mounts.n) {
		r = start_watchdog(freeze);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_SYS, "%s: nobody could thaw its file system", device->device);
	}
	if (r == 0)
		r = freeze_all(freeze, device, err);
	if (r < 0) {
		freeze_end(freeze);
		return r;
	}
	*ret = freeze;
	return 0;
}

int freeze_end(struct freeze *freeze)
{
	bool late = false;
	int status;

	if (!freeze)
		return 0;
	cleanup_close(&freeze->pipe);
	if (freeze->watchdog) {
		pid_t pid;

		while ((pid = waitpid(freeze->watchdog, &status, 0)) < 0 && errno == EINTR)
			;
		late = pid == freeze->watchdog && WIFEXITED(status) && WEXITSTATUS(status);
		thaw_all(freeze);
	}
	open_mounts_clear(&freeze->mounts);
	munmap((void *)freeze->frozen, sizeof(*freeze->frozen));
	free(freeze);
	return late ? -ETIMEDOUT : 0;
}
