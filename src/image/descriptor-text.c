/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* descriptor-text.c - makes the descriptor of a new disk, and writes descriptors out. */
#include "image/descriptor.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/ploop1.h"
#include "image/dir.h"
#include "image/xml.h"

static bool add_number(xmlNode *parent, const char *name, uint64_t number)
{
	return xml_set_number(parent, name, parent->last ? (const char *)parent->last->name : NULL, number);
}

static bool new_parameters(xmlNode *root, const struct image_params *params)
{
	struct ploop1_chs chs = ploop1_chs(params->size / SECTOR);
	xmlNode *node = xml_add(root, "Disk_Parameters", NULL);

	return node && add_number(node, "Disk_size", params->size / SECTOR) &&
	       add_number(node, "Cylinders", chs.cylinders) && add_number(node, "Heads", chs.heads) &&
	       add_number(node, "Sectors", chs.sectors) && add_number(node, "Padding", 0);
}

static bool new_storage(xmlNode *root, const char *image, const struct image_params *params)
{
	xmlNode *data = xml_add(root, "StorageData", NULL), *storage = data ? xml_add(data, "Storage", NULL) : NULL,
		*node;

	if (!storage || !add_number(storage, "Start", 0) || !add_number(storage, "End", params->size / SECTOR) ||
	    !add_number(storage, "Blocksize", params->cluster / SECTOR))
		return false;
	if (params->mode == IMAGE_PREALLOCATED && !add_number(storage, "Preallocated", 1))
		return false;
	node = xml_add(storage, "Image", NULL);
	return node && xml_add(node, "GUID", GUID_TOP) &&
	       xml_add(node, "Type", params->mode == IMAGE_RAW ? "Plain" : "Compressed") &&
	       xml_add(node, "File", image);
}

static bool new_snapshots(xmlNode *root)
{
	xmlNode *snapshots = xml_add(root, "Snapshots", NULL), *shot;

	if (!snapshots || !xml_add(snapshots, "TopGUID", GUID_TOP))
		return false;
	shot = xml_add(snapshots, "Shot", NULL);
	return shot && xml_add(shot, "GUID", GUID_TOP) && xml_add(shot, "ParentGUID", GUID_NONE);
}

static xmlDoc *new_doc(const char *image, const struct image_params *params)
{
	xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
	xmlNode *root = doc ? xmlNewDocNode(doc, NULL, (const xmlChar *)"Parallels_disk_image", NULL) : NULL;

	if (root)
		xmlDocSetRootElement(doc, root);
	if (root && new_parameters(root, params) && new_storage(root, image, params) && new_snapshots(root))
		return doc;
	xmlFreeDoc(doc);
	return NULL;
}

int descriptor_new(const char *path, const char *image, const struct image_params *params, struct descriptor **ret,
		   struct ploop_error *err)
{
	_free_ char *text = NULL;
	xmlDoc *doc;
	xmlChar *dump = NULL;
	int len = 0;

	if (!xml_can_hold(image))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "Can't create %s: the name of the image is not UTF-8, or has "
				 "control characters, and cannot be written in it",
				 path);
	doc = new_doc(image, params);
	if (doc)
		xmlDocDumpMemory(doc, &dump, &len);
	xmlFreeDoc(doc);
	if (dump)
		text = strdup((const char *)dump);
	xmlFree(dump);
	if (!text)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	/* Read back: what is written passes the same judgement as what others wrote. */
	return descriptor_parse(text, (size_t)len, path, ret, err);
}

int descriptor_to_text(const struct descriptor *d, char **ret, size_t *ret_len)
{
	xmlChar *dump = NULL;
	char *text;
	int len = 0;

	xmlDocDumpFormatMemory(d->doc, &dump, &len, 1);
	if (!dump)
		return -ENOMEM;
	text = strdup((const char *)dump);
	xmlFree(dump);
	if (!text)
		return -ENOMEM;
	*ret = text;
	*ret_len = (size_t)len;
	return 0;
}

/* Newer software knows the top by a constant GUID only. */
static int convert_old(struct descriptor *d, const char *name)
{
	struct guid top;

	if (guid_is_top(&d->top))
		return 0;
	log_info("%s is in old format: converting", name);
	guid_parse(GUID_TOP, &top);
	return descriptor_rename(d, &d->top, &top);
}

static int current_text(struct descriptor *d, const struct dir *dir, const char *name, char **ret, size_t *ret_len,
			struct ploop_error *err)
{
	int r = convert_old(d, name);

	if (!r)
		r = descriptor_to_text(d, ret, ret_len);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "Can't convert %s/%s", dir->path, name) : 0;
}

int descriptor_store(struct descriptor *d, struct dir *dir, const char *name, struct ploop_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r = current_text(d, dir, name, &text, &len, err);

	if (r < 0)
		return r;
	log_info("Storing %s/%s", dir->path, name);
	r = dir_replace(dir, name, text, len);
	if (r < 0)
		return error_sys(err, r, PLOOP_EXIT_DISKDESCR, "Can't write %s/%s", dir->path, name);
	return 0;
}

int descriptor_stage(struct descriptor *d, struct dir *dir, const char *name, const char *stage,
		     struct ploop_error *err)
{
	_free_ char *text = NULL;
	size_t len;
	int r = current_text(d, dir, name, &text, &len, err);

	if (r < 0)
		return r;
	r = dir_write(dir, stage, text, len, name);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_DISKDESCR, "Can't write %s/%s", dir->path, stage) : 0;
}
