/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * journal.c - see journal.h. The file is text:
 *
 *	ploop journal 1
 *	operation snapshot
 *	file root.hds.{99999999-dddd-4eee-8fff-0000000000f2}
 *	end
 */
#include "image/journal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/lock.h"

#define HEAD "ploop journal 1\n"
#define TAIL "end\n"
#define JOURNAL_MAX (JOURNAL_FILES * 300u)

struct journal {
	char *name;
	char *text;
	char operation[32];
	char *files[JOURNAL_FILES]; /* into text */
	unsigned nfiles;
};

static void journal_clear(struct journal *journal)
{
	free(journal->name);
	free(journal->text);
}

/* A plain name in the folder: nothing else is ever removed. */
static bool plain_name(const char *file)
{
	return *file && strcmp(file, ".") && strcmp(file, "..") && !strchr(file, '/') && !strchr(file, '\n') &&
	       strlen(file) < 256;
}

static const char *last_component(const char *file)
{
	const char *slash = strrchr(file, '/');

	return slash ? slash + 1 : file;
}

static bool names(const struct descriptor *d, const char *file)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++)
		if (d->snapshots[i].file && !strcmp(last_component(d->snapshots[i].file), file))
			return true;
	return false;
}

bool journal_named(struct dir *dir, const char *name, const char *file)
{
	_descriptor_free_ struct descriptor *d = NULL;

	return descriptor_read(dir, name, &d, NULL) < 0 || names(d, file);
}

int journal_begin(struct dir *dir, const char *name, const char *operation, const char *const *files, unsigned nfiles,
		  struct ploop_error *err)
{
	_free_ char *path = NULL, *text = NULL;
	size_t len = 0;
	FILE *out;
	int r;

	if (asprintf(&path, "%s" JOURNAL_SUFFIX, name) < 0 || !(out = open_memstream(&text, &len)))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	fprintf(out, HEAD "operation %s\n", operation);
	for (unsigned i = 0; i < nfiles; i++)
		if (plain_name(files[i]))
			fprintf(out, "file %s\n", files[i]);
	fputs(TAIL, out);
	if (fclose(out))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", name);
	r = dir_replace(dir, path, text, len);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_WRITE, "Can't write %s/%s", dir->path, path) : 0;
}

static bool parse_line(struct journal *journal, char *line)
{
	if (!strncmp(line, "operation ", 10)) {
		snprintf(journal->operation, sizeof(journal->operation), "%s", line + 10);
		return true;
	}
	if (strncmp(line, "file ", 5) || !plain_name(line + 5) || journal->nfiles == JOURNAL_FILES)
		return false;
	journal->files[journal->nfiles++] = line + 5;
	return true;
}

static bool journal_parse(struct journal *journal, size_t len)
{
	char *text = journal->text, *save, *line;

	if (strlen(text) != len || len < strlen(HEAD) + strlen(TAIL) || strncmp(text, HEAD, strlen(HEAD)) ||
	    strcmp(text + len - strlen("\n" TAIL), "\n" TAIL))
		return false;
	text[len - strlen(TAIL)] = 0;
	for (line = strtok_r(text + strlen(HEAD), "\n", &save); line; line = strtok_r(NULL, "\n", &save))
		if (!parse_line(journal, line))
			return false;
	return true;
}

/* Returns 1 and the journal, 0 when there is none, -EPROTO for a file that is not one. */
static int journal_read(struct dir *dir, const char *name, struct journal *ret)
{
	size_t len;
	int r;

	*ret = (struct journal){ .nfiles = 0 };
	if (asprintf(&ret->name, "%s" JOURNAL_SUFFIX, name) < 0) {
		ret->name = NULL;
		return -ENOMEM;
	}
	r = dir_read(dir, ret->name, JOURNAL_MAX, &ret->text, &len);
	if (r == -ENOENT)
		return 0;
	if (r == 0)
		r = journal_parse(ret, len) ? 1 : -EPROTO;
	return r;
}

bool journal_lists(struct dir *dir, const char *name, const char *file)
{
	_cleanup_(journal_clear) struct journal journal;

	if (journal_read(dir, name, &journal) <= 0)
		return false;
	for (unsigned i = 0; i < journal.nfiles; i++)
		if (!strcmp(journal.files[i], file))
			return true;
	return false;
}

int journal_check_unused(struct dir *dir, const char *file)
{
	_close_ int place = -EBADF, fd = -EBADF;
	char again[32];
	int r;

	if (!dir->ops->locate)
		return 0;
	r = dir->ops->locate(dir, file, true, &place);
	if (r < 0)
		return r == -ENOENT || r == -EXDEV ? 0 : r;
	snprintf(again, sizeof(again), "/proc/self/fd/%d", place);
	fd = open(again, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	return fd < 0 ? 0 : lock_file(fd, FILE_LOCK_NONE, FILE_LOCK_WRITE, file, NULL);
}

int journal_remove(struct dir *dir, const char *file)
{
	int r = journal_check_unused(dir, file);

	return r < 0 ? r : dir_unlink(dir, file);
}

static int remove_unnamed(struct dir *dir, const struct journal *journal, const struct descriptor *d)
{
	int result = 0;

	for (unsigned i = 0; i < journal->nfiles; i++) {
		const char *file = journal->files[i];
		int r;

		if (names(d, file) || !strcmp(file, last_component(d->path)))
			continue;
		r = journal_remove(dir, file);
		if (r == 0)
			log_info("Removing %s/%s", dir->path, file);
		if (r < 0 && r != -ENOENT)
			result = r;
	}
	return result;
}

int journal_settle(struct dir *dir, const char *name, struct ploop_error *err)
{
	_cleanup_(journal_clear) struct journal journal;
	_descriptor_free_ struct descriptor *d = NULL;
	int r = journal_read(dir, name, &journal);

	if (r == 0)
		return 0;
	if (r == -EPROTO)
		return error_set(err, r, PLOOP_EXIT_DISKDESCR, "%s/%s is no journal of ploop; remove it", dir->path,
				 journal.name);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_READ, "Can't read the journal of %s/%s", dir->path, name);
	r = descriptor_read(dir, name, &d, err);
	if (r < 0)
		return r;
	r = remove_unnamed(dir, &journal, d);
	if (r == -EBUSY)
		return error_set(err, r, PLOOP_EXIT_BUSY, "a file of an interrupted %s of %s/%s is in use",
				 journal.operation, dir->path, name);
	if (!r)
		r = dir_sync(dir);
	if (!r)
		r = dir_unlink(dir, journal.name);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_UNLINK, "%s/%s: an interrupted %s cannot be settled", dir->path,
				 name, journal.operation)
		     : 0;
}

int journal_lock_disk(const char *descriptor, unsigned wait_ms, int *ret_fd, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct ploop_error why;
	const char *name;
	int r = lock_disk(descriptor, wait_ms, ret_fd, err);

	if (r < 0 || lock_work_goes_on(*ret_fd))
		return r;
	if (dir_open_parent(NULL, descriptor, &dir, &name, &why) < 0 || journal_settle(dir, name, &why) < 0)
		log_warning("%s", why.text);
	return 0;
}
