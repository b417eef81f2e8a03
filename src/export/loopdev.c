/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* loopdev.c - see loopdev.h. */
#include "export/loopdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/fd.h"

#define LOOP_MAJOR 7
#define ATTACH_TRIES 64
/* Something like udev may look at the device for a moment. */
#define DETACH_TRIES 20
#define GONE_TRIES 200
#define PAUSE_MS 50

static void loopdev_pause(void)
{
	struct timespec time = { .tv_nsec = PAUSE_MS * 1000000L };

	nanosleep(&time, NULL);
}

static const char *loopdev_base(const char *node)
{
	const char *slash = strrchr(node, '/');

	return slash ? slash + 1 : node;
}

int loopdev_usable(struct ploop_error *err)
{
	_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

	if (control < 0)
		return error_sys(err, -errno, PLOOP_EXIT_DEVICE,
				 "cannot open /dev/loop-control (load the kernel module 'loop', be root)");
	return 0;
}

/* Where no devtmpfs and no udev make the node, we do. */
static int loopdev_open_number(int number, char node[LOOPDEV_NODE], int flags)
{
	int fd;

	snprintf(node, LOOPDEV_NODE, "/dev/loop%d", number);
	fd = open(node, flags | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !mknod(node, S_IFBLK | 0660, makedev(LOOP_MAJOR, (unsigned)number)))
		fd = open(node, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* The free device that the kernel names can be taken by somebody else in between: -EBUSY, try again. */
static int loopdev_try_attach(int control, const struct loop_config *config, char node[LOOPDEV_NODE])
{
	int number = ioctl(control, LOOP_CTL_GET_FREE);
	_close_ int fd = -EBADF;

	if (number < 0)
		return -errno;
	fd = loopdev_open_number(number, node, config->info.lo_flags & LO_FLAGS_READ_ONLY ? O_RDONLY : O_RDWR);
	if (fd < 0)
		return fd;
	return ioctl(fd, LOOP_CONFIGURE, config) ? -errno : 0;
}

/* The kernel ignores the flag where it thinks that direct I/O cannot work: tell, it would be slow and could deadlock. */
static int loopdev_check_direct(const char *node, struct ploop_error *err)
{
	char path[64];
	_free_ char *text = NULL;
	int r;

	snprintf(path, sizeof(path), "/sys/block/%s/loop/dio", loopdev_base(node));
	r = fd_read_file(AT_FDCWD, path, 16, &text, NULL);
	if (!r && text[0] == '1')
		return 0;
	return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_LOOP, "%s does not do direct I/O (%s is not 1)", node, path);
}

int loopdev_attach(const struct loopdev_params *params, char node[LOOPDEV_NODE], struct ploop_error *err)
{
	_close_ int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {
		.fd = (uint32_t)params->file,
		.block_size = params->block,
		.info.lo_flags = LO_FLAGS_DIRECT_IO | LO_FLAGS_PARTSCAN |
				 (params->read_only ? LO_FLAGS_READ_ONLY : 0),
	};
	int r = -EBUSY;

	if (control < 0)
		return loopdev_usable(err);
	snprintf((char *)config.info.lo_file_name, sizeof(config.info.lo_file_name), "%s", params->name);
	for (unsigned i = 0; i < ATTACH_TRIES && r == -EBUSY; i++)
		r = loopdev_try_attach(control, &config, node);
	if (r)
		return error_sys(err, r, PLOOP_EXIT_LOOP, "%s: cannot set up a loop device", params->name);
	r = loopdev_check_direct(node, err);
	if (r)
		(void)loopdev_detach(node, &(struct loopdev_identity){ 0 }, true);
	return r;
}

bool loopdev_attached(const char *node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/%s/loop", loopdev_base(node));
	return !access(path, F_OK);
}

/* A device whose server is dead cannot say what it is attached to; ENXIO alone means "to nothing". */
static bool loopdev_is(int fd, const struct loopdev_identity *identity)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		return errno != ENXIO;
	return !identity->inode || (info.lo_device == identity->device && info.lo_inode == identity->inode);
}

/* LOOP_CLR_FD found another opener and has left an order to detach on the last close. Takes it back. */
static void loopdev_stay(int fd)
{
	struct loop_info64 info;

	if (ioctl(fd, LOOP_GET_STATUS64, &info))
		return;
	info.lo_flags &= ~(uint32_t)LO_FLAGS_AUTOCLEAR;
	(void)ioctl(fd, LOOP_SET_STATUS64, &info);
}

/* 0: detached (it is gone once `fd` is closed) or not ours. -EBUSY: others have it open. */
static int loopdev_clear(int fd, const struct loopdev_identity *identity, bool force)
{
	if (!loopdev_is(fd, identity))
		return 0;
	if (ioctl(fd, LOOP_CLR_FD))
		return errno == ENXIO ? 0 : -errno;
	if (force || !loopdev_is(fd, identity))
		return 0;
	loopdev_stay(fd);
	return -EBUSY;
}

/* That there is no such node is the end of the device only when sysfs says the same: our /dev may be somebody else's. */
static bool loopdev_is_removed(const char *node)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/%s", loopdev_base(node));
	return !access("/sys/block", F_OK) && access(path, F_OK);
}

static int loopdev_try_detach(const char *node, const struct loopdev_identity *identity, bool force)
{
	/* Refused when it, or a partition of it, is mounted or otherwise claimed. */
	_close_ int fd = open(node, O_RDONLY | O_EXCL | O_CLOEXEC);

	if (fd < 0 && errno == EBUSY && force)
		fd = open(node, O_RDONLY | O_CLOEXEC);
	if (fd < 0 && errno == ENOENT && !loopdev_is_removed(node))
		return -ENOENT;
	if (fd < 0)
		return errno == ENXIO || errno == ENOENT ? 0 : -errno;
	return loopdev_clear(fd, identity, force);
}

static bool loopdev_still(const char *node, const struct loopdev_identity *identity)
{
	_close_ int fd = -EBADF;

	if (!loopdev_attached(node))
		return false;
	fd = open(node, O_RDONLY | O_CLOEXEC);
	return fd >= 0 && loopdev_is(fd, identity);
}

int loopdev_detach(const char *node, const struct loopdev_identity *identity, bool force)
{
	int r = -EBUSY;

	for (unsigned i = 0; i < DETACH_TRIES && r == -EBUSY; i++) {
		if (i)
			loopdev_pause();
		r = loopdev_try_detach(node, identity, force);
	}
	if (r || force)
		return r;
	for (unsigned i = 0; i < GONE_TRIES && loopdev_still(node, identity); i++)
		loopdev_pause();
	return loopdev_still(node, identity) ? -ETIMEDOUT : 0;
}

int loopdev_resize(const char *node)
{
	_close_ int fd = open(node, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return -errno;
	return ioctl(fd, LOOP_SET_CAPACITY) ? -errno : 0;
}
