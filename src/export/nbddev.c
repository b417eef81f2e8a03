/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbddev.c - see nbddev.h.
 *
 * The driver disconnects a device whoever has it open, so it must not be told to before that is known, and nobody can know it for
 * longer than a moment. But it can be told to disconnect when the last user closes the device: we open it, say so, and close it.
 * If it is still there we were not the last, and take that back. What was written is in the image by then: the kernel writes a
 * device's cache back before its last close counts.
 *
 * Files in /sys come and go before the driver is done with a device. None of them makes it free: only the driver itself knows which
 * device is, and nbd_link_connect() asks no one else.
 */
#include "export/nbddev.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "export/nbd-link.h"

/* Something like udev may look at the device for a moment. */
#define DETACH_TRIES 20
#define GONE_TRIES 200
#define PAUSE_MS 50

/* How long a request may take before the kernel looks whether its socket has been replaced meanwhile, and sends it again if so: those
 * that an engine took along when it died wait for that. It costs a line in the kernel's log each time. */
#define LOOK_MS "2000"
#define TRANSFER_KIB "1024"

static void nbddev_pause(void)
{
	struct timespec time = { .tv_nsec = PAUSE_MS * 1000000L };

	nanosleep(&time, NULL);
}

static const char *nbddev_base(const char *node)
{
	const char *slash = strrchr(node, '/');

	return slash ? slash + 1 : node;
}

bool nbddev_index(const char *node, unsigned *ret)
{
	char rest;

	return sscanf(nbddev_base(node), "nbd%u%c", ret, &rest) == 1;
}

int nbddev_node(unsigned index, char node[NBDDEV_NODE])
{
	char path[64];
	_free_ char *text = NULL;
	unsigned major, minor;

	snprintf(node, NBDDEV_NODE, "/dev/nbd%u", index);
	if (!access(node, F_OK))
		return 0;
	snprintf(path, sizeof(path), "/sys/block/nbd%u/dev", index);
	if (fd_read_file(AT_FDCWD, path, 32, &text, NULL) < 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
		return -ENOENT;
	return mknod(node, S_IFBLK | 0660, makedev(major, minor)) && errno != EEXIST ? -errno : 0;
}

bool nbddev_attached(const char *node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/%s/pid", nbddev_base(node));
	return !access(path, F_OK);
}

int nbddev_identifier(const char *node, char ret[NBDDEV_IDENTIFIER])
{
	char path[64];
	_free_ char *text = NULL;

	snprintf(path, sizeof(path), "/sys/block/%s/backend", nbddev_base(node));
	if (fd_read_file(AT_FDCWD, path, NBDDEV_IDENTIFIER - 1, &text, NULL) < 0)
		return -ENOENT;
	text[strcspn(text, "\n")] = '\0';
	snprintf(ret, NBDDEV_IDENTIFIER, "%s", text);
	return 0;
}

bool nbddev_is(const char *node, const char *identifier)
{
	char is[NBDDEV_IDENTIFIER];

	if (!nbddev_attached(node))
		return false;
	return nbddev_identifier(node, is) < 0 || !strcmp(is, identifier);
}

static void nbddev_set(const char *node, const char *what, const char *value)
{
	_close_ int fd = -EBADF;
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/%s/queue/%s", nbddev_base(node), what);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0)
		(void)!write(fd, value, strlen(value));
}

/* The disk below has a scheduler of its own. */
void nbddev_tune(const char *node)
{
	nbddev_set(node, "io_timeout", LOOK_MS);
	nbddev_set(node, "scheduler", "none");
	nbddev_set(node, "max_sectors_kb", TRANSFER_KIB);
}

/* 0: disconnected, or about to be by somebody else's close. -EBUSY: others have it open, and it stays. */
static int nbddev_close_last(const char *node, unsigned index, const char *identifier)
{
	/* Refused when it, or a partition of it, is mounted or otherwise claimed. */
	_close_ int fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);
	int r;

	if (fd < 0)
		return errno == ENXIO ? 0 : -errno;
	r = nbd_link_end_on_close(index, identifier, true);
	if (r)
		return r == -EINVAL ? 0 : r;
	close(take_fd(&fd));
	if (!nbddev_is(node, identifier))
		return 0;
	r = nbd_link_end_on_close(index, identifier, false);
	if (r)
		return r == -EINVAL ? 0 : r;
	return -EBUSY;
}

int nbddev_detach(const char *node, const char *identifier, bool force)
{
	int r = -EBUSY;
	unsigned index;

	if (!nbddev_index(node, &index))
		return -EINVAL;
	if (!nbddev_is(node, identifier))
		return 0;
	if (force)
		return nbd_link_disconnect(index);
	for (unsigned i = 0; i < DETACH_TRIES && r == -EBUSY; i++) {
		if (i)
			nbddev_pause();
		r = nbddev_close_last(node, index, identifier);
	}
	for (unsigned i = 0; i < GONE_TRIES && !r && nbddev_is(node, identifier); i++)
		nbddev_pause();
	return r ? r : nbddev_is(node, identifier) ? -ETIMEDOUT : 0;
}
