/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * lock-holder.c - finds out who holds a lock. The kernel does not say so for locks of open files, but shows for every
 * open file of a process whether there is a lock on it.
 */
#include "image/lock.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"

static void cleanup_dir(DIR **stream)
{
	if (*stream)
		closedir(*stream);
}

static bool is_number(const char *text)
{
	return isdigit((unsigned char)*text);
}

/* Whether the descriptor /proc/PID/fd/FD is that file, with a lock on it. */
static bool descriptor_locks(const char *pid, const char *fd, const struct stat *file)
{
	_free_
	char *text = NULL;
	struct stat st;
	char path[600];

	snprintf(path, sizeof(path), "/proc/%s/fd/%s", pid, fd);
	if (stat(path, &st) < 0 || st.st_dev != file->st_dev || st.st_ino != file->st_ino)
		return false;
	snprintf(path, sizeof(path), "/proc/%s/fdinfo/%s", pid, fd);
	return fd_read_file(AT_FDCWD, path, 65536, &text, NULL) == 0 && strstr(text, "\nlock:");
}

static bool process_locks(const char *pid, const struct stat *file)
{
	_cleanup_(cleanup_dir)
	DIR *fds = NULL;
	const struct dirent *entry;
	char path[300];

	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	fds = opendir(path);
	while (fds && (entry = readdir(fds)))
		if (is_number(entry->d_name) && descriptor_locks(pid, entry->d_name, file))
			return true;
	return false;
}

pid_t lock_holder(int fd)
{
	_cleanup_(cleanup_dir)
	DIR *processes = opendir("/proc");
	const struct dirent *entry;
	struct stat file;

	if (fstat(fd, &file) < 0)
		return 0;
	while (processes && (entry = readdir(processes)))
		if (is_number(entry->d_name) && strtol(entry->d_name, NULL, 10) != getpid() &&
		    process_locks(entry->d_name, &file))
			return (pid_t)strtol(entry->d_name, NULL, 10);
	return process_locks("self", &file) ? getpid() : 0;
}

/* "process 12 (name)", or something that stands for it. */
void lock_describe_holder(int fd, char *text, size_t room)
{
	_free_ char *name = NULL;
	char path[64];
	pid_t pid = lock_holder(fd);

	if (!pid) {
		snprintf(text, room, "another process, perhaps on another host");
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	if (fd_read_file(AT_FDCWD, path, 64, &name, NULL) < 0)
		snprintf(text, room, "process %d", (int)pid);
	else
		snprintf(text, room, "process %d (%.*s)", (int)pid, (int)strcspn(name, "\n"), name);
}
