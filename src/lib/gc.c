/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * gc.c - what interrupted operations left in the folder of a disk.
 *
 * Looking changes nothing. A file is a leftover delta only when it is called BASE.{GUID}, after the base of this disk, and
 * no descriptor in the folder names it; one descriptor that cannot be read may name any. Nothing that somebody has open is
 * removed.
 */
#include "lib/gc.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "format/format.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/journal.h"
#include "image/lock.h"
#include "image/stack.h"
#include "image/tree.h"
#include "lib/copy-part.h"

#define BLOCK 512 /* the unit of st_blocks */
#define GC_DESCRIPTORS 64

static const char *const kind_names[] = {
	[PLOOP_LEFTOVER_DELTA] = "delta", [PLOOP_LEFTOVER_TMP] = "tmp",       [PLOOP_LEFTOVER_JOURNAL] = "journal",
	[PLOOP_LEFTOVER_LOCK] = "lock",   [PLOOP_LEFTOVER_DEVICE] = "device", [PLOOP_LEFTOVER_NODE] = "node",
	[PLOOP_LEFTOVER_MOUNT] = "mount",
};

const char *ploop_leftover_name(enum ploop_leftover_kind kind)
{
	return (size_t)kind < ARRAY_SIZE(kind_names) ? kind_names[kind] : "unknown";
}

void ploop_leftovers_free(struct ploop_leftover *leftovers, size_t n)
{
	for (size_t i = 0; leftovers && i < n; i++) {
		free(leftovers[i].path);
		free(leftovers[i].parent);
	}
	free(leftovers);
}

struct ploop_leftover *leftovers_add(struct leftovers *list, enum ploop_leftover_kind kind, const char *path)
{
	struct ploop_leftover *items = reallocarray(list->items, list->n + 1, sizeof(*items));
	struct stat st;

	if (!items)
		return NULL;
	list->items = items;
	items[list->n] = (struct ploop_leftover){ .kind = kind, .path = strdup(path) };
	if (!items[list->n].path)
		return NULL;
	if (lstat(path, &st) == 0 && S_ISREG(st.st_mode)) {
		items[list->n].allocated = (uint64_t)st.st_blocks * BLOCK;
		items[list->n].modified = (uint64_t)st.st_mtime;
	}
	return &items[list->n++];
}

/* A search through a folder. */
struct search {
	struct dir *dir;
	const struct descriptor *d;
	const char *name;             /* of the descriptor */
	char *base;                   /* what deltas are called after */
	char *others[GC_DESCRIPTORS]; /* descriptors in the folder, this one too */
	unsigned nothers;
	bool unsure; /* too many to look into */
	struct leftovers *list;
};

static bool ends_with(const char *text, const char *suffix)
{
	size_t len = strlen(text), n = strlen(suffix);

	return len > n && !strcmp(text + len - n, suffix);
}

static int find_descriptors(void *data, const char *name)
{
	struct search *search = data;

	if (!ends_with(name, ".xml") && strcmp(name, search->name))
		return 0;
	if (search->nothers == GC_DESCRIPTORS) {
		search->unsure = true;
		return 0;
	}
	search->others[search->nothers] = strdup(name);
	return search->others[search->nothers++] ? 0 : -ENOMEM;
}

/* A name that ploop makes up, or one that an operation was about to remove when it was interrupted. */
static bool may_be_orphan(const struct search *search, const char *name)
{
	size_t len = strlen(search->base);
	struct guid guid;

	if (!strncmp(name, search->base, len) && name[len] == '.' && name[len + 1] == '{' &&
	    guid_parse(name + len + 1, &guid))
		return true;
	return journal_lists(search->dir, search->name, name);
}

static bool is_orphan(const struct search *search, const char *name)
{
	if (search->unsure || !may_be_orphan(search, name))
		return false;
	for (unsigned i = 0; i < search->nothers; i++)
		if (journal_named(search->dir, search->others[i], name))
			return false;
	return true;
}

/* NULL where there is nothing to say. */
static bool classify(const struct search *search, const char *name, enum ploop_leftover_kind *ret)
{
	_free_ char *stem = NULL;
	size_t len = strlen(search->name);

	if (!strncmp(name, search->name, len) && !strcmp(name + len, JOURNAL_SUFFIX))
		*ret = PLOOP_LEFTOVER_JOURNAL;
	else if ((!strncmp(name, search->name, len) && name[len] == '.' && ends_with(name, ".tmp")) ||
		 ends_with(name, COPY_PART))
		*ret = PLOOP_LEFTOVER_TMP;
	else if (ends_with(name, ".xml.lck") && (stem = strndup(name, strlen(name) - 4)) &&
		 !dir_exists(search->dir, stem))
		*ret = PLOOP_LEFTOVER_LOCK;
	else if (is_orphan(search, name))
		*ret = PLOOP_LEFTOVER_DELTA;
	else
		return false;
	return true;
}

/* The size of the disk that an image says; 0 when it says nothing. */
static uint64_t disk_size(const char *path)
{
	const struct stack_request request = {
		.operands = &path, .noperands = 1, .read_only = true, .unlocked = true, .outside = true
	};
	struct stack *stack;
	uint64_t size;

	if (stack_open(NULL, &request, &stack, NULL) < 0)
		return 0;
	size = stack->levels[0].geometry.size;
	stack_close(stack);
	return size;
}

/* Of the disk's images of that size the one that was written last before it: it was its parent, most likely. */
static char *guess_parent(const struct search *search, const struct ploop_leftover *item)
{
	uint64_t size = disk_size(item->path), best = 0;
	char *parent = NULL;

	for (uint32_t i = 0; size && i < search->d->nsnapshots; i++) {
		const struct snapshot *s = &search->d->snapshots[i];
		_free_ char *file = s->file ? descriptor_file(search->d, s) : NULL;
		struct stat st;

		if (!file || stat(file, &st) < 0 || (uint64_t)st.st_mtime > item->modified ||
		    (parent && (uint64_t)st.st_mtime < best) || (!descriptor_raw(s) && disk_size(file) != size))
			continue;
		best = (uint64_t)st.st_mtime;
		free(parent);
		parent = strdup(file);
	}
	return parent;
}

static int look_at(void *data, const char *name)
{
	struct search *search = data;
	enum ploop_leftover_kind kind;
	struct ploop_leftover *item;
	_free_ char *path = NULL;

	if (!classify(search, name, &kind))
		return 0;
	path = dir_path(search->dir, name);
	item = path ? leftovers_add(search->list, kind, path) : NULL;
	if (!item)
		return -ENOMEM;
	if (kind == PLOOP_LEFTOVER_DELTA)
		item->parent = guess_parent(search, item);
	return 0;
}

/* "root.hds", also of a base that was a delta once. */
static char *base_name(const struct descriptor *d)
{
	const struct snapshot *s = descriptor_top(d), *up;
	const char *slash, *brace;
	struct guid guid;
	char *name;

	while ((up = tree_parent(d, s)))
		s = up;
	if (!s->file)
		return strdup("");
	slash = strrchr(s->file, '/');
	name = strdup(slash ? slash + 1 : s->file);
	brace = name ? strrchr(name, '{') : NULL;
	if (brace && brace > name + 1 && brace[-1] == '.' && guid_parse(brace, &guid))
		name[brace - 1 - name] = 0;
	return name;
}

static void remove_one(struct dir *dir, struct ploop_leftover *item)
{
	const char *name = strrchr(item->path, '/') + 1;
	int r;

	/* Settling the journal may have removed it. */
	if (!dir_exists(dir, name)) {
		item->removed = true;
		return;
	}
	if (item->kind == PLOOP_LEFTOVER_DELTA)
		r = journal_remove(dir, name);
	else if (ends_with(name, COPY_PART))
		r = copy_part_discard(item->path);
	else
		r = dir_unlink(dir, name);
	item->removed = r == 0;
	if (r == -EBUSY)
		error_set(&item->error, r, PLOOP_EXIT_BUSY, "%s is in use", item->path);
	else if (r < 0)
		error_sys(&item->error, r, PLOOP_EXIT_UNLINK, "%s", item->path);
}

static void remove_all(struct search *search)
{
	struct ploop_error why;

	if (journal_settle(search->dir, search->name, &why) < 0)
		log_warning("%s", why.text);
	for (size_t i = 0; i < search->list->n; i++)
		remove_one(search->dir, &search->list->items[i]);
	(void)dir_sync(search->dir);
}

static int search_folder(struct search *search, bool remove)
{
	int r;

	search->base = base_name(search->d);
	r = search->base ? dir_list(search->dir, find_descriptors, search) : -ENOMEM;
	if (r == 0)
		r = dir_list(search->dir, look_at, search);
	if (r == 0 && remove)
		remove_all(search);
	for (unsigned i = 0; i < search->nothers; i++)
		free(search->others[i]);
	free(search->base);
	return r;
}

static int gc_disk(const char *disk, bool remove, struct leftovers *list, struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_dir_close_ struct dir *dir = NULL;
	struct search search = { .list = list };
	_free_ char *path = NULL;
	_close_ int lock = -EBADF;
	int r = descriptor_find_file(disk, &path, err);

	if (r == 0)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is no DiskDescriptor.xml and no folder", disk);
	if (r < 0)
		return r;
	/* Also to look: what an operation is just making is no leftover. */
	r = lock_disk(path, LOCK_WAIT_MS, &lock, err);
	if (r == 0)
		r = lock_work_check(path, lock, err);
	if (r == 0)
		r = dir_open_parent(NULL, path, &dir, &search.name, err);
	if (r == 0)
		r = descriptor_read(dir, search.name, &d, err);
	if (r < 0)
		return r;
	search.dir = dir;
	search.d = d;
	r = search_folder(&search, remove);
	return r < 0 ? error_sys(err, r, PLOOP_EXIT_READ, "%s", dir->path) : 0;
}

int ploop_gc(const char *disk, bool remove, struct ploop_leftover **ret, size_t *ret_n, struct ploop_error *err)
{
	struct leftovers list = { 0 };
	int r = disk ? gc_disk(disk, remove, &list, err) : gc_devices(&list, remove, err);

	if (r < 0) {
		ploop_leftovers_free(list.items, list.n);
		return r;
	}
	*ret = list.items;
	*ret_n = list.n;
	return 0;
}
