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

static const struct snapshot *find_image(const struct descriptor *d, const char *image)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		_free_ char *file = d->snapshots[i].file ? descriptor_file(d, &d->snapshots[i]) : NULL;

		if (file && change_same_file(file, image))
			return &d->snapshots[i];
	}
	return NULL;
}

static unsigned count_named(const struct descriptor *d, const char *const *images, unsigned n)
{
	unsigned named = 0;

	for (unsigned i = 0; i < n; i++)
		named += find_image(d, images[i]) != NULL;
	return named;
}

/* "folder/DiskDescriptor.xml" when there is one beside the image; NULL without an error when there is none. */
static int find_beside(const char *image, char **ret, struct ploop_error *err)
{
	_free_ char *path = realpath(image, NULL);
	char *slash;

	if (!path)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", image);
	slash = strrchr(path, '/');
	if (asprintf(ret, "%.*s/" DESCRIPTOR_NAME, (int)(slash - path), path) < 0) {
		*ret = NULL;
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", image);
	}
	if (access(*ret, F_OK) < 0)
		free(take_ptr(*ret));
	return 0;
}

static int refuse_apart(const struct merge_names *names, const char *image, struct ploop_error *err)
{
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
			 "%s would not fit its images any more, as %s is not where it says; see `ploop snapshot-list`",
			 names->change.path, image);
}

/* Are the images a piece of one branch, and nobody else's? */
static int check_branch(struct merge_names *names, const char *const *images, unsigned n, struct ploop_error *err)
{
	const struct descriptor *d = names->change.descriptor;

	for (unsigned i = 0; i < n; i++) {
		const struct snapshot *s = find_image(d, images[i]);

		if (!s || (i && !guid_equal(&s->parent, &names->guids[i - 1])))
			return refuse_apart(names, images[i], err);
		if (i + 1 < n && s->children > 1)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "Can't merge to snapshot %s: it has %u children", s->guid.text, s->children);
		names->guids[i] = s->guid;
	}
	names->n = n;
	return 0;
}

static int look(struct merge_names *names, const char *const *images, unsigned n, struct ploop_error *err)
{
	const struct descriptor *d = names->change.descriptor;
	const struct snapshot *base = find_image(d, images[0]);
	unsigned named = count_named(d, images, n);

	/* A disk of which it knows only the base: that base has more data then. */
	if (!named || (named == 1 && base && !base->children))
		return 0;
	if (change_check_format(&names->change, err) < 0)
		return -EINVAL;
	names->guids = calloc(n, sizeof(*names->guids));
	if (!names->guids)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", names->change.path);
	return check_branch(names, images, n, err);
}

int merge_names_begin(struct merge_names *names, const char *descriptor, const char *const *images, unsigned n,
		      struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_free_ char *beside = NULL;
	int r = descriptor ? 0 : find_beside(images[0], &beside, err);

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
	return r < 0 ? r : look(names, images, n, err);
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

/* What is left keeps the file of the lowest, and is the uppermost in all else. */
static int edit(struct descriptor *d, const struct guid *guids, unsigned n)
{
	const struct guid *low = &guids[0], *high = &guids[n - 1];
	enum snapshot_temporary temporary = descriptor_find(d, high)->temporary;
	int r = descriptor_set_temporary(d, low, temporary);

	if (!r && descriptor_top(d) == descriptor_find(d, high))
		r = descriptor_set_top(d, low);
	for (unsigned i = n - 1; i > 0 && !r; i--)
		r = descriptor_remove(d, &guids[i]);
	return r ? r : descriptor_rename(d, low, high);
}

int merge_names_commit(struct merge_names *names, const char *file, struct ploop_error *err)
{
	struct descriptor *d = names->change.descriptor;
	_free_ char *path = NULL;
	int r;

	if (!names->n)
		return 0;
	r = edit(d, names->guids, names->n);
	if (!r && file) {
		path = realpath(file, NULL);
		r = path ? descriptor_set_file(d, &names->guids[names->n - 1], path) : -errno;
	}
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s: cannot be changed", names->change.path);
	return change_commit(&names->change, err);
}

void merge_names_end(struct merge_names *names)
{
	free(take_ptr(names->guids));
	change_end(&names->change);
}
