/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * mount.c - mounts a disk, runs a command there, unmounts. Needs root.
 *
 *	mount DiskDescriptor.xml DIR COMMAND..
 */
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

static int run(const char *folder, char **argv)
{
	pid_t child = fork();
	int status;

	if (!child) {
		if (!chdir(folder))
			execvp(argv[0], argv);
		perror(argv[0]);
		_exit(127);
	}
	if (child < 0 || waitpid(child, &status, 0) < 0)
		return 127;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int main(int argc, char **argv)
{
	struct ploop_mounted mounted;
	struct ploop_error err = { 0 };
	int status;

	if (argc < 4) {
		fprintf(stderr, "usage: %s DiskDescriptor.xml DIR COMMAND..\n", argv[0]);
		return PLOOP_EXIT_PARAM;
	}
	if (ploop_mount(&(struct ploop_mount){ .operands = (const char *const[]){ argv[1] }, .noperands = 1, .target = argv[2] },
			&mounted, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return (int)err.status;
	}
	printf("%s is %s\n", argv[1], mounted.device);
	fflush(stdout);
	status = run(argv[2], argv + 3);
	/* 0 from here on says that all that was written is in the image. */
	if (ploop_umount(&(struct ploop_which){ .device = mounted.device }, &err) < 0) {
		fprintf(stderr, "%s\n", err.text);
		return (int)err.status;
	}
	return status;
}
