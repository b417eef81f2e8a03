/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* export.c - a disk for whoever speaks NBD: this process becomes nbdkit with our plugin. */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <ploop/ploop.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/stack.h"

#define PLUGIN "nbdkit-ploop-plugin.so"
#define ARGUMENTS 160

struct command {
	char *argv[ARGUMENTS + 1];
	unsigned n;
	bool full; /* an argument did not fit, or there is no memory */
};

static void cleanup_command(struct command *command)
{
	for (unsigned i = 0; i < command->n; i++)
		free(command->argv[i]);
}

/* prefix and text are one argument. */
static void add(struct command *command, const char *prefix, const char *text)
{
	if (command->n == ARGUMENTS || asprintf(&command->argv[command->n], "%s%s", prefix, text) < 0) {
		command->full = true;
		return;
	}
	command->argv[++command->n] = NULL;
}

/* $PLOOP_NBDKIT_PLUGIN, else beside the running program, else where it is installed. */
static int find_plugin(char path[PATH_MAX], struct ploop_error *err)
{
	const char *wanted = secure_getenv("PLOOP_NBDKIT_PLUGIN");
	ssize_t n = readlink("/proc/self/exe", path, PATH_MAX - sizeof("/" PLUGIN));
	char *slash;

	path[n > 0 ? n : 0] = '\0';
	slash = strrchr(path, '/');
	if (slash)
		strcpy(slash + 1, PLUGIN);
	if (wanted && *wanted)
		snprintf(path, PATH_MAX, "%s", wanted);
	else if (!slash || access(path, R_OK) < 0)
		snprintf(path, PATH_MAX, "%s/" PLUGIN, NBDKIT_PLUGINS);
	if (access(path, R_OK) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS,
				 "%s: the plugin of nbdkit; the variable PLOOP_NBDKIT_PLUGIN can say where it is",
				 path);
	return 0;
}

/* A socket that nobody listens to is left from a server that was killed. */
static int clear_socket(const char *path, struct ploop_error *err)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	_close_ int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_SYS, "socket");
	if (strlen(path) >= sizeof(address.sun_path))
		return error_set(err, -ENAMETOOLONG, PLOOP_EXIT_PARAM, "%s: the name of a socket has at most %zu bytes",
				 path, sizeof(address.sun_path) - 1);
	strcpy(address.sun_path, path);
	if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
		return error_set(err, -EADDRINUSE, PLOOP_EXIT_BUSY, "%s: somebody listens there already", path);
	if (errno == ENOENT)
		return 0;
	if (errno == ECONNREFUSED && !unlink(path))
		return 0;
	return error_sys(err, -errno, PLOOP_EXIT_PARAM, "%s", path);
}

/* What nbdkit could only tell in its own words: a disk that is in use, or broken, or not there. */
static int look(const struct ploop_export *what, struct ploop_error *err)
{
	const struct stack_request request = {
		.operands = what->files->paths,
		.noperands = what->files->npaths,
		.base_format = what->files->format,
		.cluster = what->files->cluster,
		.snapshot = what->files->snapshot,
		.read_only = what->read_only || what->files->snapshot,
		.outside = what->files->outside,
	};
	struct stack *stack;
	int r = stack_open(NULL, &request, &stack, err);

	if (r == 0)
		stack_close(stack);
	return r;
}

static void add_disk(struct command *command, const struct ploop_export *what)
{
	const struct ploop_files *files = what->files;
	char number[16];

	for (unsigned i = 0; i < files->npaths; i++)
		add(command, "disk=", files->paths[i]);
	if (files->snapshot)
		add(command, "snapshot=", files->snapshot);
	if (files->format)
		add(command, "format=", files->format);
	if (files->outside)
		add(command, "outside=", "true");
	if (what->read_only)
		add(command, "readonly=", "true");
	snprintf(number, sizeof(number), "%u", files->cluster / 512);
	if (files->cluster)
		add(command, "blocksize=", number);
}

static void add_server(struct command *command, const struct ploop_export *what, const char *plugin)
{
	add(command, "", "nbdkit");
	if (!what->pid_file && !what->run)
		add(command, "", "--foreground");
	if (what->pid_file)
		add(command, "--pidfile=", what->pid_file);
	if (what->read_only)
		add(command, "", "--readonly");
	add(command, "--unix=", what->socket ? what->socket : "-");
	if (what->run)
		add(command, "--run=", what->run);
	add(command, "", plugin);
}

int ploop_export_nbd(const struct ploop_export *what, struct ploop_error *err)
{
	_cleanup_(cleanup_command) struct command command = { .n = 0 };
	char plugin[PATH_MAX];
	int r = find_plugin(plugin, err);

	if (r == 0 && what->socket)
		r = clear_socket(what->socket, err);
	if (r == 0)
		r = look(what, err);
	if (r < 0)
		return r;
	add_server(&command, what, plugin);
	add_disk(&command, what);
	if (command.full)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM, "too many images");
	execvp("nbdkit", command.argv);
	return error_sys(err, -errno, PLOOP_EXIT_SYS, "nbdkit, which speaks NBD, cannot be run");
}
