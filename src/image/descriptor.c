/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* descriptor.c - reads a descriptor and judges every field of it. */
#include "image/descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/cleanup.h"
#include "base/error.h"
#include "format/ploop1.h"
#include "image/tree.h"
#include "image/xml.h"

#define refuse(err, ...) error_set(err, -EINVAL, PLOOP_EXIT_DISKDESCR, __VA_ARGS__)

static int no_node(const struct descriptor *d, const char *name, struct ploop_error *err)
{
	return refuse(err, "%s: Invalid disk descriptor file format: '%s' node not found", d->path, name);
}

/* Takes the number in the child `name`; a child that is not there leaves *ret alone. */
static int take_number(const struct descriptor *d, const xmlNode *parent, const char *name, uint64_t max, uint64_t *ret,
		       struct ploop_error *err)
{
	const xmlNode *node = xml_child(parent, name);
	uint64_t number;

	if (!node)
		return 0;
	if (!xml_number(node, &number) || number > max)
		return refuse(err, "Can't parse %s: line %ld: <%s> is not a number from 0 to %llu", d->path,
			      xmlGetLineNo(node), name, (unsigned long long)max);
	*ret = number;
	return 0;
}

static int take_sectors(const struct descriptor *d, const xmlNode *parent, const char *name, uint64_t *ret_bytes,
			struct ploop_error *err)
{
	uint64_t sectors = 0;
	int r = take_number(d, parent, name, INT64_MAX / SECTOR, &sectors, err);

	if (!r)
		*ret_bytes = sectors * SECTOR;
	return r;
}

static int take_guid(const struct descriptor *d, const xmlNode *parent, const char *name, struct guid *ret,
		     struct ploop_error *err)
{
	const xmlNode *node = xml_child(parent, name);
	char *text;
	bool good;

	if (!node)
		return no_node(d, name, err);
	text = xml_text(node);
	good = text && guid_parse(text, ret);
	xmlFree(text);
	if (!good)
		return refuse(err, "Can't parse %s: line %ld: <%s> is not a GUID", d->path, xmlGetLineNo(node), name);
	return 0;
}

static int parse_parameters(struct descriptor *d, const xmlNode *root, struct ploop_error *err)
{
	const xmlNode *node = xml_child(root, "Disk_Parameters");
	uint64_t cylinders = 0, heads = 0, sectors = 0, padding = 0;
	int r;

	if (!node)
		return no_node(d, "/Disk_Parameters", err);
	if (!xml_child(node, "Disk_size"))
		return no_node(d, "Disk_size", err);
	r = take_sectors(d, node, "Disk_size", &d->size, err);
	if (!r)
		r = take_sectors(d, node, "Max_delta_size", &d->max_delta, err);
	if (!r)
		r = take_number(d, node, "Cylinders", UINT32_MAX, &cylinders, err);
	if (!r)
		r = take_number(d, node, "Heads", UINT32_MAX, &heads, err);
	if (!r)
		r = take_number(d, node, "Sectors", UINT32_MAX, &sectors, err);
	if (!r)
		r = take_number(d, node, "Padding", UINT64_MAX, &padding, err);
	if (r)
		return r;
	if (!d->size)
		return refuse(err, "%s: <Disk_size> is 0", d->path);
	if (padding)
		return refuse(err, "%s: <Padding> is not 0: a disk with padding is not supported", d->path);
	d->cylinders = (uint32_t)cylinders;
	d->heads = (uint32_t)heads;
	d->sectors = (uint32_t)sectors;
	d->encrypted = xml_child(node, "Encryption") != NULL;
	return 0;
}

/* Powers of two, and the multiples of 63 sectors that very old products made: their images can be read. */
static bool cluster_legal(uint64_t sectors)
{
	if (sectors && sectors % 63 == 0)
		return sectors * SECTOR <= PLOOP1_CLUSTER_MAX;
	return is_power_of_two(sectors) && sectors * SECTOR >= PLOOP1_CLUSTER_MIN &&
	       sectors * SECTOR <= PLOOP1_CLUSTER_MAX;
}

static int parse_type(struct descriptor *d, const xmlNode *image, bool *ret_plain, struct ploop_error *err)
{
	const xmlNode *node = xml_child(image, "Type");
	char *type;
	int r = 0;

	if (!node)
		return no_node(d, "Type", err);
	type = xml_text(node);
	if (type && !strcmp(type, "Plain"))
		*ret_plain = true;
	else if (type && !strcmp(type, "Compressed"))
		*ret_plain = false;
	else
		r = refuse(err, "Can't parse %s: line %ld: <Type> is neither Compressed nor Plain", d->path,
			   xmlGetLineNo(node));
	xmlFree(type);
	return r;
}

/* Gives a snapshot its file. */
static int parse_image(struct descriptor *d, xmlNode *image, struct ploop_error *err)
{
	const xmlNode *node = xml_child(image, "File");
	struct snapshot *snapshot;
	struct guid guid;
	char *file;
	int r = take_guid(d, image, "GUID", &guid, err);

	if (r)
		return r;
	if (!node)
		return no_node(d, "File", err);
	snapshot = descriptor_find(d, &guid);
	if (!snapshot)
		return refuse(err, "Validation of %s failed: image %s has no snapshot", d->path, guid.text);
	if (snapshot->image)
		return refuse(err, "Validation of %s failed: snapshot %s has two images", d->path, guid.text);
	r = parse_type(d, image, &snapshot->plain, err);
	if (r)
		return r;
	file = xml_text(node);
	snapshot->file = file ? strdup(file) : NULL;
	xmlFree(file);
	if (!snapshot->file)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", d->path);
	if (!*snapshot->file || !xml_can_hold(snapshot->file))
		return refuse(err, "Can't parse %s: line %ld: <File> is empty or has control characters", d->path,
			      xmlGetLineNo(node));
	snapshot->image = image;
	if (snapshot->plain)
		d->mode = IMAGE_RAW;
	return 0;
}

static int parse_images(struct descriptor *d, const xmlNode *storage, struct ploop_error *err)
{
	uint64_t preallocated = 0;
	int r = take_number(d, storage, "Preallocated", 1, &preallocated, err);

	for (xmlNode *image = xml_child(storage, "Image"); image && !r; image = xml_next(image))
		r = parse_image(d, image, err);
	if (r || !preallocated)
		return r;
	if (d->mode == IMAGE_RAW)
		return refuse(err, "%s: Preallocated is not compatible with Plain image", d->path);
	d->mode = IMAGE_PREALLOCATED;
	return 0;
}

static int find_storage(struct descriptor *d, const xmlNode *root, const xmlNode **ret, struct ploop_error *err)
{
	const xmlNode *data = xml_child(root, "StorageData"), *storage;
	uint64_t start = 0, cluster = 0;
	int r;

	if (!data)
		return no_node(d, "/StorageData", err);
	storage = xml_child(data, "Storage");
	if (!storage)
		return no_node(d, "/StorageData/Storage", err);
	r = take_number(d, storage, "Start", UINT64_MAX, &start, err);
	if (r)
		return r;
	if (xml_next(storage) || start)
		return refuse(err, "%s: Invalid disk descriptor file format: splitted disk is not supported", d->path);
	if (!xml_child(storage, "Blocksize"))
		return no_node(d, "Blocksize", err);
	r = take_number(d, storage, "Blocksize", UINT64_MAX, &cluster, err);
	if (r)
		return r;
	if (!cluster_legal(cluster))
		return refuse(err, "%s: Invalid block size %llu", d->path, (unsigned long long)cluster);
	if (!xml_child(storage, "Image"))
		return refuse(err, "No images found in %s", d->path);
	d->cluster = (uint32_t)(cluster * SECTOR);
	d->volume = xml_child(data, "Volume") != NULL;
	*ret = storage;
	return 0;
}

static int count_elements(const struct descriptor *d, const xmlNode *parent, const char *name, uint32_t *ret,
			  struct ploop_error *err)
{
	uint32_t n = 0;

	for (const xmlNode *node = xml_child(parent, name); node; node = xml_next(node))
		n++;
	if (n > DESCRIPTOR_MAX_SNAPSHOTS)
		return refuse(err, "%s: %u <%s> elements; at most %u snapshots are accepted", d->path, n, name,
			      DESCRIPTOR_MAX_SNAPSHOTS);
	*ret = n;
	return 0;
}

static enum snapshot_temporary parse_temporary(const xmlNode *shot)
{
	if (xml_child(shot, "TemporaryZeroSwap"))
		return SNAPSHOT_TEMPORARY_ZERO_SWAP;
	if (xml_child(shot, "TemporaryZero"))
		return SNAPSHOT_TEMPORARY_ZERO;
	return xml_child(shot, "Temporary") ? SNAPSHOT_TEMPORARY : SNAPSHOT_KEPT;
}

static int parse_shots(struct descriptor *d, const xmlNode *snapshots, struct ploop_error *err)
{
	for (xmlNode *shot = xml_child(snapshots, "Shot"); shot; shot = xml_next(shot)) {
		struct snapshot *s = &d->snapshots[d->nsnapshots];
		int r = take_guid(d, shot, "GUID", &s->guid, err);

		if (!r)
			r = take_guid(d, shot, "ParentGUID", &s->parent, err);
		if (r)
			return r;
		s->temporary = parse_temporary(shot);
		s->shot = shot;
		d->nsnapshots++;
	}
	return 0;
}

static bool top_has_shot(const struct descriptor *d)
{
	for (uint32_t i = 0; i < d->nsnapshots; i++)
		if (guid_is_top(&d->snapshots[i].guid))
			return true;
	return false;
}

/*
 * Very old descriptors have no Shot for their one image. It becomes the top, as a base. Where there are several, the
 * one that lacks a Shot can only be the top by its constant GUID.
 */
static int add_missing_shot(struct descriptor *d, xmlNode *snapshots, const xmlNode *storage, uint32_t images,
			    struct ploop_error *err)
{
	struct snapshot *s = &d->snapshots[d->nsnapshots];
	int r = 0;

	if (images == 1)
		r = take_guid(d, xml_child(storage, "Image"), "GUID", &s->guid, err);
	else
		guid_parse(GUID_TOP, &s->guid);
	if (r)
		return r;
	guid_parse(GUID_NONE, &s->parent);
	s->shot = xml_add(snapshots, "Shot", NULL);
	if (!s->shot || !xml_add(s->shot, "GUID", s->guid.text) || !xml_add(s->shot, "ParentGUID", GUID_NONE) ||
	    (!xml_child(snapshots, "TopGUID") && !xml_set_text(snapshots, "TopGUID", NULL, s->guid.text)))
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", d->path);
	d->nsnapshots++;
	return 0;
}

static int parse_top(struct descriptor *d, const xmlNode *snapshots, struct ploop_error *err)
{
	const xmlNode *node = xml_child(snapshots, "TopGUID");
	const struct snapshot *top;
	char *text = NULL;
	int r = 0;

	guid_parse(GUID_TOP, &d->top);
	if (node) {
		text = xml_text(node);
		if (!text || !guid_parse(text, &d->top))
			r = refuse(err, "Validation of %s failed: invalid top delta %.64s", d->path,
				   text && xml_can_hold(text) ? text : "");
	} else if (!descriptor_find(d, &d->top)) {
		r = refuse(err, "Validation of %s failed: invalid top delta (there is no TopGUID)", d->path);
	}
	xmlFree(text);
	if (r)
		return r;
	top = descriptor_top(d);
	if (!top)
		return refuse(err, "Validation of %s failed: top delta %s is not found", d->path, d->top.text);
	if (top->temporary == SNAPSHOT_TEMPORARY)
		return refuse(err, "Validation of %s failed: top delta %s is temporary", d->path, d->top.text);
	return 0;
}

static int index_snapshots(struct descriptor *d, struct ploop_error *err)
{
	uint32_t bad = 0;
	int r = tree_index(d, &bad);

	if (r == -EEXIST)
		return refuse(err, "Validation of %s failed: there are two snapshots %s", d->path,
			      d->snapshots[bad].guid.text);
	if (r == -ELOOP)
		return refuse(err, "Validation of %s failed: snapshot %s descends from itself", d->path,
			      d->snapshots[bad].guid.text);
	return r ? error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", d->path) : 0;
}

static int parse_snapshots(struct descriptor *d, const xmlNode *root, const xmlNode *storage, struct ploop_error *err)
{
	xmlNode *snapshots = xml_child(root, "Snapshots");
	uint32_t shots = 0, images = 0;
	int r;

	if (!snapshots)
		return no_node(d, "/Snapshots", err);
	r = count_elements(d, snapshots, "Shot", &shots, err);
	if (!r)
		r = count_elements(d, storage, "Image", &images, err);
	if (r)
		return r;
	d->snapshots = calloc(shots + 1, sizeof(*d->snapshots));
	if (!d->snapshots)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", d->path);
	r = parse_shots(d, snapshots, err);
	if (!r && images > shots && !d->volume && !top_has_shot(d))
		r = add_missing_shot(d, snapshots, storage, images, err);
	if (!r && images != d->nsnapshots && !d->volume)
		r = refuse(err, "Validation of %s failed: images(%u) != snapshots(%u)", d->path, images, shots);
	if (!r)
		r = index_snapshots(d, err);
	if (!r)
		r = parse_top(d, snapshots, err);
	return r;
}

static int parse_root(struct descriptor *d, struct ploop_error *err)
{
	/* Nobody ever looked at the name of the root, and there are two. */
	const xmlNode *root = xmlDocGetRootElement(d->doc), *storage = NULL;
	int r = parse_parameters(d, root, err);

	if (!r)
		r = find_storage(d, root, &storage, err);
	if (!r)
		r = parse_snapshots(d, root, storage, err);
	if (!r)
		r = parse_images(d, storage, err);
	return r;
}

int descriptor_parse(const char *text, size_t len, const char *path, struct descriptor **ret, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = calloc(1, sizeof(*d));
	int r;

	if (d)
		d->path = strdup(path);
	if (!d || !d->path)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	if (len > DESCRIPTOR_MAX_TEXT)
		return refuse(err, "Can't parse %s: it is longer than %u MiB", path, DESCRIPTOR_MAX_TEXT >> 20);
	r = xml_parse(text, len, DESCRIPTOR_MAX_TAGS, path, &d->doc, err);
	if (!r)
		r = parse_root(d, err);
	if (!r)
		*ret = take_ptr(d);
	return r;
}

void descriptor_free(struct descriptor *d)
{
	if (!d)
		return;
	for (uint32_t i = 0; d->snapshots && i < d->nsnapshots; i++)
		free(d->snapshots[i].file);
	free(d->snapshots);
	free(d->table);
	xmlFreeDoc(d->doc);
	free(d->path);
	free(d);
}

bool descriptor_raw(const struct snapshot *snapshot)
{
	return snapshot->plain && tree_is_base(snapshot);
}
