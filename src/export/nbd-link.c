/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* nbd-link.c - see nbd-link.h. */
#include "export/nbd-link.h"

#include <errno.h>
#include <linux/capability.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/genl/ctrl.h>
#include <netlink/genl/genl.h>
#include <netlink/netlink.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"

/* One command and its answer. */
struct link {
	struct nl_sock *socket;
	struct nl_msg *message;
	int error; /* what the kernel says of it: a negative errno */
	int index; /* of the device, in the answer; -1: it did not say */
};

static void link_free(struct link *link)
{
	nlmsg_free(link->message);
	nl_socket_free(link->socket);
}

static void cleanup_link(struct link *link)
{
	link_free(link);
}
#define _link_ _cleanup_(cleanup_link)

static int link_refused(struct sockaddr_nl *from, struct nlmsgerr *answer, void *data)
{
	struct link *link = data;

	(void)from;
	link->error = answer->error;
	return NL_STOP;
}

static int link_answered(struct nl_msg *message, void *data)
{
	struct link *link = data;
	struct nlattr *attributes[NBD_ATTR_MAX + 1];

	if (genlmsg_parse(nlmsg_hdr(message), 0, attributes, NBD_ATTR_MAX, NULL) == 0 && attributes[NBD_ATTR_INDEX] &&
	    nla_len(attributes[NBD_ATTR_INDEX]) == sizeof(uint32_t))
		link->index = (int)nla_get_u32(attributes[NBD_ATTR_INDEX]);
	return NL_OK;
}

/* libnl has error numbers of its own; those of its calls that can fail here mean what is said. */
static int link_open(struct link *link, int command)
{
	int family;

	*link = (struct link){ .index = -1 };
	link->socket = nl_socket_alloc();
	link->message = nlmsg_alloc();
	if (!link->socket || !link->message)
		return -ENOMEM;
	if (genl_connect(link->socket) < 0)
		return -EPROTONOSUPPORT;
	family = genl_ctrl_resolve(link->socket, NBD_GENL_FAMILY_NAME);
	if (family < 0)
		return -ENODEV;
	if (!genlmsg_put(link->message, NL_AUTO_PORT, NL_AUTO_SEQ, family, 0, 0, (uint8_t)command, NBD_GENL_VERSION))
		return -ENOMEM;
	return 0;
}

static int link_call(struct link *link)
{
	struct nl_cb *callbacks = nl_socket_get_cb(link->socket);
	int r;

	nl_cb_err(callbacks, NL_CB_CUSTOM, link_refused, link);
	nl_cb_set(callbacks, NL_CB_VALID, NL_CB_CUSTOM, link_answered, link);
	nl_cb_put(callbacks);
	r = nl_send_auto(link->socket, link->message);
	if (r >= 0)
		r = nl_wait_for_ack(link->socket);
	return link->error ? link->error : r < 0 ? -EIO : 0;
}

static int link_put_socket(struct nl_msg *message, int fd)
{
	struct nlattr *item = nla_nest_start(message, NBD_SOCK_ITEM);

	if (!item || nla_put_u32(message, NBD_SOCK_FD, (uint32_t)fd) < 0)
		return -ENOMEM;
	nla_nest_end(message, item);
	return 0;
}

static int link_put_sockets(struct nl_msg *message, const int *fds, unsigned n)
{
	struct nlattr *sockets = nla_nest_start(message, NBD_ATTR_SOCKETS);
	int r = sockets ? 0 : -ENOMEM;

	for (unsigned i = 0; i < n && !r; i++)
		r = link_put_socket(message, fds[i]);
	if (!r)
		nla_nest_end(message, sockets);
	return r;
}

static int link_reconfigure(struct link *link, unsigned index, const char *identifier)
{
	int r = link_open(link, NBD_CMD_RECONFIGURE);

	if (r)
		return r;
	if (nla_put_u32(link->message, NBD_ATTR_INDEX, index) < 0 ||
	    nla_put_string(link->message, NBD_ATTR_BACKEND_IDENTIFIER, identifier) < 0)
		return -ENOMEM;
	return 0;
}

static bool may_administer(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	return syscall(SYS_capget, &header, data) == 0 && data[0].effective & CAP_TO_MASK(CAP_SYS_ADMIN);
}

int nbd_link_usable(struct ploop_error *err)
{
	_link_ struct link link;
	int r = link_open(&link, NBD_CMD_STATUS);

	if (r == -ENODEV && access("/sys/module/nbd", F_OK))
		return error_set(err, r, PLOOP_EXIT_DEVICE, "the kernel module 'nbd' is not loaded (modprobe nbd)");
	if (r == -ENODEV)
		return error_set(err, r, PLOOP_EXIT_DEVICE, "the kernel's nbd is not there in this network namespace");
	if (r)
		return error_sys(err, r, PLOOP_EXIT_DEVICE, "cannot use generic netlink");
	if (!may_administer())
		return error_set(err, -EPERM, PLOOP_EXIT_DEVICE,
				 "cannot make nbd devices (be root, with CAP_SYS_ADMIN)");
	return 0;
}

int nbd_link_connect(const struct nbd_link_device *device, unsigned *ret_index)
{
	_link_ struct link link;
	int r = link_open(&link, NBD_CMD_CONNECT);

	if (r)
		return r;
	/* The time for one request is said, too, as a device has that of its last user. 0: as long as it takes. */
	if (nla_put_u64(link.message, NBD_ATTR_SIZE_BYTES, device->size) < 0 ||
	    nla_put_u64(link.message, NBD_ATTR_BLOCK_SIZE_BYTES, device->block) < 0 ||
	    nla_put_u64(link.message, NBD_ATTR_SERVER_FLAGS, device->flags) < 0 ||
	    nla_put_u64(link.message, NBD_ATTR_TIMEOUT, 0) < 0 ||
	    nla_put_u64(link.message, NBD_ATTR_DEAD_CONN_TIMEOUT, device->dead_s) < 0 ||
	    nla_put_u64(link.message, NBD_ATTR_CLIENT_FLAGS, 0) < 0 ||
	    nla_put_string(link.message, NBD_ATTR_BACKEND_IDENTIFIER, device->identifier) < 0 ||
	    link_put_sockets(link.message, device->sockets, device->nsockets))
		return -ENOMEM;
	r = link_call(&link);
	if (!r && link.index < 0)
		return -EPROTO;
	*ret_index = (unsigned)link.index;
	return r;
}

int nbd_link_disconnect(unsigned index)
{
	_link_ struct link link;
	int r = link_open(&link, NBD_CMD_DISCONNECT);

	if (!r && nla_put_u32(link.message, NBD_ATTR_INDEX, index) < 0)
		r = -ENOMEM;
	return r ? r : link_call(&link);
}

int nbd_link_socket(unsigned index, const char *identifier, int socket)
{
	_link_ struct link link;
	int r = link_reconfigure(&link, index, identifier);

	if (!r)
		r = link_put_sockets(link.message, &socket, 1);
	return r ? r : link_call(&link);
}

int nbd_link_resize(unsigned index, const char *identifier, uint64_t size)
{
	_link_ struct link link;
	int r = link_reconfigure(&link, index, identifier);

	if (!r && nla_put_u64(link.message, NBD_ATTR_SIZE_BYTES, size) < 0)
		r = -ENOMEM;
	return r ? r : link_call(&link);
}

int nbd_link_end_on_close(unsigned index, const char *identifier, bool end)
{
	_link_ struct link link;
	int r = link_reconfigure(&link, index, identifier);

	if (!r && nla_put_u64(link.message, NBD_ATTR_CLIENT_FLAGS, end ? NBD_CFLAG_DISCONNECT_ON_CLOSE : 0) < 0)
		r = -ENOMEM;
	return r ? r : link_call(&link);
}
