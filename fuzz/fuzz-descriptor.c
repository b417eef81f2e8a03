/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* DiskDescriptor.xml from a stranger: whatever is accepted can be walked, edited, written, and read again as the same. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "image/descriptor.h"
#include "image/tree.h"

static void must(bool good)
{
	if (!good)
		abort();
}

static void walk(const struct descriptor *d)
{
	const struct snapshot *chain[TREE_MAX_DEPTH], *child;

	must(descriptor_top(d) != NULL);
	for (uint32_t i = 0; i < d->nsnapshots && i < 100; i++) {
		const struct snapshot *s = &d->snapshots[i];
		uint32_t children = 0;
		int n = tree_chain(d, s, chain, NULL);

		must(descriptor_find(d, &s->guid) == s);
		must(n <= TREE_MAX_DEPTH && (n <= 0 || chain[n - 1] == s));
		tree_for_each_child (child, d, s)
			must(++children <= s->children && tree_descends(d, child, s));
		must(children == s->children);
		if (s->file)
			free(descriptor_file(d, s));
	}
}

/* What is written is read as the same. */
static void write_and_read(const struct descriptor *d)
{
	struct descriptor *again = NULL;
	char *text = NULL;
	size_t len;

	must(descriptor_to_text(d, &text, &len) == 0);
	if (len <= DESCRIPTOR_MAX_TEXT) {
		must(descriptor_parse(text, len, d->path, &again, NULL) == 0);
		must(again->nsnapshots == d->nsnapshots && guid_equal(&again->top, &d->top) && again->size == d->size);
		must(again->mode == d->mode && again->cluster == d->cluster);
		for (uint32_t i = 0; i < d->nsnapshots; i++) {
			const struct snapshot *a = &d->snapshots[i], *b = &again->snapshots[i];

			must(guid_equal(&a->guid, &b->guid) && guid_equal(&a->parent, &b->parent));
			must(a->temporary == b->temporary && a->plain == b->plain && a->up == b->up);
			must(a->file ? !strcmp(a->file, b->file) : !b->file);
		}
	}
	descriptor_free(again);
	free(text);
}

static void edit(struct descriptor *d)
{
	const struct guid old_top = d->top;
	struct guid snapshot = { "{0badc0de-0000-4000-8000-00000000000a}" }, top = { GUID_TOP };

	/* Take a snapshot, as the verb would. */
	if (descriptor_rename(d, &d->top, &snapshot) < 0 || descriptor_find(d, &top))
		return;
	must(descriptor_add(d, &top, &snapshot, "/disk/new") == 0 || d->nsnapshots == DESCRIPTOR_MAX_SNAPSHOTS);
	if (!descriptor_find(d, &top))
		return;
	must(descriptor_set_top(d, &top) == 0);
	must(descriptor_set_size(d, 1 << 20) == 0);
	write_and_read(d);
	/* And undo it. */
	must(descriptor_set_top(d, &snapshot) == 0);
	must(descriptor_remove(d, &top) == 0);
	must(descriptor_rename(d, &snapshot, &old_top) == 0);
	write_and_read(d);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct descriptor *d;

	if (descriptor_parse((const char *)data, size, "/disk/DiskDescriptor.xml", &d, NULL) < 0)
		return 0;
	walk(d);
	write_and_read(d);
	edit(d);
	descriptor_free(d);
	return 0;
}
