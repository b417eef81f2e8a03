/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * freeze.c - a frozen file system stays so when its freezer dies, so one process more watches over it: a child that was
 * there before the first file system froze, in a session of its own, deaf to signals. It holds the mount points and one end
 * of a pipe. It thaws
 *  - when the other end is closed: by freeze_end(), or by the kernel when we die, however we die;
 *  - and after FREEZE_SECONDS whatever happens, as often as it takes.
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
#include "base/log.h"

#define FREEZE_SECONDS 10
#define FREEZE_AGAIN_MS 500

struct freeze {
	pid_t watchdog; /* 0: none yet */
	int pipe;       /* closing it thaws */
	int *mounts;    /* open mount points, each of another file system */
	dev_t *numbers;
	unsigned n;
	/* So many of them, the first ones, are frozen by us, or are just about to be. Shared with the child. */
	volatile unsigned *frozen;
};

static void thaw_all(const struct freeze *freeze)
{
	for (unsigned i = *freeze->frozen; i-- > 0;)
		(void)ioctl(freeze->mounts[i], FITHAW, 0); /* EINVAL: it was not frozen */
}

/* Everything that we have open but what the child needs: also the disk's lock, which must not outlive us. */
static void keep_only(const struct freeze *freeze, int pipe)
{
	int highest = pipe;

	for (unsigned i = 0; i < freeze->n; i++)
		highest = freeze->mounts[i] > highest ? freeze->mounts[i] : highest;
	for (int fd = 0; fd <= highest; fd++) {
		bool needed = fd == pipe;

		for (unsigned i = 0; i < freeze->n; i++)
			needed = needed || fd == freeze->mounts[i];
		if (!needed)
			close(fd);
	}
	close_range((unsigned)highest + 1, ~0u, 0);
}

/* The child. Its exit status tells whether it had to act by itself. */
static _Noreturn void watch(const struct freeze *freeze, int pipe)
{
	struct pollfd wait = { .fd = pipe };
	int timeout = FREEZE_SECONDS * 1000, late = 0;

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

/* Opens a mount point, unless it is of a file system that we have already, or of the one that holds `folder`. */
static int add_mount(struct freeze *freeze, const char *target, const struct stat *folder)
{
	_close_ int fd = open(target, O_RDONLY | O_DIRECTORY | O_NONBLOCK | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == ENOTDIR ? 0 : -errno;
	if (st.st_dev == folder->st_dev) {
		log_warning("%s holds the image itself: its file system is not frozen", target);
		return 0;
	}
	for (unsigned i = 0; i < freeze->n; i++)
		if (freeze->numbers[i] == st.st_dev)
			return 0;
	freeze->numbers[freeze->n] = st.st_dev;
	freeze->mounts[freeze->n++] = take_fd(&fd);
	return 0;
}

static struct freeze *freeze_new(size_t n)
{
	struct freeze *freeze = calloc(1, sizeof(*freeze));

	if (!freeze)
		return NULL;
	freeze->pipe = -EBADF;
	freeze->frozen = MAP_FAILED;
	freeze->mounts = calloc(n, sizeof(*freeze->mounts));
	freeze->numbers = calloc(n, sizeof(*freeze->numbers));
	freeze->frozen = mmap(NULL, sizeof(*freeze->frozen), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (!freeze->mounts || !freeze->numbers || freeze->frozen == MAP_FAILED) {
		freeze_end(freeze);
		return NULL;
	}
	return freeze;
}

static int freeze_all(struct freeze *freeze, const struct ploop_device *device, struct ploop_error *err)
{
	for (unsigned i = 0; i < freeze->n; i++) {
		*freeze->frozen = i + 1;
		if (ioctl(freeze->mounts[i], FIFREEZE, 0) == 0)
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
	int r = 0;

	*ret = NULL;
	if (!device->nmounts)
		return 0;
	if (stat(folder, &st) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", folder);
	freeze = freeze_new(device->nmounts);
	if (!freeze)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", device->device);
	for (size_t i = 0; i < device->nmounts && r == 0; i++) {
		r = add_mount(freeze, device->mounts[i], &st);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_OPEN, "Can't open %s", device->mounts[i]);
	}
	if (r == 0 && freeze->n) {
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
	for (unsigned i = 0; i < freeze->n; i++)
		close(freeze->mounts[i]);
	if (freeze->frozen != MAP_FAILED)
		munmap((void *)freeze->frozen, sizeof(*freeze->frozen));
	free(freeze->mounts);
	free(freeze->numbers);
	free(freeze);
	return late ? -ETIMEDOUT : 0;
}
