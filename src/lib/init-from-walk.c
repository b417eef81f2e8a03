/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-from-walk.c - measures a folder, and remembers files with several names in a search tree. */
#include "lib/init-from-walk.h"

#include <errno.h>
#include <fts.h>
#include <search.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/checked.h"
#include "base/error.h"

#define BLOCK 512u

int walk_measure(const char *path, uint64_t *ret_files, uint64_t *ret_bytes)
{
	char *const paths[] = { (char *)path, NULL };
	FTS *fts = fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
	uint64_t files = 0, bytes = 0;
	int saved;

	if (!fts)
		return -errno;
	for (FTSENT *entry; (errno = 0, entry = fts_read(fts));) {
		const struct stat *st = entry->fts_statp;

		/* What cannot be read is reported when it is copied. */
		if (entry->fts_info == FTS_DP || entry->fts_info == FTS_DNR || entry->fts_info == FTS_NS)
			continue;
		files++;
		if (S_ISREG(st->st_mode) && st->st_nlink == 1)
			bytes += min_u64((uint64_t)st->st_size, (uint64_t)st->st_blocks * BLOCK);
	}
	saved = errno;
	fts_close(fts);
	if (saved)
		return -saved;
	*ret_files = files;
	*ret_bytes = bytes;
	return 0;
}

struct link {
	uint64_t device, ino;
	struct ext_node *node;
};

struct links {
	void *tree; /* of struct link, by tsearch() */
};

static int compare(const void *a, const void *b)
{
	const struct link *x = a, *y = b;

	if (x->device != y->device)
		return x->device < y->device ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

int links_new(struct links **ret)
{
	*ret = calloc(1, sizeof(**ret));
	return *ret ? 0 : -ENOMEM;
}

void links_free(struct links *links)
{
	if (links)
		tdestroy(links->tree, free);
	free(links);
}

int links_add(struct links *links, uint64_t device, uint64_t ino, struct ext_node *node, struct ploop_error *err)
{
	struct link *link = malloc(sizeof(*link));

	if (link) {
		*link = (struct link){ device, ino, node };
		if (tsearch(link, &links->tree, compare))
			return 0;
		free(link);
	}
	return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "list of hard links");
}

struct ext_node *links_find(const struct links *links, uint64_t device, uint64_t ino)
{
	const struct link key = { device, ino, NULL };
	struct link *const *found = tfind(&key, &links->tree, compare);

	return found ? (*found)->node : NULL;
}
