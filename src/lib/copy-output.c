/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-output.c - see copy-output.h. */
#include "lib/copy-output.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "image/dir.h"
#include "lib/copy-old.h"
#include "lib/copy-target.h"
#include "lib/copy-to-stream.h"

/* A copy that is written to the device that it is made of would wait for itself, and grow as it is read. */
static int check_elsewhere(const char *target, const struct ploop_device *device, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	const char *name;
	struct stat folder, mount;
	int r = dir_open_parent(NULL, target, &dir, &name, err);

	if (r < 0)
		return r;
	if (stat(dir->path, &folder) < 0)
		return error_sys(err, -errno, PLOOP_EXIT_FSTAT, "%s", dir->path);
	for (size_t i = 0; i < device->nmounts; i++)
		if (stat(device->mounts[i], &mount) == 0 && mount.st_dev == folder.st_dev)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s lies on %s, which is to be copied", target,
					 device->device);
	return 0;
}

static int spawn(const char *command, int input, int output, pid_t *ret)
{
	const char *const argv[] = { "sh", "-c", command, NULL };
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attributes;
	sigset_t pipe;
	int r;

	sigemptyset(&pipe);
	sigaddset(&pipe, SIGPIPE);
	posix_spawn_file_actions_init(&actions);
	posix_spawnattr_init(&attributes);
	posix_spawn_file_actions_adddup2(&actions, input, STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	posix_spawnattr_setsigdefault(&attributes, &pipe);
	posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF);
	r = posix_spawn(ret, "/bin/sh", &actions, &attributes, (char **)argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attributes);
	return -r;
}

static int start_command(struct copy_output *output, const char *command, struct ploop_error *err)
{
	int in[2] = { -EBADF, -EBADF }, out[2] = { -EBADF, -EBADF };
	int r = pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ? -errno : 0;

	if (r == 0)
		r = spawn(command, in[0], out[1], &output->command);
	cleanup_close(&in[0]);
	cleanup_close(&out[1]);
	output->to = in[1];
	output->from = out[0];
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_SYS, "Can't run %s", command) : 0;
}

int copy_output_open(struct copy_output *output, const struct ploop_copy *copy, const struct copy_source *source,
		     struct copy_sink **ret, struct ploop_error *err)
{
	struct copy_to_stream stream = { .fd = copy->stream, .feedback = copy->feedback, .compress = copy->compress };
	int r = 0;

	*output = (struct copy_output){ .to = -EBADF, .from = -EBADF };
	stream.hello.flags = (copy->all ? STREAM_STACK : 0) | (copy->resume ? STREAM_RESUME : 0);
	stream.hello.expected = source->dirty;
	if (copy->target) {
		r = check_elsewhere(copy->target, &source->device, err);
		if (r == 0)
			r = copy_target_new(copy->target, copy->resume, &output->sink, err);
	} else {
		if (copy->via) {
			r = start_command(output, copy->via, err);
			stream.fd = output->to;
			stream.feedback = output->from;
		}
		if (r == 0 && copy->compat)
			r = copy_to_old(stream.fd, stream.feedback, &output->sink, err);
		else if (r == 0)
			r = copy_to_stream(&stream, &output->sink, err);
	}
	*ret = output->sink;
	return r;
}

int copy_output_close(struct copy_output *output, int result, struct ploop_error *err)
{
	int status;

	if (output->sink)
		output->sink->ops->free(output->sink);
	output->sink = NULL;
	cleanup_close(&output->to);
	cleanup_close(&output->from);
	if (!output->command)
		return result;
	while (waitpid(output->command, &status, 0) < 0 && errno == EINTR)
		;
	output->command = 0;
	if (result < 0 || (WIFEXITED(status) && !WEXITSTATUS(status)))
		return result;
	return error_set(err, -EPIPE, PLOOP_EXIT_PROTOCOL, "the receiving command failed");
}
