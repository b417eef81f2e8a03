/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* tree.c - kinship of snapshots. */
#include "image/tree.h"

#include <errno.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/error.h"

/* Index of a GUID's slot in the table: that of its snapshot, or the empty one where it would go. */
static uint32_t tree_slot(const struct descriptor *d, const struct guid *guid)
{
	uint32_t slot = (uint32_t)guid_hash(guid) & d->table_mask;

	while (d->table[slot] != SNAPSHOT_NONE && !guid_equal(&d->snapshots[d->table[slot]].guid, guid))
		slot = (slot + 1) & d->table_mask;
	return slot;
}

struct snapshot *descriptor_find(const struct descriptor *d, const struct guid *guid)
{
	uint32_t i = d->table ? d->table[tree_slot(d, guid)] : SNAPSHOT_NONE;

	return i == SNAPSHOT_NONE ? NULL : &d->snapshots[i];
}

struct snapshot *descriptor_top(const struct descriptor *d)
{
	return descriptor_find(d, &d->top);
}

static int tree_hash(struct descriptor *d, uint32_t *ret_bad)
{
	uint32_t size = 16, *table;

	while (size < 2 * d->nsnapshots)
		size *= 2;
	table = malloc(size * sizeof(*table));
	if (!table)
		return -ENOMEM;
	free(d->table);
	d->table = table;
	d->table_mask = size - 1;
	for (uint32_t i = 0; i < size; i++)
		d->table[i] = SNAPSHOT_NONE;
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		uint32_t slot = tree_slot(d, &d->snapshots[i].guid);

		if (d->table[slot] != SNAPSHOT_NONE) {
			*ret_bad = i;
			return -EEXIST;
		}
		d->table[slot] = i;
	}
	return 0;
}

static void tree_link(struct descriptor *d)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		struct snapshot *s = &d->snapshots[i],
				*parent = tree_is_base(s) ? NULL : descriptor_find(d, &s->parent);

		s->up = parent ? (uint32_t)(parent - d->snapshots) : SNAPSHOT_NONE;
		s->first_child = s->next_sibling = SNAPSHOT_NONE;
		s->children = 0;
	}
	/* From the last, so that each list of children ends up in the order of the file. */
	for (uint32_t i = d->nsnapshots; i-- > 0;) {
		struct snapshot *s = &d->snapshots[i], *parent;

		if (s->up == SNAPSHOT_NONE)
			continue;
		parent = &d->snapshots[s->up];
		s->next_sibling = parent->first_child;
		parent->first_child = i;
		parent->children++;
	}
}

/* Climbs from everybody until it meets somebody that an earlier climb met: each is passed once. */
static int tree_find_loop(const struct descriptor *d, uint32_t *ret_bad)
{
	_free_
	uint32_t *met = calloc(d->nsnapshots + 1, sizeof(*met));

	if (!met)
		return -ENOMEM;
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		uint32_t at = i;

		for (; at != SNAPSHOT_NONE && !met[at]; at = d->snapshots[at].up)
			met[at] = i + 1;
		if (at != SNAPSHOT_NONE && met[at] == i + 1) {
			*ret_bad = at;
			return -ELOOP;
		}
	}
	return 0;
}

int tree_index(struct descriptor *d, uint32_t *ret_bad)
{
	int r = tree_hash(d, ret_bad);

	if (r < 0)
		return r;
	tree_link(d);
	return tree_find_loop(d, ret_bad);
}

bool tree_is_base(const struct snapshot *snapshot)
{
	return guid_is_none(&snapshot->parent);
}

const struct snapshot *tree_parent(const struct descriptor *d, const struct snapshot *snapshot)
{
	return snapshot->up == SNAPSHOT_NONE ? NULL : &d->snapshots[snapshot->up];
}

bool tree_descends(const struct descriptor *d, const struct snapshot *snapshot, const struct snapshot *ancestor)
{
	while ((snapshot = tree_parent(d, snapshot)))
		if (snapshot == ancestor)
			return true;
	return false;
}

static int tree_broken(const struct descriptor *d, const struct snapshot *s, struct ploop_error *err)
{
	if (d->volume)
		return error_set(err, -EOPNOTSUPP, PLOOP_EXIT_DISKDESCR,
				 "%s: snapshot %s has its parent in another volume, which is not supported", d->path,
				 s->guid.text);
	return error_set(err, -ENOENT, PLOOP_EXIT_DISKDESCR, "%s: snapshot %s has the parent %s, which is missing",
			 d->path, s->guid.text, s->parent.text);
}

int tree_chain(const struct descriptor *d, const struct snapshot *snapshot, const struct snapshot *ret[TREE_MAX_DEPTH],
	       struct ploop_error *err)
{
	int depth = 0, n;

	for (const struct snapshot *s = snapshot; s; s = tree_parent(d, s)) {
		if (!s->file)
			return error_set(err, -ENOENT, PLOOP_EXIT_DISKDESCR, "%s: snapshot %s has no image", d->path,
					 s->guid.text);
		if (s->up == SNAPSHOT_NONE && !tree_is_base(s))
			return tree_broken(d, s, err);
		depth++;
	}
	if (depth > TREE_MAX_DEPTH)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM,
				 "%s: snapshot %s is the last of %d images; at most %d can be stacked", d->path,
				 snapshot->guid.text, depth, TREE_MAX_DEPTH);
	n = depth;
	for (const struct snapshot *s = snapshot; s; s = tree_parent(d, s))
		ret[--n] = s;
	return depth;
}
