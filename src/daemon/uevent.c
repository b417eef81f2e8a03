/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* uevent.c - a netlink socket on the loop. What is in a message is not believed: it only makes us look at sysfs. */
#include "daemon/uevent.h"

#include <errno.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/list.h"
#include "base/log.h"
#include "control/node.h"

#define GROUP_KERNEL 1
#define MESSAGE_MAX_SIZE 8192

/* "add@/devices/virtual/block/loop3/loop3p1": is it about our disk? */
static bool concerns(const struct uevents *uevents, const char *message)
{
	const char *disk = strrchr(uevents->node, '/'), *at;

	/* `disk` begins with the slash; what follows the name must be another. */
	for (at = message; (at = strstr(at, disk)); at++)
		if (at[strlen(disk)] == '/')
			return true;
	return false;
}

static void ready(struct loop_watch *watch, int revents)
{
	struct uevents *uevents = container_of(watch, struct uevents, watch);
	char message[MESSAGE_MAX_SIZE];
	bool look = false;
	ssize_t n;

	(void)revents;
	while ((n = recv(watch->fd, message, sizeof(message) - 1, MSG_DONTWAIT)) >= 0 || errno == EINTR ||
	       errno == ENOBUFS) {
		message[n > 0 ? n : 0] = '\0';
		look = look || n < 0 || concerns(uevents, message);
	}
	if (look)
		(void)node_sync(uevents->name, uevents->node, NULL); /* the next event tries again */
	if (loop_watch_add(uevents->loop, watch) < 0)
		log_warning("%s: names of new partitions are not made any more", uevents->name);
}

void uevents_start(struct uevents *uevents, struct loop *loop, const char *name, const char *node)
{
	struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_groups = GROUP_KERNEL };
	_close_ int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_KOBJECT_UEVENT);

	*uevents = (struct uevents){ .loop = loop, .name = name, .node = node };
	uevents->watch = (struct loop_watch){ .fd = fd, .events = POLLIN, .ready = ready };
	if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ||
	    loop_watch_add(loop, &uevents->watch) < 0) {
		log_warning("%s: names of new partitions will not be made: %s", name, strerror(errno));
		uevents->watch.fd = -EBADF;
		return;
	}
	(void)take_fd(&fd);
}

void uevents_stop(struct uevents *uevents)
{
	if (!uevents->loop || uevents->watch.fd < 0)
		return;
	if (uevents->watch.armed)
		loop_watch_remove(uevents->loop, &uevents->watch);
	close(take_fd(&uevents->watch.fd));
}
