/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * nbd-link.h - what the kernel's nbd driver is told, over generic netlink. Its older interface, ioctls on the node, binds a device to
 * the process that sets it up and cannot change sockets; by netlink the kernel itself finds a device that is really free, keeps it
 * when we die, and takes new sockets for those that are dead.
 *
 * libnl speaks netlink for us: it is small, everywhere, and checks what comes. All of this waits for the kernel, none of it for I/O on a
 * device; the sockets are taken from the calling thread's table of descriptors.
 */
#ifndef EXPORT_NBD_LINK_H
#define EXPORT_NBD_LINK_H

#include <stdbool.h>
#include <stdint.h>

struct ploop_error;

struct nbd_link_device {
	uint64_t size;      /* bytes */
	uint32_t block;     /* logical block size in bytes */
	uint64_t flags;     /* enum nbd_wire_flag */
	const int *sockets; /* the kernel's ends; it keeps references of its own */
	unsigned nsockets;
	unsigned dead_s;        /* how long requests wait for a new socket when all are dead */
	const char *identifier; /* must be told again with each change */
};

/* Is the driver there, and may we talk to it? */
int nbd_link_usable(struct ploop_error *err);

/* Makes a device of one that is free. 0 or a negative errno. */
int nbd_link_connect(const struct nbd_link_device *device, unsigned *ret_index);

/* Ends a device at once; who has it open gets errors. */
int nbd_link_disconnect(unsigned index);

/* One new socket in the place of one that is dead. 0 also when none was dead: then the kernel has let go of the socket again. */
int nbd_link_socket(unsigned index, const char *identifier, int socket);

int nbd_link_resize(unsigned index, const char *identifier, uint64_t size);

/* The device ends, or does not end, when its last user closes it. */
int nbd_link_end_on_close(unsigned index, const char *identifier, bool end);

#endif
