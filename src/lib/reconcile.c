/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * reconcile.c - see reconcile.h.
 *
 * Why each is right:
 *  BEHIND    The new delta is empty, so that giving it to the device now makes a snapshot of what is there now.
 *  MERGED    ploopd empties an image before it lets it go, and only when its data is in the image below: the descriptor
 *            may forget what maps nothing, and then the file is not needed.
 *  AHEAD     What the device writes to is the newest there is. The descriptor takes its images over, with new names for the
 *            snapshots between.
 */
#include "lib/reconcile.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/journal.h"
#include "image/stack.h"
#include "io/io.h"
#include "lib/settle.h"

#define INDEX_CHUNK (1u << 20)

static const char *top_of(const struct ploop_device *device)
{
	return device->images[device->nimages - 1];
}

/* ---- Files ---- */

static bool all_zero(const uint8_t *bytes, size_t n)
{
	return !n || (!*bytes && !memcmp(bytes, bytes + 1, n - 1));
}

static bool index_is_zero(const struct delta *delta)
{
	uint64_t at = delta->geometry.index, end = at + 4 * (uint64_t)delta->geometry.clusters;
	uint8_t *buffer = io_buffer_new(INDEX_CHUNK);
	bool zero = buffer != NULL;

	while (zero && at < end) {
		size_t take = (size_t)min_u64(end - at, INDEX_CHUNK);

		zero = io_pread(delta->file, buffer, take, at) == 0 && all_zero(buffer, take);
		at += take;
	}
	if (buffer)
		io_buffer_free(buffer, INDEX_CHUNK);
	return zero;
}

bool image_is_empty(const char *path)
{
	const struct stack_request request = {
		.operands = &path, .noperands = 1, .read_only = true, .unlocked = true, .outside = true
	};
	struct stack *stack;
	bool empty;

	if (stack_open(NULL, &request, &stack, NULL) < 0)
		return false;
	empty = index_is_zero(&stack->levels[0]);
	stack_close(stack);
	return empty;
}

static bool snapshot_is_empty(const struct change *change, const struct snapshot *snapshot)
{
	_free_ char *file = descriptor_file(change->descriptor, snapshot);

	return file && image_is_empty(file);
}

/* ---- Comparing ---- */

/* The place in the chain of a file; -1 when it is not in it. */
static int place_of(const struct change *change, const struct comparison *c, const char *image)
{
	for (unsigned i = c->n; i-- > 0;) {
		_free_ char *file = descriptor_file(change->descriptor, c->chain[i]);

		if (file && change_same_file(file, image))
			return (int)i;
	}
	return -1;
}

/* The snapshot that the device was opened at, when it is still called so; else the top. */
static const struct snapshot *opened_at(const struct change *change, const struct ploop_device *device)
{
	const struct snapshot *s = NULL;
	struct guid guid;

	if (device->descriptor && device->snapshot && change_same_file(device->descriptor, change->path) &&
	    guid_parse(device->snapshot, &guid))
		s = descriptor_find(change->descriptor, &guid);
	return s ? s : descriptor_top(change->descriptor);
}

/* Fills missing[]; how many images, from the base on, are in the chain, in its order. */
static unsigned match(const struct change *change, struct comparison *c)
{
	int last = -1, place;
	unsigned i;

	memset(c->missing, true, sizeof(c->missing));
	for (i = 0; i < c->device->nimages; i++) {
		place = place_of(change, c, c->device->images[i]);
		if (place <= last || (!i && place))
			break;
		c->missing[place] = false;
		last = place;
	}
	return i;
}

static enum standing judge_missing(const struct change *change, const struct comparison *c)
{
	const unsigned top = c->n - 1;
	bool only_top = c->device->nimages == top && c->missing[top];

	/* A merge marks what it merges into as temporary. One that was opened by file names may be meant to write to a
	 * snapshot, however wrong that is. */
	if (only_top && c->chain[top - 1]->temporary == SNAPSHOT_KEPT)
		return c->device->descriptor ? STANDING_BEHIND : STANDING_DIVERGED;
	for (unsigned i = 0; i < c->n; i++)
		if (c->missing[i] && !snapshot_is_empty(change, c->chain[i]))
			return STANDING_DIVERGED;
	return STANDING_MERGED;
}

static enum standing judge(const struct change *change, struct comparison *c)
{
	bool at_top = c->chain[c->n - 1] == descriptor_top(change->descriptor);
	unsigned matched = match(change, c), nimages = (unsigned)c->device->nimages;

	c->known = matched;
	if (matched == nimages)
		return matched == c->n ? STANDING_SAME : judge_missing(change, c);
	if (place_of(change, c, top_of(c->device)) >= 0)
		return at_top ? STANDING_DIVERGED : STANDING_NONE;
	return at_top && matched == c->n ? STANDING_AHEAD : STANDING_NONE;
}

int compare_device(const struct change *change, const struct ploop_device *device, struct comparison *ret,
		   struct ploop_error *err)
{
	int n;

	*ret = (struct comparison){ .device = device };
	if (device->read_only)
		return 0;
	n = tree_chain(change->descriptor, opened_at(change, device), ret->chain, err);
	if (n < 0)
		return n;
	ret->n = (unsigned)n;
	ret->standing = judge(change, ret);
	return 0;
}

/* ---- Bringing in line ---- */

int catch_up(struct change *change, const struct comparison *comparison, struct ploop_error *err)
{
	_free_ char *file = descriptor_file(change->descriptor, comparison->chain[comparison->n - 1]);
	int r;

	if (!file)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", change->path);
	log_warning("%s is one snapshot behind its descriptor, as somebody was interrupted: %s becomes its top",
		    comparison->device->device, file);
	r = settle_device(comparison->device->name, err);
	if (r == 0)
		r = push_delta(comparison->device, file, err);
	return r < 0 ? r : change_list_devices(change, err);
}

/* The descriptor is stored, and files that it does not name any more go. */
static int commit(struct change *change, struct ploop_error *err)
{
	int r = change_commit(change, err);

	if (r == 0 && change->journal)
		r = journal_settle(change->dir, change->name, err);
	change->journal = false;
	return r < 0 ? r : change_read(change, err);
}

/* Each image that is there takes over those above it that are not. */
static int forget_runs(struct descriptor *d, const struct guid *guids, const bool *missing, unsigned n)
{
	int r = 0;

	for (unsigned end = n, at = n; at-- > 0 && r == 0;) {
		if (missing[at])
			continue;
		if (end - at > 1)
			r = change_fuse(d, guids + at, end - at);
		end = at;
	}
	return r;
}

int forget_merged(struct change *change, const struct comparison *comparison, struct ploop_error *err)
{
	struct guid guids[TREE_MAX_DEPTH]; /* edits move the structs */
	const char *files[TREE_MAX_DEPTH];
	unsigned nfiles = 0;
	int r;

	for (unsigned i = 0; i < comparison->n; i++) {
		guids[i] = comparison->chain[i]->guid;
		if (comparison->missing[i])
			files[nfiles++] = comparison->chain[i]->file;
	}
	log_warning("%s names %u image%s that %s has merged, as somebody was interrupted: it forgets %s", change->path,
		    nfiles, nfiles > 1 ? "s" : "", comparison->device->device, nfiles > 1 ? "them" : "it");
	r = change_journal(change, "merge", files, nfiles, err);
	if (r < 0)
		return r;
	r = forget_runs(change->descriptor, guids, comparison->missing, comparison->n);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path)
		     : commit(change, err);
}

static int learn_image(struct descriptor *d, const char *image)
{
	struct guid top, snapshot;
	int r;

	guid_parse(GUID_TOP, &top);
	guid_generate(&snapshot);
	r = descriptor_rename(d, &d->top, &snapshot);
	if (r == 0)
		r = descriptor_add(d, &top, &snapshot, image);
	return r < 0 ? r : descriptor_set_top(d, &top);
}

int learn_images(struct change *change, const struct comparison *comparison, struct ploop_error *err)
{
	const struct ploop_device *device = comparison->device;
	int r = 0;

	for (size_t i = comparison->known; i < device->nimages && r == 0; i++)
		r = learn_image(change->descriptor, device->images[i]);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "%s cannot be changed", change->path)
		     : commit(change, err);
}

static int diverged(const struct change *change, const struct comparison *c, struct ploop_error *err)
{
	const struct ploop_device *device = c->device;

	return error_set(
		err, -EUCLEAN, PLOOP_EXIT_DISKDESCR,
		"%s and %s, which runs on it, do not agree on the images: the device writes to %s%s; see `ploop "
		"repair-descriptor --dry-run %s`",
		change->path, device->device, top_of(device),
		c->standing == STANDING_AHEAD ? ", which the descriptor does not know" : "", change->path);
}

static int bring_in_line(struct change *change, const struct comparison *c, struct ploop_error *err)
{
	switch (c->standing) {
	case STANDING_BEHIND:
		return catch_up(change, c, err);
	case STANDING_MERGED:
		return forget_merged(change, c, err);
	case STANDING_AHEAD:
	case STANDING_DIVERGED:
		return diverged(change, c, err);
	default:
		return 0;
	}
}

/* Each turn brings one device in line; then the lists are other ones. */
int reconcile(struct change *change, struct ploop_error *err)
{
	size_t turns = change->ndevices + 1;
	struct comparison c;
	int r = 0;

	for (size_t i = 0; i < change->ndevices && r == 0; i++) {
		r = compare_device(change, &change->devices[i], &c, err);
		if (r == 0 && c.standing == STANDING_SAME && c.chain[c.n - 1] == descriptor_top(change->descriptor))
			change->writer = &change->devices[i];
		if (r < 0 || c.standing == STANDING_NONE || c.standing == STANDING_SAME)
			continue;
		if (!turns--)
			return diverged(change, &c, err);
		r = bring_in_line(change, &c, err);
		i = (size_t)-1;
		change->writer = NULL;
	}
	return r;
}
