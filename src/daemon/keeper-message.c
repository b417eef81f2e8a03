/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* keeper-message.c - see keeper-message.h; and how an engine gets another keeper. */
#include "daemon/keeper-message.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"

extern char **environ;

union control {
	struct cmsghdr align;
	char room[CMSG_SPACE(KEEPER_FDS * sizeof(int))];
};

/* Does not wait: a keeper always listens, and one that is stopped is no reason for a device to stop. */
static int send_message(int socket, enum keeper_kind kind, const char *text, const struct keeper_set *set)
{
	struct keeper_message message = { .kind = kind, .any_time = set && set->any_time };
	struct iovec iov = { &message, sizeof(message) };
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1 };
	union control control = { 0 };

	if (socket < 0)
		return 0;
	if (snprintf(message.text, sizeof(message.text), "%s", text) >= (int)sizeof(message.text))
		return -ENAMETOOLONG;
	if (set && set->n) {
		struct cmsghdr *rights;

		header.msg_control = control.room;
		header.msg_controllen = CMSG_SPACE(set->n * sizeof(int));
		rights = CMSG_FIRSTHDR(&header);
		rights->cmsg_level = SOL_SOCKET;
		rights->cmsg_type = SCM_RIGHTS;
		rights->cmsg_len = CMSG_LEN(set->n * sizeof(int));
		memcpy(CMSG_DATA(rights), set->fds, set->n * sizeof(int));
	}
	return sendmsg(socket, &header, MSG_DONTWAIT | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

int keeper_keep(int socket, const struct keeper_set *set)
{
	return send_message(socket, KEEPER_KEEP, set->name, set);
}

int keeper_forget(int socket)
{
	return send_message(socket, KEEPER_FORGET, "", NULL);
}

int keeper_upgrade(int socket, const char *program)
{
	return send_message(socket, KEEPER_UPGRADE, program, NULL);
}

static void take_fds(struct msghdr *header, struct keeper_set *set)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
		unsigned n = (unsigned)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));

		if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS || n > KEEPER_FDS - set->n)
			continue;
		memcpy(set->fds + set->n, CMSG_DATA(c), n * sizeof(int));
		set->n += n;
	}
}

int keeper_receive(int socket, struct keeper_message *ret, struct keeper_set *ret_set)
{
	struct iovec iov = { ret, sizeof(*ret) };
	union control control;
	struct msghdr header = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = control.room,
				 .msg_controllen = sizeof(control.room) };
	ssize_t n = recvmsg(socket, &header, MSG_CMSG_CLOEXEC);

	*ret_set = (struct keeper_set){ 0 };
	if (n <= 0)
		return n < 0 ? -errno : 0;
	take_fds(&header, ret_set);
	ret->text[sizeof(ret->text) - 1] = '\0';
	ret_set->any_time = ret->any_time;
	snprintf(ret_set->name, sizeof(ret_set->name), "%.*s", (int)sizeof(ret_set->name) - 1, ret->text);
	return 1;
}

int keeper_spawn(int refuge, int *ret_socket)
{
	const char *const argv[] = { "ploopd", "--keeper", "watch", refuge < 0 ? "-1" : "4", NULL };
	posix_spawn_file_actions_t actions;
	_close_ int ours = -EBADF, theirs = -EBADF;
	int ends[2], r;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
		return -errno;
	ours = ends[0];
	theirs = ends[1];
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, theirs, KEEPER_SOCKET);
	if (refuge >= 0)
		posix_spawn_file_actions_adddup2(&actions, refuge, KEEPER_REFUGE);
	r = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, (char *const *)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	if (r)
		return -r;
	*ret_socket = take_fd(&ours);
	return pid;
}
