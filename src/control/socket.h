/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* socket.h - the control socket of a device: made, reached, and closed to strangers. */
#ifndef CONTROL_SOCKET_H
#define CONTROL_SOCKET_H

#include <json-c/json.h>

struct ploop_error;

/* Listens at run directory/control. The descriptor does not block. */
int socket_listen(const char *name, int *ret, struct ploop_error *err);
/* Connects; reads and writes give up after `timeout_ms`. */
int socket_connect(const char *name, unsigned timeout_ms, int *ret, struct ploop_error *err);

/* 0 when the other side is our own user or root, else -EACCES. */
int socket_check_peer(int fd);

#endif
