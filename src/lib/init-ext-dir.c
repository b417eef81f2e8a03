/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* init-ext-dir.c - the names of a new ext file system: in memory while files are added, then written directory by directory. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/init-ext-private.h"

#define BUCKETS_FIRST 1024u
#define LINKS_MAX 65000u /* more subdirectories than that and the count says 1: "many" */
#define LARGE_BLOCKS 3u  /* directories of so many blocks are worth an index */
#define DOTS 2u          /* "." and ".." */

static uint32_t hash_name(const struct ext_node *parent, const char *name, size_t len)
{
	uint32_t hash = 2166136261u ^ parent->ino;

	for (size_t i = 0; i < len; i++)
		hash = (hash ^ (uint8_t)name[i]) * 16777619u;
	return hash;
}

static struct ext_node *find_child(struct ext *ext, const struct ext_node *parent, const char *name, size_t len)
{
	uint32_t hash = hash_name(parent, name, len);
	struct ext_node *node = ext->table[hash & (ext->buckets - 1)];

	while (node &&
	       !(node->hash == hash && node->parent == parent && node->len == len && !memcmp(node->name, name, len)))
		node = node->bucket;
	return node;
}

static int grow_table(struct ext *ext)
{
	size_t buckets = ext->buckets * 2;
	struct ext_node **table = calloc(buckets, sizeof(struct ext_node *));

	if (!table)
		return -ENOMEM;
	for (size_t i = 0; i < ext->buckets; i++) {
		struct ext_node *next;

		for (struct ext_node *node = ext->table[i]; node; node = next) {
			next = node->bucket;
			node->bucket = table[node->hash & (buckets - 1)];
			table[node->hash & (buckets - 1)] = node;
		}
	}
	free(ext->table);
	ext->table = table;
	ext->buckets = buckets;
	return 0;
}

static int new_child(struct ext *ext, struct ext_node *parent, const char *name, size_t len, struct ext_node **ret)
{
	struct ext_node *node;

	if (ext->names >= ext->buckets && grow_table(ext) < 0)
		return -ENOMEM;
	node = calloc(1, sizeof(*node) + len + 1);
	if (!node)
		return -ENOMEM;
	memcpy(node->name, name, len);
	node->len = (uint8_t)len;
	node->parent = parent;
	node->hash = hash_name(parent, name, len);
	node->bucket = ext->table[node->hash & (ext->buckets - 1)];
	ext->table[node->hash & (ext->buckets - 1)] = node;
	node->sibling = parent->child;
	parent->child = node;
	parent->written = false;
	ext->names++;
	*ret = node;
	return 0;
}

int ext_names_init(struct ext *ext)
{
	struct ext_node *lost;

	ext->buckets = BUCKETS_FIRST;
	ext->table = calloc(ext->buckets, sizeof(struct ext_node *));
	ext->root = calloc(1, sizeof(*ext->root) + 1);
	if (!ext->table || !ext->root)
		return -ENOMEM;
	ext->root->parent = ext->root;
	ext->root->ino = EXT2_ROOT_INO;
	ext->root->type = EXT2_FT_DIR;
	if (new_child(ext, ext->root, "lost+found", strlen("lost+found"), &lost) < 0)
		return -ENOMEM;
	lost->type = EXT2_FT_DIR;
	lost->written = true;
	return ext2fs_lookup(ext->fs, EXT2_ROOT_INO, lost->name, lost->len, NULL, &lost->ino) ? -EIO : 0;
}

void ext_names_fini(struct ext *ext)
{
	for (size_t i = 0; ext->table && i < ext->buckets; i++) {
		struct ext_node *next;

		for (struct ext_node *node = ext->table[i]; node; node = next) {
			next = node->bucket;
			free(node);
		}
	}
	free(ext->table);
	free(ext->root);
}

static uint8_t type_of(uint32_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return EXT2_FT_REG_FILE;
	case S_IFDIR:
		return EXT2_FT_DIR;
	case S_IFCHR:
		return EXT2_FT_CHRDEV;
	case S_IFBLK:
		return EXT2_FT_BLKDEV;
	case S_IFIFO:
		return EXT2_FT_FIFO;
	case S_IFSOCK:
		return EXT2_FT_SOCK;
	case S_IFLNK:
		return EXT2_FT_SYMLINK;
	default:
		return EXT2_FT_UNKNOWN;
	}
}

/* The next component of *path, which moves behind it. False at the end. "." and empty ones are left out. */
static bool next_component(const char **path, const char **ret_name, size_t *ret_len)
{
	for (;;) {
		*path += strspn(*path, "/");
		*ret_name = *path;
		*ret_len = strcspn(*path, "/");
		if (!*ret_len)
			return false;
		*path += *ret_len;
		if (*ret_len != 1 || **ret_name != '.')
			return true;
	}
}

struct ext_node *ext_find(struct ext *ext, const char *path)
{
	struct ext_node *node = ext->root;
	const char *name;
	size_t len;

	while (node && next_component(&path, &name, &len))
		node = find_child(ext, node, name, len);
	return node;
}

/* A folder that the source has no entry of. */
static int add_missing(struct ext *ext, struct ext_node *parent, const char *name, size_t len, struct ext_node **ret,
		       struct ploop_error *err)
{
	struct timespec now = { .tv_sec = time(NULL) };
	const struct ext_stat stat = {
		.mode = S_IFDIR | 0755, .atime = now, .mtime = now, .ctime = now, .crtime = now
	};
	ext2_ino_t ino;
	int r = ext_inode_new(ext, parent, &stat, &ino, err);

	if (r < 0)
		return r;
	if (new_child(ext, parent, name, len, ret) < 0)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", ext->name);
	(*ret)->ino = ino;
	(*ret)->type = EXT2_FT_DIR;
	return 0;
}

/* Walks to the folder that `path` lies in, making what is missing; the last component (none for the root) into ret_name. */
static int walk(struct ext *ext, const char *path, struct ext_node **ret_parent, const char **ret_name, size_t *ret_len,
		struct ploop_error *err)
{
	struct ext_node *node = ext->root;
	const char *name, *next;
	size_t len, next_len;

	if (!next_component(&path, &name, &len))
		len = 0;
	for (;; name = next, len = next_len) {
		bool more = len && next_component(&path, &next, &next_len);
		struct ext_node *child;
		int r;

		if (len > EXT2_NAME_LEN || (len == 2 && !memcmp(name, "..", 2)))
			return error_set(err, -EINVAL, PLOOP_EXIT_READ,
					 "%s: %s: not a path that can be in a file system", ext->name, ext->path);
		if (!more)
			break;
		child = find_child(ext, node, name, len);
		if (!child) {
			r = add_missing(ext, node, name, len, &child, err);
			if (r < 0)
				return r;
		}
		if (child->type != EXT2_FT_DIR)
			return error_set(err, -ENOTDIR, PLOOP_EXIT_READ, "%s: %s: %.*s is not a directory", ext->name,
					 ext->path, (int)len, name);
		node = child;
	}
	*ret_parent = node;
	*ret_name = name;
	*ret_len = len;
	return 0;
}

/* Gives `node` (or a new one) the inode and type; what it was before is gone. */
static int put(struct ext *ext, struct ext_node *parent, const char *name, size_t len, struct ext_node *node,
	       ext2_ino_t ino, uint8_t type, struct ext_node **ret, struct ploop_error *err)
{
	int r = 0;

	if (node && node->type == EXT2_FT_DIR)
		return error_set(err, -EISDIR, PLOOP_EXIT_READ, "%s: %s: comes twice, as a directory and as a file",
				 ext->name, ext->path);
	if (node)
		r = ext_inode_unlink(ext, node->ino, err);
	else if (new_child(ext, parent, name, len, &node) < 0)
		r = error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", ext->name);
	if (r < 0)
		return r;
	node->ino = ino;
	node->type = type;
	if (ret)
		*ret = node;
	return 0;
}

int ext_add(struct ext *ext, const char *path, const struct ext_stat *stat, struct ext_node **ret,
	    struct ploop_error *err)
{
	struct ext_node *parent, *node;
	const char *name;
	ext2_ino_t ino;
	size_t len;
	int r;

	ext->path = path;
	r = walk(ext, path, &parent, &name, &len, err);
	if (r < 0)
		return r;
	node = len ? find_child(ext, parent, name, len) : ext->root;
	if (node && node->type == EXT2_FT_DIR && S_ISDIR(stat->mode)) {
		*ret = node;
		return ext_inode_update(ext, node->ino, stat, err);
	}
	r = ext_inode_new(ext, parent, stat, &ino, err);
	if (r < 0)
		return r;
	return put(ext, parent, name, len, node, ino, type_of(stat->mode), ret, err);
}

int ext_link(struct ext *ext, const char *path, struct ext_node *target, struct ploop_error *err)
{
	struct ext_node *parent, *node;
	struct ext2_inode inode;
	const char *name;
	errcode_t code;
	size_t len;
	int r;

	ext->path = path;
	r = walk(ext, path, &parent, &name, &len, err);
	if (r < 0)
		return r;
	node = len ? find_child(ext, parent, name, len) : ext->root;
	if (node == target || target->type == EXT2_FT_DIR)
		return node == target ? 0
				      : error_set(err, -EPERM, PLOOP_EXIT_READ, "%s: %s: is a hard link to a directory",
						  ext->name, path);
	code = ext2fs_read_inode(ext->fs, target->ino, &inode);
	if (!code && inode.i_links_count >= LINKS_MAX)
		return error_set(err, -EMLINK, PLOOP_EXIT_READ, "%s: %s: more than %u names for one file", ext->name,
				 path, LINKS_MAX);
	if (!code) {
		inode.i_links_count++;
		code = ext2fs_write_inode(ext->fs, target->ino, &inode);
	}
	if (code)
		return ext_error(ext, code, err);
	return put(ext, parent, name, len, node, target->ino, target->type, NULL, err);
}

/* A directory being packed into blocks. */
struct packing {
	struct ext *ext;
	char *blocks;
	unsigned n, room; /* blocks used and there */
	unsigned tail;    /* bytes at the end of each block that are not entries' */
	unsigned at;      /* where the next entry goes in the last block */
	struct ext2_dir_entry *last;
};

/* The last entry of a block reaches to its end. */
static void close_block(struct packing *packing)
{
	ext2_filsys fs = packing->ext->fs;
	char *block;

	if (!packing->n)
		return;
	block = packing->blocks + (size_t)(packing->n - 1) * fs->blocksize;
	ext2fs_set_rec_len(fs, (unsigned)(fs->blocksize - packing->tail - ((char *)packing->last - block)),
			   packing->last);
	if (packing->tail)
		ext2fs_initialize_dirent_tail(fs, EXT2_DIRENT_TAIL(block, fs->blocksize));
}

static int new_block(struct packing *packing)
{
	uint32_t size = packing->ext->fs->blocksize;

	close_block(packing);
	if (packing->n == packing->room) {
		unsigned room = packing->room ? 2 * packing->room : 1;
		char *blocks = realloc(packing->blocks, (size_t)room * size);

		if (!blocks)
			return -ENOMEM;
		packing->blocks = blocks;
		packing->room = room;
	}
	memset(packing->blocks + (size_t)packing->n * size, 0, size);
	packing->n++;
	packing->at = 0;
	return 0;
}

static int pack(struct packing *packing, ext2_ino_t ino, uint8_t type, const char *name, unsigned len)
{
	ext2_filsys fs = packing->ext->fs;
	unsigned need = ext2fs_dir_rec_len((uint8_t)len, 0);

	if (!packing->n || packing->at + need > fs->blocksize - packing->tail) {
		if (new_block(packing) < 0)
			return -ENOMEM;
	}
	packing->last = (void *)(packing->blocks + (size_t)(packing->n - 1) * fs->blocksize + packing->at);
	packing->last->inode = ino;
	ext2fs_set_rec_len(fs, need, packing->last);
	ext2fs_dirent_set_name_len(packing->last, (int)len);
	if (ext2fs_has_feature_filetype(fs->super))
		ext2fs_dirent_set_file_type(packing->last, type);
	memcpy(packing->last->name, name, len);
	packing->at += need;
	return 0;
}

static int pack_all(struct packing *packing, const struct ext_node *dir)
{
	int r = pack(packing, dir->ino, EXT2_FT_DIR, ".", 1);

	if (!r)
		r = pack(packing, dir->parent->ino, EXT2_FT_DIR, "..", 2);
	for (const struct ext_node *node = dir->child; node && !r; node = node->sibling)
		r = pack(packing, node->ino, node->type, node->name, node->len);
	if (!r)
		close_block(packing);
	return r;
}

static int write_dir_blocks(struct ext *ext, ext2_ino_t ino, blk64_t block, unsigned count, const char *data)
{
	errcode_t r = 0;

	for (unsigned i = 0; i < count && !r; i++)
		r = ext2fs_write_dir_block4(ext->fs, block + i, (char *)data + (size_t)i * ext->fs->blocksize, 0, ino);
	return (int)r;
}

static errcode_t set_dir_inode(struct ext *ext, const struct ext_node *dir, unsigned blocks)
{
	struct ext2_inode inode;
	unsigned links = DOTS;
	errcode_t r = ext2fs_read_inode(ext->fs, dir->ino, &inode);

	for (const struct ext_node *node = dir->child; node; node = node->sibling)
		links += node->type == EXT2_FT_DIR;
	inode.i_links_count = links < LINKS_MAX ? (uint16_t)links : 1;
	if (!r)
		r = ext2fs_inode_size_set(ext->fs, &inode, (ext2_off64_t)blocks * ext->fs->blocksize);
	return r ? r : ext2fs_write_inode(ext->fs, dir->ino, &inode);
}

static int write_dir(struct ext *ext, struct ext_node *dir, bool *large, struct ploop_error *err)
{
	struct packing packing = { .ext = ext };
	errcode_t r;

	ext->path = dir->name;
	if (ext2fs_has_feature_metadata_csum(ext->fs->super))
		packing.tail = sizeof(struct ext2_dir_entry_tail);
	r = pack_all(&packing, dir) < 0 ? ENOMEM : 0;
	/* The root and lost+found have blocks already. */
	if (!r)
		r = ext2fs_punch(ext->fs, dir->ino, NULL, NULL, 0, ~0ull);
	if (!r)
		r = ext_blocks_write(ext, dir->ino, 0, packing.n, packing.blocks, write_dir_blocks);
	if (!r)
		r = set_dir_inode(ext, dir, packing.n);
	*large |= packing.n >= LARGE_BLOCKS;
	free(packing.blocks);
	return ext_error(ext, r, err);
}

int ext_names_write(struct ext *ext, bool *ret_large, struct ploop_error *err)
{
	int r = write_dir(ext, ext->root, ret_large, err);

	for (size_t i = 0; i < ext->buckets; i++) {
		for (struct ext_node *node = ext->table[i]; node && !r; node = node->bucket) {
			if (node->type == EXT2_FT_DIR && !node->written)
				r = write_dir(ext, node, ret_large, err);
		}
	}
	return r;
}
