/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* blockdev.c - numbers from sysfs, mounts from mountinfo. The device itself is never opened. */
#include "lib/blockdev.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "base/cleanup.h"
#include "base/fd.h"
#include "control/rundir.h"
#include "control/state.h"

#define MOUNTINFO_MAX (64u * 1024 * 1024)

static bool read_number(const char *disk, const char *part, dev_t *ret)
{
	char path[PATH_MAX];
	_free_ char *text = NULL;
	unsigned major, minor;
	size_t len;

	snprintf(path, sizeof(path), "/sys/block/%s/%s%sdev", disk, part, *part ? "/" : "");
	if (fd_read_file(-1, path, 64, &text, &len) < 0 || sscanf(text, "%u:%u", &major, &minor) != 2)
		return false;
	*ret = makedev(major, minor);
	return true;
}

void blockdev_look(const char *node, uint64_t diskseq, struct blockdev *ret)
{
	const char *slash = strrchr(node, '/');
	struct dirent *entry;
	char path[PATH_MAX];
	DIR *dir;

	*ret = (struct blockdev){ .n = 0 };
	snprintf(ret->name, sizeof(ret->name), "%s", slash ? slash + 1 : node);
	if (diskseq && state_diskseq(node) != diskseq)
		return;
	if (!read_number(ret->name, "", &ret->numbers[0]))
		return;
	ret->n = 1;
	snprintf(path, sizeof(path), "/sys/block/%s", ret->name);
	dir = opendir(path);
	while (dir && (entry = readdir(dir)) && ret->n < BLOCKDEV_NUMBERS)
		if (!strncmp(entry->d_name, ret->name, strlen(ret->name)) &&
		    read_number(ret->name, entry->d_name, &ret->numbers[ret->n]))
			ret->n++;
	if (dir)
		closedir(dir);
}

bool blockdev_has(const struct blockdev *device, dev_t number)
{
	for (size_t i = 0; i < device->n; i++)
		if (device->numbers[i] == number)
			return true;
	return false;
}

/* Blanks and backslashes in paths stand there as \040 and so on. */
static void unescape(char *text)
{
	char *to = text;

	for (; *text; text++) {
		if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
		    text[3] >= '0' && text[3] <= '7') {
			*to++ = (char)((text[1] - '0') << 6 | (text[2] - '0') << 3 | (text[3] - '0'));
			text += 3;
		} else {
			*to++ = *text;
		}
	}
	*to = '\0';
}

static void clear_entry(struct mount_entry *entry)
{
	free(entry->target);
	free(entry->type);
	free(entry->source);
}

/* 36 35 98:0 /root /target rw,noatime master:1 - ext4 /dev/source rw */
static int parse_line(char *line, struct mount_entry *ret)
{
	char *save, *field, *target = NULL, *type = NULL, *source = NULL;
	unsigned long long id = 0;
	unsigned major = 0, minor = 0;
	int n = 0, after = -1;
	bool whole = false;

	for (field = strtok_r(line, " ", &save); field; field = strtok_r(NULL, " ", &save), n++) {
		if (n == 0 && sscanf(field, "%llu", &id) != 1)
			return -EPROTO;
		if (n == 2 && sscanf(field, "%u:%u", &major, &minor) != 2)
			return -EPROTO;
		if (n == 3)
			whole = !strcmp(field, "/");
		if (n == 4)
			target = field;
		if (n >= 6 && after < 0 && !strcmp(field, "-"))
			after = n;
		if (after >= 0 && n == after + 1)
			type = field;
		if (after >= 0 && n == after + 2)
			source = field;
	}
	if (!target || !source)
		return -EPROTO;
	unescape(target);
	unescape(source);
	*ret = (struct mount_entry){
		.id = id,
		.number = makedev(major, minor),
		.whole = whole,
		.target = strdup(target),
		.type = strdup(type),
		.source = strdup(source),
	};
	if (ret->target && ret->type && ret->source)
		return 0;
	clear_entry(ret);
	return -ENOMEM;
}

int mounts_read(const char *pid, struct mount_table *ret)
{
	struct mount_table table = { 0 };
	_free_ char *text = NULL;
	char path[64], *save, *line;
	size_t len, room = 0;
	int r;

	snprintf(path, sizeof(path), "/proc/%s/mountinfo", pid);
	r = fd_read_file(-1, path, MOUNTINFO_MAX, &text, &len);
	if (r < 0)
		return r;
	for (line = strtok_r(text, "\n", &save); line && r == 0; line = strtok_r(NULL, "\n", &save)) {
		if (table.n == room) {
			void *bigger = reallocarray(table.entries, room = room ? 2 * room : 64, sizeof(*table.entries));

			if (!bigger) {
				r = -ENOMEM;
				break;
			}
			table.entries = bigger;
		}
		r = parse_line(line, &table.entries[table.n]);
		table.n += r == 0;
	}
	if (r < 0) {
		mounts_clear(&table);
		return r;
	}
	*ret = table;
	return 0;
}

void mounts_clear(struct mount_table *table)
{
	for (size_t i = 0; i < table->n; i++)
		clear_entry(&table->entries[i]);
	free(table->entries);
	*table = (struct mount_table){ 0 };
}

/* Only these are worth a look, and cannot hang: a source can be anything. */
static bool is_device_path(const char *path)
{
	return !strncmp(path, "/dev/", 5) || !strncmp(path, rundir_dev(), strlen(rundir_dev()));
}

bool mounts_match(const struct mount_entry *entry, const struct blockdev *device)
{
	struct stat st;

	if (blockdev_has(device, entry->number))
		return true;
	/* File systems like btrfs have numbers of their own: what was mounted tells. */
	if (major(entry->number) || !device->n || !is_device_path(entry->source))
		return false;
	return stat(entry->source, &st) == 0 && S_ISBLK(st.st_mode) && blockdev_has(device, st.st_rdev);
}
