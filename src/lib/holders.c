/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * holders.c - who keeps a device or a file system busy. A person who reads "in use" wants a name, so this looks where the
 * kernel shows one, cheapest first, and stops at the first find. Processes come and go meanwhile: what cannot be read is skipped.
 */
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "lib/blockdev.h"

#define FILES_MAX 200000 /* open files looked at in all */
#define NAMESPACES_MAX 256

struct search {
	const struct blockdev *device; /* NULL: a file system is searched for */
	dev_t number;                  /* of that file system */
	char *text;
	size_t size;
	unsigned files;
	ino_t namespaces[NAMESPACES_MAX]; /* seen already */
	unsigned nnamespaces;
};

static bool found(struct search *search, const char *format, ...) __attribute__((format(printf, 2, 3)));

static bool found(struct search *search, const char *format, ...)
{
	va_list ap;

	va_start(ap, format);
	vsnprintf(search->text, search->size, format, ap);
	va_end(ap);
	return true;
}

static void name_of(const char *pid, char name[32])
{
	_free_ char *text = NULL;
	char path[64];
	size_t len;

	snprintf(path, sizeof(path), "/proc/%s/comm", pid);
	if (fd_read_file(-1, path, 64, &text, &len) < 0)
		text = NULL;
	snprintf(name, 32, "%.*s", text ? (int)strcspn(text, "\n") : 1, text ? text : "?");
}

/* dm, md and others that stack on the device. */
static bool find_stacked(struct search *search, const char *folder)
{
	struct dirent *entry;
	bool hit = false;
	DIR *dir;

	dir = opendir(folder);
	while (dir && !hit && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			hit = found(search, "/dev/%s is made of it", entry->d_name);
	if (dir)
		closedir(dir);
	return hit;
}

static bool find_sysfs(struct search *search)
{
	const char *name = search->device->name;
	char path[PATH_MAX];
	struct dirent *entry;
	bool hit;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/block/%s/holders", name);
	hit = find_stacked(search, path);
	snprintf(path, sizeof(path), "/sys/block/%s", name);
	dir = hit ? NULL : opendir(path);
	while (dir && !hit && (entry = readdir(dir))) {
		if (strncmp(entry->d_name, name, strlen(name)))
			continue;
		snprintf(path, sizeof(path), "/sys/block/%s/%s/holders", name, entry->d_name);
		hit = find_stacked(search, path);
	}
	if (dir)
		closedir(dir);
	return hit;
}

static bool find_swap(struct search *search)
{
	_fclose_ FILE *file = fopen("/proc/swaps", "re");
	char line[PATH_MAX + 128];
	struct stat st;

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, " \t\n")] = '\0';
		if (stat(line, &st) < 0)
			continue;
		if (search->device ? S_ISBLK(st.st_mode) && blockdev_has(search->device, st.st_rdev)
				   : st.st_dev == search->number)
			return found(search, "%s is swap space", line);
	}
	return false;
}

/* Another mount namespace that we have not looked into. */
static bool is_new_namespace(struct search *search, const char *pid)
{
	char path[PATH_MAX];
	struct stat st;

	snprintf(path, sizeof(path), "/proc/%s/ns/mnt", pid);
	if (stat(path, &st) < 0)
		return false;
	for (unsigned i = 0; i < search->nnamespaces; i++)
		if (search->namespaces[i] == st.st_ino)
			return false;
	if (search->nnamespaces < NAMESPACES_MAX)
		search->namespaces[search->nnamespaces++] = st.st_ino;
	return true;
}

static bool find_mounts(struct search *search, const char *pid)
{
	struct mount_table table;
	bool hit = false;
	char name[32];

	if (!is_new_namespace(search, pid) || mounts_read(pid, &table) < 0)
		return false;
	name_of(pid, name);
	for (size_t i = 0; i < table.n && !hit; i++)
		if (mounts_match(&table.entries[i], search->device))
			hit = found(search, "mounted at %s in the mount namespace of process %s (%s)",
				    table.entries[i].target, pid, name);
	mounts_clear(&table);
	return hit;
}

static bool is_wanted(const struct search *search, int dir, const char *name)
{
	struct stat st;

	if (fstatat(dir, name, &st, 0) < 0)
		return false;
	if (search->device)
		return S_ISBLK(st.st_mode) && blockdev_has(search->device, st.st_rdev);
	return st.st_dev == search->number;
}

/* Files that a process has open, and for a file system also where it stands. */
static bool find_files(struct search *search, const char *pid)
{
	static const char *const places[] = { "cwd", "root", "exe" };
	struct dirent *entry;
	bool hit = false;
	char path[PATH_MAX], name[32];
	DIR *dir;

	name_of(pid, name);
	if (!strcmp(name, "ploopd")) /* it holds what it serves */
		return false;
	for (size_t i = 0; !search->device && i < ARRAY_SIZE(places); i++) {
		snprintf(path, sizeof(path), "/proc/%s/%s", pid, places[i]);
		if (is_wanted(search, AT_FDCWD, path))
			return found(search, "process %s (%s) %s", pid, name,
				     i == 0   ? "stands in it"
				     : i == 1 ? "has its root in it"
					      : "runs from it");
	}
	snprintf(path, sizeof(path), "/proc/%s/fd", pid);
	dir = opendir(path);
	while (dir && !hit && (entry = readdir(dir)) && search->files < FILES_MAX) {
		search->files++;
		if (isdigit((unsigned char)entry->d_name[0]) && is_wanted(search, dirfd(dir), entry->d_name))
			hit = found(search, "process %s (%s) has %s open", pid, name,
				    search->device ? "it" : "files in it");
	}
	if (dir)
		closedir(dir);
	return hit;
}

static bool each_process(struct search *search, bool (*find)(struct search *search, const char *pid))
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;
	bool hit = false;

	while (dir && !hit && (entry = readdir(dir)))
		if (isdigit((unsigned char)entry->d_name[0]))
			hit = find(search, entry->d_name);
	if (dir)
		closedir(dir);
	return hit;
}

bool holders_of_device(const struct blockdev *device, char *text, size_t size)
{
	struct search search = { .device = device, .text = text, .size = size };

	return find_sysfs(&search) || find_swap(&search) || each_process(&search, find_mounts) ||
	       each_process(&search, find_files);
}

/* A file system mounted below it. */
static bool find_below(struct search *search, const char *target)
{
	struct mount_table table;
	size_t len = strlen(target);
	bool hit = false;

	if (mounts_read("self", &table) < 0)
		return false;
	for (size_t i = 0; i < table.n && !hit; i++)
		if (!strncmp(table.entries[i].target, target, len) && table.entries[i].target[len] == '/')
			hit = found(search, "%s is mounted in it", table.entries[i].target);
	mounts_clear(&table);
	return hit;
}

/* A loop device on a file in it. */
static bool find_loops(struct search *search)
{
	DIR *dir = opendir("/sys/block");
	struct dirent *entry;
	bool hit = false;

	while (dir && !hit && (entry = readdir(dir))) {
		_free_ char *file = NULL;
		char path[PATH_MAX];
		struct stat st;
		size_t len;

		snprintf(path, sizeof(path), "/sys/block/%s/loop/backing_file", entry->d_name);
		if (strncmp(entry->d_name, "loop", 4) || fd_read_file(-1, path, PATH_MAX, &file, &len) < 0)
			continue;
		file[strcspn(file, "\n")] = '\0';
		if (stat(file, &st) == 0 && st.st_dev == search->number)
			hit = found(search, "/dev/%s is a file in it", entry->d_name);
	}
	if (dir)
		closedir(dir);
	return hit;
}

bool holders_of_mount(const char *target, dev_t number, char *text, size_t size)
{
	struct search search = { .number = number, .text = text, .size = size };

	return find_below(&search, target) || find_swap(&search) || find_loops(&search) ||
	       each_process(&search, find_files);
}
