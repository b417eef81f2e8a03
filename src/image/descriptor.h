/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * descriptor.h - DiskDescriptor.xml: which image files make up a disk, and how its snapshots descend from one
 * another.
 *
 * A descriptor is text from a stranger: it is bounded before it is parsed, may declare no document type (and so no
 * entities), and every field is checked. It is read into a tree of XML nodes that is kept and edited, so that
 * whatever other software put there is still there after a rewrite.
 *
 * An <Image> and a <Shot> with the same GUID are two halves of one thing, here called a snapshot: the file that holds
 * what was written after its parent and before its children. The one that is written now is the top.
 *
 * Invariants of a descriptor in memory, established by reading and kept by every edit:
 *  1. No two snapshots have the same GUID; the top is one of them and not temporary.
 *  2. Nobody is his own ancestor. A parent may be missing: that breaks only the chains through it.
 */
#ifndef IMAGE_DESCRIPTOR_H
#define IMAGE_DESCRIPTOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "image/create.h"
#include "image/guid.h"

struct _xmlDoc;
struct _xmlNode;
struct dir;
struct ploop_error;

#define DESCRIPTOR_NAME "DiskDescriptor.xml"

/* What is refused before anybody looks at it. A disk of 16384 snapshots needs about half of each. */
#define DESCRIPTOR_MAX_TEXT (16u * 1024 * 1024)
#define DESCRIPTOR_MAX_TAGS 500000u
#define DESCRIPTOR_MAX_SNAPSHOTS 16384u

#define SNAPSHOT_NONE UINT32_MAX

enum snapshot_temporary {
	SNAPSHOT_KEPT,
	SNAPSHOT_TEMPORARY, /* goes away by itself when nobody uses it */
	/* Stages of a merge of the base into its child by newer originals. The two files hold disjoint clusters then,
	 * so that the chain reads right in either order. */
	SNAPSHOT_TEMPORARY_ZERO,
	SNAPSHOT_TEMPORARY_ZERO_SWAP,
};

struct snapshot {
	struct guid guid, parent;
	enum snapshot_temporary temporary;
	char *file; /* as the descriptor has it; NULL when it has no Image (a parent volume's) */
	bool plain; /* the label; see descriptor_raw() */

	/* Computed: indices into descriptor.snapshots, or SNAPSHOT_NONE. Children are in the order of the file. */
	uint32_t up, first_child, next_sibling;
	uint32_t children;

	struct _xmlNode *shot, *image; /* the descriptor's */
};

struct descriptor {
	char *path;         /* for messages, and where files are looked for; absolute when it came from a file */
	uint64_t size;      /* bytes; only a hint, the image of the top has the last word */
	uint64_t max_delta; /* bytes that the top's file may grow to; 0: no limit */
	uint32_t cluster;   /* bytes */
	uint32_t cylinders, heads, sectors;
	enum image_mode mode;
	bool encrypted; /* the disk's content is a LUKS volume */
	bool volume;    /* belongs to a tree of volumes: snapshots of its parents are described elsewhere */
	struct guid top;
	struct snapshot *snapshots; /* in the order of the Shots in the file */
	uint32_t nsnapshots;

	struct _xmlDoc *doc;
	uint32_t *table; /* hash of the GUIDs: indices, or SNAPSHOT_NONE */
	uint32_t table_mask;
};

/*
 * Finds out whether an operand of the user names a disk by its descriptor: the file, under any name, or its folder.
 * Returns 1 and its absolute path with links followed, 0 when it names something else (an image), or a negative
 * errno.
 */
int descriptor_find_file(const char *operand, char **ret, struct ploop_error *err);

/* Reads a descriptor. Failures have the status 39 (4 when the file cannot be read). */
int descriptor_read(struct dir *dir, const char *name, struct descriptor **ret, struct ploop_error *err);
/* The same from `path`, which may be any path. */
int descriptor_open(const char *path, struct descriptor **ret, struct ploop_error *err);
int descriptor_parse(const char *text, size_t len, const char *path, struct descriptor **ret, struct ploop_error *err);
void descriptor_free(struct descriptor *descriptor); /* NULL is accepted */

/* The descriptor of a new disk with one image. */
int descriptor_new(const char *path, const char *image, const struct image_params *params, struct descriptor **ret,
		   struct ploop_error *err);

/* The text of the file. The caller frees. Returns 0 or -ENOMEM. */
int descriptor_to_text(const struct descriptor *descriptor, char **ret, size_t *ret_len);

/* Atomically replaces `name` in `dir`. A descriptor of the old format (top with a GUID of its own) is converted by
 * it. */
int descriptor_store(struct descriptor *descriptor, struct dir *dir, const char *name, struct ploop_error *err);

/* The first half of it, for one who lets another do the second: the new text, durable, is in the file `stage` of `dir`, which is to be
 * renamed to `name`. */
int descriptor_stage(struct descriptor *descriptor, struct dir *dir, const char *name, const char *stage,
		     struct ploop_error *err);

/* The snapshot of that GUID; NULL when there is none. Good until the next edit. */
struct snapshot *descriptor_find(const struct descriptor *descriptor, const struct guid *guid);
struct snapshot *descriptor_top(const struct descriptor *descriptor);

/* True when the file of a snapshot is raw. Only that of a base can be; labels above say Plain where the original
 * wrote them. */
bool descriptor_raw(const struct snapshot *snapshot);

/* Absolute path of a snapshot's file, links not followed. The caller frees. NULL when there is no memory. */
char *descriptor_file(const struct descriptor *descriptor, const struct snapshot *snapshot);

/*
 * Edits. Each either succeeds or leaves everything as it was (-ENOMEM aside), and changes memory only. -ENOENT for an
 * unknown GUID, -EEXIST for one that is taken, -EINVAL for what would break an invariant or cannot be written as XML.
 */
int descriptor_add(struct descriptor *descriptor, const struct guid *guid, const struct guid *parent, const char *file);
/* The children of what is removed keep a parent that is not there: give them another first. */
int descriptor_remove(struct descriptor *descriptor, const struct guid *guid);
/* In the Shot, the Image, the children and TopGUID. */
int descriptor_rename(struct descriptor *descriptor, const struct guid *from, const struct guid *to);
int descriptor_set_parent(struct descriptor *descriptor, const struct guid *guid, const struct guid *parent);
/* A path beneath the descriptor's folder is written relative to it. */
int descriptor_set_file(struct descriptor *descriptor, const struct guid *guid, const char *file);
int descriptor_set_temporary(struct descriptor *descriptor, const struct guid *guid, enum snapshot_temporary temporary);
int descriptor_set_top(struct descriptor *descriptor, const struct guid *guid);
int descriptor_set_size(struct descriptor *descriptor, uint64_t size);
int descriptor_set_mode(struct descriptor *descriptor, enum image_mode mode);

#define _descriptor_free_ __attribute__((cleanup(descriptor_freep)))
static inline void descriptor_freep(struct descriptor **descriptor)
{
	descriptor_free(*descriptor);
}

#endif
