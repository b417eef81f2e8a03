/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* merge-names.c - see merge-names.h. */
#include "lib/merge-names.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/journal.h"
#include "image/tree.h"
#include "lib/beside.h"

static unsigned count_named(const struct descriptor *d, const char *const *images, unsigned n)
{
	unsigned named = 0;

	for (unsigned i = 0; i < n; i++)
		named += beside_snapshot(d, images[i]) != NULL;
	return named;
}

int merge_names_find(const char *descriptor, const char *image, char **ret)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *path = NULL;

	if (descriptor)
		path = strdup(descriptor);
	else if (beside_find(image, &path, NULL) < 0)
		return 0;
	if (!path || descriptor_open(path, &d, NULL) < 0 || !count_named(d, &image, 1))
		return 0;
	*ret = take_ptr(path);
	return 1;
}

static int refuse_apart(const struct merge_names *names, const char *image, struct ploop_error *err)
{
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			 "%s would not fit its images any more, as %s is not where it says; see `ploop "
			 "repair-descriptor --dry-run`",
			 names->change.path, image);
}

/* Are the images a piece of one branch, and nobody else's? */
static int check_branch(struct merge_names *names, const char *const *images, unsigned n, struct ploop_error *err)
{
	const struct descriptor *d = names->change.descriptor;

	for (unsigned i = 0; i < n; i++) {
		const struct snapshot *s = beside_snapshot(d, images[i]);

		if (!s || (i && !guid_equal(&s->parent, &names->guids[i - 1])))
			return refuse_apart(names, images[i], err);
		if (i + 1 < n && s->children > 1)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "Can't merge to snapshot %s: it has %u children", s->guid.text, s->children);
		names->guids[i] = s->guid;
		names->files[i] = strdup(s->file);
		if (!names->files[i])
			return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", names->change.path);
	}
	names->n = n;
	return 0;
}

static int look(struct merge_names *names, const char *const *images, unsigned n, struct ploop_error *err)
{
	const struct descriptor *d = names->change.descriptor;
	const struct snapshot *base = beside_snapshot(d, images[0]);
	unsigned named = count_named(d, images, n);

	/* A disk of which it knows only the base: that base has more data then. */
	if (!named || (named == 1 && base && !base->children))
		return 0;
	if (change_check_format(&names->change, err) < 0)
		return -EINVAL;
	names->guids = calloc(n, sizeof(*names->guids));
	names->files = calloc(n + 1, sizeof(*names->files)); /* NULL ends it */
	if (!names->guids || !names->files)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", names->change.path);
	return check_branch(names, images, n, err);
}

/* The name of `image` in the folder of the descriptor; NULL when it lies elsewhere. */
static const char *name_in_folder(const struct merge_names *names, const char *image)
{
	const char *slash = strrchr(image, '/');
	_free_ char *folder = slash ? strndup(image, (size_t)(slash - image) + 1) : strdup(".");

	return folder && change_same_file(folder, names->change.dir->path) ? (slash ? slash + 1 : image) : NULL;
}

/* The new image, if it is one of the folder, and what is removed in the end. */
static int write_journal(struct merge_names *names, unsigned n, const char *new_image, struct ploop_error *err)
{
	const char *files[TREE_MAX_DEPTH + 1], *name = new_image ? name_in_folder(names, new_image) : NULL;
	unsigned nfiles = 0;

	if (name)
		files[nfiles++] = name;
	for (unsigned i = 0; names->remove && i < n; i++)
		files[nfiles++] = names->files[i];
	return nfiles ? change_journal(&names->change, "merge", files, nfiles, err) : 0;
}

/* What lies elsewhere is not for us to remove. */
static void warn_of_files(const struct merge_names *names, unsigned n, const char *new_image)
{
	for (unsigned i = new_image ? 0 : 1; names->remove && i < n; i++)
		if (strchr(names->files[i], '/'))
			log_warning("%s is not needed any more; it lies outside the folder of %s and stays",
				    names->files[i], names->change.path);
}

int merge_names_begin(struct merge_names *names, const char *descriptor, const char *const *images, unsigned n,
		      const char *new_image, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *beside = NULL;
	int r = descriptor ? 0 : beside_find(images[0], &beside, err);

	names->change.lock = -EBADF;
	if (beside)
		descriptor = beside;
	if (r < 0 || !descriptor)
		return r;
	/* Another disk's is none of our business. */
	r = descriptor_open(descriptor, &d, err);
	if (r < 0 || !count_named(d, images, n))
		return r;
	r = change_begin(&names->change, descriptor, err);
	if (r == 0)
		r = look(names, images, n, err);
	return r < 0 || !new_image || !names->n ? r : write_journal(names, 0, new_image, err);
}

int merge_names_mark(struct merge_names *names, struct ploop_error *err)
{
	struct descriptor *d = names->change.descriptor;
	int r = 0;

	if (!names->n || names->marked)
		return 0;
	for (unsigned i = 0; i + 1 < names->n && r == 0; i++)
		if (descriptor_find(d, &names->guids[i])->temporary == SNAPSHOT_KEPT)
			r = descriptor_set_temporary(d, &names->guids[i], SNAPSHOT_TEMPORARY);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s: cannot be changed", names->change.path);
	names->marked = true;
	return change_commit(&names->change, err);
}

void merge_names_unmark(struct merge_names *names)
{
	if (names->marked)
		change_undo(&names->change);
	names->marked = false;
}

void merge_names_tell(const char *const *images, unsigned n, const char *new_image)
{
	unsigned low = new_image ? 0 : 1;
	_free_ char *text = NULL;
	size_t len;
	FILE *out = open_memstream(&text, &len);

	if (!out)
		return;
	for (unsigned i = n; i-- > low;)
		fprintf(out, " %s", images[i]);
	fprintf(out, " -> %s%s", new_image ? "(new) " : "", new_image ? new_image : images[0]);
	if (fclose(out) == 0)
		log_info("Merging image%s:%s", n - low > 1 ? "s" : "", text);
}

void merge_names_pause(struct merge_names *names)
{
	if (names->change.dir)
		change_pause(&names->change);
}

static int edit(struct merge_names *names, unsigned n, const char *file)
{
	struct descriptor *d = names->change.descriptor;
	_free_ char *path = NULL;
	int r = change_fuse(d, names->guids, n);

	if (r < 0 || !file)
		return r;
	path = realpath(file, NULL);
	return path ? descriptor_set_file(d, &names->guids[n - 1], path) : -errno;
}

/* Whoever mounts the disk after the copying and before this reads what the descriptor says still. */
static int check_unused(const struct merge_names *names, unsigned n, struct ploop_error *err)
{
	for (unsigned i = 0; names->offline && i < n; i++)
		if (journal_check_unused(names->change.dir, names->files[i]) == -EBUSY)
			return error_set(
				err, -EBUSY, PLOOP_EXIT_BUSY,
				"%s: somebody uses %s since a moment ago, so that the merge could not end; nothing is "
				"lost, merge again",
				names->change.path, names->files[i]);
	return 0;
}

int merge_names_commit(struct merge_names *names, unsigned n, const char *file, struct ploop_error *err)
{
	int r;

	if (!names->n)
		return 0;
	r = change_resume(&names->change, err);
	if (r == 0)
		r = check_unused(names, n, err);
	if (r == 0)
		r = write_journal(names, n, file, err);
	if (r < 0)
		return r;
	r = edit(names, n, file);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR,
				 "%s: cannot be changed, though the images are merged; see `ploop repair-descriptor "
				 "--dry-run`",
				 names->change.path);
	r = change_commit(&names->change, err);
	if (r == 0)
		warn_of_files(names, n, file);
	return r;
}

void merge_names_end(struct merge_names *names)
{
	for (char **file = names->files; file && *file; file++)
		free(*file);
	free(take_ptr(names->files));
	free(take_ptr(names->guids));
	change_end(&names->change);
}
