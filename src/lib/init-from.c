/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * init-from.c - copies a folder or an archive into a new file system, by libarchive, which reads both as a list of entries.
 *
 * Owners are numbers here, never names: what is user 1000 in the source is user 1000 in the disk.
 */
#include "lib/init-from.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <archive.h>
#include <archive_entry.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "lib/balloon-name.h"
#include "lib/init-ext.h"
#include "lib/init-from-meta.h"
#include "lib/init-from-walk.h"

#define READ_BLOCK (256u * 1024)
#define STAGE "files"

struct from {
	const char *path; /* for messages */
	struct archive *archive;
	bool folder;
	char *top;           /* folder: its path without slashes at the end; in front of each entry's path */
	uint64_t device;     /* folder: of its top; other file systems are not entered */
	struct links *links; /* folder: files that have several names */
	uint64_t bytes, total;
};

static int archive_failed(const struct from *from, struct ploop_error *err)
{
	const char *text = archive_error_string(from->archive);
	int code = archive_errno(from->archive);

	return error_set(err, code > 0 ? -code : -EIO, PLOOP_EXIT_READ, "%s: cannot be read: %s", from->path,
			 text ? text : "no reason given");
}

/* What tar is compressed with in practice. Filters that start programs are left out. */
static void support(struct archive *archive)
{
	archive_read_support_format_tar(archive);
	archive_read_support_filter_gzip(archive);
	archive_read_support_filter_bzip2(archive);
	archive_read_support_filter_xz(archive);
	archive_read_support_filter_lzma(archive);
	archive_read_support_filter_zstd(archive);
	archive_read_support_filter_lz4(archive);
	archive_read_support_filter_compress(archive);
}

static int open_archive(struct from *from)
{
	from->archive = archive_read_new();
	if (!from->archive)
		return ARCHIVE_FATAL;
	support(from->archive);
	if (!strcmp(from->path, "-"))
		return archive_read_open_fd(from->archive, STDIN_FILENO, READ_BLOCK);
	return archive_read_open_filename(from->archive, from->path, READ_BLOCK);
}

static int open_folder(struct from *from)
{
	from->archive = archive_read_disk_new();
	from->top = strdup(from->path);
	if (!from->archive || !from->top)
		return ARCHIVE_FATAL;
	for (size_t len = strlen(from->top); len > 1 && from->top[len - 1] == '/'; len--)
		from->top[len - 1] = 0;
	archive_read_disk_set_symlink_physical(from->archive);
	archive_read_disk_set_behavior(from->archive, ARCHIVE_READDISK_NO_TRAVERSE_MOUNTS | ARCHIVE_READDISK_NO_FFLAGS);
	return archive_read_disk_open(from->archive, from->top);
}

int from_open(const char *path, struct from **ret, struct ploop_error *err)
{
	struct from *from = calloc(1, sizeof(*from));
	struct stat st = { .st_mode = S_IFIFO };
	int r;

	if (!from)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	from->path = path;
	if (strcmp(path, "-") && stat(path, &st) < 0) {
		r = error_sys(err, -errno, PLOOP_EXIT_OPEN, "%s", path);
		from_close(from);
		return r;
	}
	from->folder = S_ISDIR(st.st_mode);
	from->device = st.st_dev;
	r = from->folder ? open_folder(from) : open_archive(from);
	if (r >= ARCHIVE_WARN && from->folder && links_new(&from->links) < 0)
		r = ARCHIVE_FATAL;
	if (r < ARCHIVE_WARN) {
		r = from->archive ? archive_failed(from, err) : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
		from_close(from);
		return r;
	}
	*ret = from;
	return 0;
}

void from_close(struct from *from)
{
	if (!from)
		return;
	if (from->archive)
		archive_read_free(from->archive);
	links_free(from->links);
	free(from->top);
	free(from);
}

int from_measure(struct from *from, struct from_size *ret, struct ploop_error *err)
{
	int r = 0;

	*ret = (struct from_size){ 0 };
	if (from->folder)
		r = walk_measure(from->path, &ret->files, &ret->bytes);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "%s", from->path);
	from->total = ret->bytes;
	return 0;
}

static int copy_data(struct from *from, struct ext *ext, struct ext_node *node, ploop_progress_fn progress, void *data,
		     struct ploop_error *err)
{
	const void *piece;
	size_t len;
	int64_t offset;
	int r, got;

	while ((got = archive_read_data_block(from->archive, &piece, &len, &offset)) == ARCHIVE_OK) {
		r = ext_data(ext, node, piece, len, (uint64_t)offset, err);
		if (r < 0)
			return r;
		from->bytes += len;
		if (progress &&
		    progress(data, STAGE, from->total && from->bytes > from->total ? from->total : from->bytes,
			     from->total))
			return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "%s: cancelled", from->path);
	}
	if (got != ARCHIVE_EOF)
		return archive_failed(from, err);
	return ext_data_end(ext, node, err);
}

/* A second name of a file that is there already? 1 when it was made. */
static int copy_link(struct from *from, struct ext *ext, struct archive_entry *entry, const char *path,
		     struct ploop_error *err)
{
	const char *name = archive_entry_hardlink(entry);
	struct ext_node *target = NULL;
	int r;

	if (name) {
		target = ext_find(ext, name);
		if (!target)
			return error_set(err, -ENOENT, PLOOP_EXIT_READ,
					 "%s: %s: is a link to %s, which is not there before it", from->path, path,
					 name);
	} else if (from->links) {
		target = links_find(from->links, (uint64_t)archive_entry_dev(entry),
				    (uint64_t)archive_entry_ino64(entry));
	}
	if (!target)
		return 0;
	r = ext_link(ext, path, target, err);
	return r < 0 ? r : 1;
}

static bool has_more_names(struct archive_entry *entry)
{
	return archive_entry_nlink(entry) > 1 && archive_entry_filetype(entry) != AE_IFDIR;
}

static int copy_file(struct from *from, struct ext *ext, struct archive_entry *entry, const char *path,
		     ploop_progress_fn progress, void *data, struct ploop_error *err)
{
	struct ext_node *node;
	struct ext_stat stat;
	int r;

	r = meta_stat(entry, path, &stat, err);
	if (!r)
		r = ext_add(ext, path, &stat, &node, err);
	if (!r && S_ISREG(stat.mode))
		r = copy_data(from, ext, node, progress, data, err);
	if (!r)
		r = meta_xattrs(entry, ext, node, path, err);
	if (!r && from->links && has_more_names(entry))
		r = links_add(from->links, (uint64_t)archive_entry_dev(entry), (uint64_t)archive_entry_ino64(entry),
			      node, err);
	return r;
}

static bool is_balloon(const char *path)
{
	while (path[0] == '/' || (path[0] == '.' && path[1] == '/'))
		path++;
	return !strcmp(path, BALLOON_NAME);
}

static int copy_entry(struct from *from, struct ext *ext, struct archive_entry *entry, ploop_progress_fn progress,
		      void *data, struct ploop_error *err)
{
	const char *path = archive_entry_pathname(entry);
	int r;

	if (!path)
		return error_set(err, -EILSEQ, PLOOP_EXIT_READ, "%s: has a file name that cannot be read", from->path);
	if (from->folder && !strncmp(path, from->top, strlen(from->top)))
		path += strlen(from->top);
	/* The disk that is copied may have been a ploop disk; the new one gets its own, empty, balloon. */
	if (is_balloon(path))
		return 0;
	if (from->folder && archive_entry_filetype(entry) == AE_IFDIR &&
	    (uint64_t)archive_entry_dev(entry) != from->device)
		log_warning("%s%s: another file system is mounted there; its content is left out", from->path, path);
	if (progress && progress(data, STAGE, from->bytes, from->total))
		return error_set(err, -ECANCELED, PLOOP_EXIT_ABORT, "%s: cancelled", from->path);
	r = copy_link(from, ext, entry, path, err);
	if (!r)
		r = copy_file(from, ext, entry, path, progress, data, err);
	return r < 0 ? r : 0;
}

/* 1 when there is another entry, 0 at the end. */
static int next_entry(struct from *from, struct archive_entry *entry, struct ploop_error *err)
{
	int r = archive_read_next_header2(from->archive, entry);

	if (r == ARCHIVE_EOF)
		return 0;
	if (r == ARCHIVE_WARN && !from->folder) {
		log_warning("%s: %s", from->path, archive_error_string(from->archive));
		return 1;
	}
	/* What a folder warns of is that something could not be read: a copy without it is no copy. */
	if (r != ARCHIVE_OK)
		return archive_failed(from, err);
	if (from->folder && archive_read_disk_can_descend(from->archive) &&
	    archive_read_disk_descend(from->archive) != ARCHIVE_OK)
		return archive_failed(from, err);
	return 1;
}

static int copy_all(struct from *from, struct ext *ext, ploop_progress_fn progress, void *data, struct ploop_error *err)
{
	struct archive_entry *entry = archive_entry_new();
	int r;

	if (!entry)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", from->path);
	while ((r = next_entry(from, entry, err)) > 0) {
		r = copy_entry(from, ext, entry, progress, data, err);
		if (r < 0)
			break;
	}
	archive_entry_free(entry);
	return r;
}

int from_copy(struct from *from, struct ext *ext, ploop_progress_fn progress, void *data, struct ploop_error *err)
{
	/* pax archives have their names in UTF-8. libarchive converts them to what the locale says, and a program that set
	 * none has ASCII. */
	locale_t utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0), before = (locale_t)0;
	int r;

	if (utf8)
		before = uselocale(utf8);
	r = copy_all(from, ext, progress, data, err);
	if (utf8) {
		uselocale(before);
		freelocale(utf8);
	}
	return r;
}
