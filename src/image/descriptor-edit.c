/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * descriptor-edit.c - changes to a descriptor in memory. Each is made twice, in the XML and in the structs; what can
 * fail for another reason than memory is checked before the first of the two.
 */
#include "image/descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "format/format.h"
#include "image/tree.h"
#include "image/xml.h"

static xmlNode *root_of(const struct descriptor *d)
{
	return xmlDocGetRootElement(d->doc);
}

static xmlNode *storage_of(const struct descriptor *d)
{
	return xml_child(xml_child(root_of(d), "StorageData"), "Storage");
}

static xmlNode *snapshots_of(const struct descriptor *d)
{
	return xml_child(root_of(d), "Snapshots");
}

static int reindex(struct descriptor *d)
{
	uint32_t bad;

	return tree_index(d, &bad);
}

/* How a file is written: relative to the folder of the descriptor when it lies beneath it. Points into `file`. */
static const char *written_file(const struct descriptor *d, const char *file)
{
	const char *slash = strrchr(d->path, '/');
	size_t folder = slash ? (size_t)(slash - d->path) + 1 : 0;

	if (folder && !strncmp(file, d->path, folder) && file[folder]) {
		file += folder;
		while (*file == '/')
			file++;
	}
	return file;
}

static int add_elements(struct descriptor *d, struct snapshot *s)
{
	s->image = xml_add(storage_of(d), "Image", NULL);
	s->shot = xml_add(snapshots_of(d), "Shot", NULL);
	if (s->image && s->shot && xml_add(s->image, "GUID", s->guid.text) && xml_add(s->image, "Type", "Compressed") &&
	    xml_add(s->image, "File", s->file) && xml_add(s->shot, "GUID", s->guid.text) &&
	    xml_add(s->shot, "ParentGUID", s->parent.text))
		return 0;
	return -ENOMEM;
}

int descriptor_add(struct descriptor *d, const struct guid *guid, const struct guid *parent, const char *file)
{
	struct snapshot *more;
	struct snapshot s = { .guid = *guid, .parent = *parent };
	int r;

	if (descriptor_find(d, guid))
		return -EEXIST;
	if (!guid_is_none(parent) && !descriptor_find(d, parent))
		return -ENOENT;
	if (!xml_can_hold(file) || d->nsnapshots >= DESCRIPTOR_MAX_SNAPSHOTS)
		return -EINVAL;
	more = realloc(d->snapshots, (d->nsnapshots + 1) * sizeof(*more));
	if (!more)
		return -ENOMEM;
	d->snapshots = more;
	s.file = strdup(written_file(d, file));
	if (!s.file)
		return -ENOMEM;
	r = add_elements(d, &s);
	if (r < 0) {
		free(s.file);
		return r;
	}
	d->snapshots[d->nsnapshots++] = s;
	return reindex(d);
}

int descriptor_remove(struct descriptor *d, const struct guid *guid)
{
	struct snapshot *s = descriptor_find(d, guid);

	if (!s)
		return -ENOENT;
	if (guid_equal(&d->top, guid))
		return -EINVAL;
	if (s->image)
		xml_remove(s->image);
	xml_remove(s->shot);
	free(s->file);
	memmove(s, s + 1, (size_t)(d->snapshots + d->nsnapshots - (s + 1)) * sizeof(*s));
	d->nsnapshots--;
	return reindex(d);
}

static bool write_guid(struct snapshot *s, const struct guid *guid)
{
	s->guid = *guid;
	return xml_set_text(s->shot, "GUID", NULL, guid->text) &&
	       (!s->image || xml_set_text(s->image, "GUID", NULL, guid->text));
}

static bool write_parent(struct snapshot *s, const struct guid *parent)
{
	s->parent = *parent;
	return xml_set_text(s->shot, "ParentGUID", "GUID", parent->text);
}

int descriptor_set_top(struct descriptor *d, const struct guid *guid)
{
	const struct snapshot *s = descriptor_find(d, guid);

	if (!s)
		return -ENOENT;
	if (s->temporary == SNAPSHOT_TEMPORARY)
		return -EINVAL;
	d->top = s->guid;
	return xml_set_text(snapshots_of(d), "TopGUID", NULL, d->top.text) ? 0 : -ENOMEM;
}

int descriptor_rename(struct descriptor *d, const struct guid *from, const struct guid *to)
{
	const struct guid old = *from; /* `from` may lie in what is changed */
	struct snapshot *s = descriptor_find(d, &old), *child;
	bool top, good;
	int r;

	if (!s)
		return -ENOENT;
	if (guid_is_none(to))
		return -EINVAL;
	if (!guid_equal(&old, to) && descriptor_find(d, to))
		return -EEXIST;
	top = guid_equal(&d->top, &old);
	good = write_guid(s, to);
	tree_for_each_child (child, d, s)
		good = good && write_parent(child, to);
	r = reindex(d);
	if (!good || r < 0)
		return -ENOMEM;
	return top ? descriptor_set_top(d, to) : 0;
}

int descriptor_set_parent(struct descriptor *d, const struct guid *guid, const struct guid *parent)
{
	struct snapshot *s = descriptor_find(d, guid);
	const struct snapshot *up = descriptor_find(d, parent);

	if (!s || (!up && !guid_is_none(parent)))
		return -ENOENT;
	if (up && (up == s || tree_descends(d, up, s)))
		return -EINVAL;
	return write_parent(s, parent) ? reindex(d) : -ENOMEM;
}

int descriptor_set_file(struct descriptor *d, const struct guid *guid, const char *file)
{
	struct snapshot *s = descriptor_find(d, guid);
	char *copy;

	if (!s || !s->image)
		return -ENOENT;
	if (!xml_can_hold(file))
		return -EINVAL;
	copy = strdup(written_file(d, file));
	if (!copy)
		return -ENOMEM;
	free(s->file);
	s->file = copy;
	return xml_set_text(s->image, "File", "Type", copy) ? 0 : -ENOMEM;
}

int descriptor_set_temporary(struct descriptor *d, const struct guid *guid, enum snapshot_temporary temporary)
{
	static const char *const names[] = {
		[SNAPSHOT_TEMPORARY] = "Temporary",
		[SNAPSHOT_TEMPORARY_ZERO] = "TemporaryZero",
		[SNAPSHOT_TEMPORARY_ZERO_SWAP] = "TemporaryZeroSwap",
	};
	struct snapshot *s = descriptor_find(d, guid);

	if (!s)
		return -ENOENT;
	if (temporary == SNAPSHOT_TEMPORARY && guid_equal(guid, &d->top))
		return -EINVAL;
	for (unsigned i = SNAPSHOT_TEMPORARY; i < ARRAY_SIZE(names); i++)
		for (xmlNode *node; (node = xml_child(s->shot, names[i]));)
			xml_remove(node);
	s->temporary = temporary;
	return !names[temporary] || xml_add(s->shot, names[temporary], NULL) ? 0 : -ENOMEM;
}

int descriptor_set_size(struct descriptor *d, uint64_t size)
{
	xmlNode *parameters = xml_child(root_of(d), "Disk_Parameters");
	uint64_t sectors = size / SECTOR, track;

	if (!size || size % SECTOR || size > INT64_MAX)
		return -EINVAL;
	d->size = size;
	track = (uint64_t)d->cylinders * d->heads;
	d->sectors = track ? (uint32_t)min_u64(sectors / track, UINT32_MAX) : 0;
	return xml_set_number(parameters, "Disk_size", NULL, sectors) &&
			       xml_set_number(parameters, "Sectors", "Heads", d->sectors) &&
			       xml_set_number(storage_of(d), "End", "Start", sectors)
		       ? 0
		       : -ENOMEM;
}

/* The Type of the base says raw or not; those above are ploop1 whatever happens. */
static bool write_types(struct descriptor *d, enum image_mode mode)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++) {
		struct snapshot *s = &d->snapshots[i];

		if (!s->image)
			continue;
		s->plain = mode == IMAGE_RAW && tree_is_base(s);
		if (!xml_set_text(s->image, "Type", "GUID", s->plain ? "Plain" : "Compressed"))
			return false;
	}
	return true;
}

int descriptor_set_mode(struct descriptor *d, enum image_mode mode)
{
	xmlNode *storage = storage_of(d), *node = xml_child(storage, "Preallocated");

	d->mode = mode;
	if (!write_types(d, mode))
		return -ENOMEM;
	if (mode == IMAGE_PREALLOCATED)
		return xml_set_number(storage, "Preallocated", "Blocksize", 1) ? 0 : -ENOMEM;
	if (node)
		xml_remove(node);
	return 0;
}
