/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init-from-meta.c - translates attributes from libarchive to a file system.
 *
 * An ACL comes as a list of entries and goes out as the value of the attribute that setxattr(2) takes for it: a version, then
 * (tag, permissions, id) sorted by tag and id.
 */
#include "lib/init-from-meta.h"

#include <endian.h>
#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/init-ext.h"

#define ACL_VERSION 2
#define ACL_NO_ID UINT32_MAX
#define ACL_MOST 1024 /* more would not fit into a block */

enum acl_tag {
	ACL_USER_OBJ = 0x01,
	ACL_USER = 0x02,
	ACL_GROUP_OBJ = 0x04,
	ACL_GROUP = 0x08,
	ACL_MASK = 0x10,
	ACL_OTHER = 0x20,
};

struct acl_entry {
	uint16_t tag, perm;
	uint32_t id;
};

struct acl {
	uint32_t version;
	struct acl_entry entries[ACL_MOST];
};

static uint16_t tag_of(int tag)
{
	switch (tag) {
	case ARCHIVE_ENTRY_ACL_USER_OBJ:
		return ACL_USER_OBJ;
	case ARCHIVE_ENTRY_ACL_USER:
		return ACL_USER;
	case ARCHIVE_ENTRY_ACL_GROUP_OBJ:
		return ACL_GROUP_OBJ;
	case ARCHIVE_ENTRY_ACL_GROUP:
		return ACL_GROUP;
	case ARCHIVE_ENTRY_ACL_MASK:
		return ACL_MASK;
	case ARCHIVE_ENTRY_ACL_OTHER:
		return ACL_OTHER;
	default:
		return 0;
	}
}

static uint16_t perm_of(int perm)
{
	return (uint16_t)((perm & ARCHIVE_ENTRY_ACL_READ ? 4 : 0) | (perm & ARCHIVE_ENTRY_ACL_WRITE ? 2 : 0) |
			  (perm & ARCHIVE_ENTRY_ACL_EXECUTE ? 1 : 0));
}

static int compare(const void *a, const void *b)
{
	const struct acl_entry *x = a, *y = b;

	if (x->tag != y->tag)
		return le16toh(x->tag) < le16toh(y->tag) ? -1 : 1;
	return le32toh(x->id) < le32toh(y->id) ? -1 : le32toh(x->id) > le32toh(y->id);
}

/* tar may have the name alone; this host is then asked for the number. */
static int id_of(int tag, int id, const char *name, uint32_t *ret)
{
	struct passwd *user;
	struct group *group;

	if (tag != ARCHIVE_ENTRY_ACL_USER && tag != ARCHIVE_ENTRY_ACL_GROUP) {
		*ret = ACL_NO_ID;
	} else if (id != -1 || !name) {
		*ret = (uint32_t)id;
	} else if (tag == ARCHIVE_ENTRY_ACL_USER && (user = getpwnam(name))) {
		*ret = user->pw_uid;
	} else if (tag == ARCHIVE_ENTRY_ACL_GROUP && (group = getgrnam(name))) {
		*ret = group->gr_gid;
	} else {
		return -ESRCH;
	}
	return 0;
}

/* Reads the entries of one kind. Returns how many there are, -E2BIG or -ESRCH. */
static int read_acl(struct archive_entry *entry, int kind, struct acl *acl)
{
	int type, perm, tag, id, n = 0;
	const char *name;

	acl->version = htole32(ACL_VERSION);
	archive_entry_acl_reset(entry, kind);
	while (archive_entry_acl_next(entry, kind, &type, &perm, &tag, &id, &name) == ARCHIVE_OK) {
		uint32_t number;

		if (n == ACL_MOST)
			return -E2BIG;
		if (!tag_of(tag))
			continue;
		if (id_of(tag, id, name, &number) < 0)
			return -ESRCH;
		acl->entries[n++] = (struct acl_entry){ htole16(tag_of(tag)), htole16(perm_of(perm)), htole32(number) };
	}
	qsort(acl->entries, (size_t)n, sizeof(acl->entries[0]), compare);
	return n;
}

/* With an ACL the group bits of the mode are its mask; libarchive says what the owning group may do. */
static uint32_t mode_of(struct archive_entry *entry)
{
	uint32_t mode = archive_entry_mode(entry);
	int type, perm, tag, id;
	const char *name;

	archive_entry_acl_reset(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS);
	while (archive_entry_acl_next(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, &type, &perm, &tag, &id, &name) ==
	       ARCHIVE_OK)
		if (tag == ARCHIVE_ENTRY_ACL_MASK)
			return (mode & ~(uint32_t)S_IRWXG) | (uint32_t)perm_of(perm) << 3;
	return mode;
}

static struct timespec time_or(bool set, time_t seconds, long nanoseconds, struct timespec otherwise)
{
	return set ? (struct timespec){ .tv_sec = seconds, .tv_nsec = nanoseconds } : otherwise;
}

int meta_stat(struct archive_entry *entry, const char *path, struct ext_stat *ret, struct ploop_error *err)
{
	int64_t uid = archive_entry_uid(entry), gid = archive_entry_gid(entry), size = archive_entry_size(entry);
	struct timespec now = { .tv_sec = time(NULL) };
	struct ext_stat stat = { .mode = mode_of(entry) };

	if (uid < 0 || gid < 0 || uid > UINT32_MAX || gid > UINT32_MAX || size < 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_READ, "%s: has an owner, group or size that no file can have",
				 path);
	if (!(stat.mode & S_IFMT))
		return error_set(err, -EINVAL, PLOOP_EXIT_READ, "%s: is not a kind of file that a disk can hold", path);
	stat.uid = (uint32_t)uid;
	stat.gid = (uint32_t)gid;
	stat.size = (uint64_t)size;
	stat.major = (uint32_t)archive_entry_rdevmajor(entry);
	stat.minor = (uint32_t)archive_entry_rdevminor(entry);
	stat.target = archive_entry_symlink(entry);
	if (S_ISLNK(stat.mode) && (!stat.target || !*stat.target))
		return error_set(err, -EINVAL, PLOOP_EXIT_READ, "%s: is a symbolic link to nothing", path);
	stat.mtime = time_or(archive_entry_mtime_is_set(entry), archive_entry_mtime(entry),
			     archive_entry_mtime_nsec(entry), now);
	stat.atime = time_or(archive_entry_atime_is_set(entry), archive_entry_atime(entry),
			     archive_entry_atime_nsec(entry), stat.mtime);
	stat.ctime = now; /* no tool can set it, and it says when the inode was changed: now */
	stat.crtime = time_or(archive_entry_birthtime_is_set(entry), archive_entry_birthtime(entry),
			      archive_entry_birthtime_nsec(entry), now);
	*ret = stat;
	return 0;
}

/* Kinds that Linux has; other systems' archives have more. */
static bool is_known(const char *name)
{
	static const char *const kinds[] = { "user.", "trusted.", "security." };

	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strncmp(name, kinds[i], strlen(kinds[i])) && name[strlen(kinds[i])])
			return true;
	return false;
}

static unsigned collect_xattrs(struct archive_entry *entry, const char *path, struct ext_xattr *attrs)
{
	const char *name;
	const void *value;
	unsigned n = 0;
	size_t len;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
		if (is_known(name))
			attrs[n++] = (struct ext_xattr){ name, value, len };
		else if (strncmp(name, "system.posix_acl_", strlen("system.posix_acl_")))
			log_warning("%s: extended attribute %s is left out: Linux has none of this kind", path, name);
	}
	return n;
}

static int collect_acl(struct archive_entry *entry, int kind, const char *name, struct acl *acl, struct ext_xattr *ret)
{
	int n = read_acl(entry, kind, acl);

	if (n < 0)
		return n;
	*ret = (struct ext_xattr){ name, acl, sizeof(acl->version) + (size_t)n * sizeof(acl->entries[0]) };
	return n;
}

int meta_xattrs(struct archive_entry *entry, struct ext *ext, struct ext_node *node, const char *path,
		struct ploop_error *err)
{
	unsigned n = (unsigned)archive_entry_xattr_count(entry);
	_free_ struct ext_xattr *attrs = calloc((size_t)n + 2, sizeof(*attrs));
	_free_ struct acl *acls = NULL;
	int access = 0, defaults = 0;

	if (archive_entry_acl_types(entry) & ARCHIVE_ENTRY_ACL_TYPE_POSIX1E)
		acls = calloc(2, sizeof(*acls));
	if (!attrs || (!acls && archive_entry_acl_types(entry) & ARCHIVE_ENTRY_ACL_TYPE_POSIX1E))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	n = collect_xattrs(entry, path, attrs);
	if (acls) {
		access = collect_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_ACCESS, "system.posix_acl_access", &acls[0],
				     &attrs[n]);
		n += access > 3; /* owner, group and others alone are the mode */
		defaults = collect_acl(entry, ARCHIVE_ENTRY_ACL_TYPE_DEFAULT, "system.posix_acl_default", &acls[1],
				       &attrs[n]);
		n += defaults > 0;
	}
	if (access == -ESRCH || defaults == -ESRCH)
		return error_set(
			err, -ESRCH, PLOOP_EXIT_READ,
			"%s: its ACL names a user or group that this host does not know; make the archive with "
			"--numeric-owner",
			path);
	if (access < 0 || defaults < 0)
		return error_set(err, -E2BIG, PLOOP_EXIT_READ, "%s: its ACL has more than %d entries", path, ACL_MOST);
	return ext_set_xattrs(ext, node, attrs, n, err);
}
