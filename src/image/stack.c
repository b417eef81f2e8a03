/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * stack.c - opens the files of a disk.
 *
 * Order: every file is locked before a byte of it is read, and the descriptor is judged before any file is touched.
 * Nothing is written before all files are open and fit one another.
 */
#include "image/stack.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "image/descriptor.h"
#include "image/dir.h"
#include "image/extension.h"
#include "image/level.h"
#include "image/stack-private.h"
#include "image/tree.h"

static void cleanup_stack(struct stack **stack)
{
	stack_close(*stack);
}

struct stack *stack_new(unsigned nlevels, bool read_only)
{
	struct stack *stack = calloc(1, sizeof(*stack));

	if (!stack)
		return NULL;
	stack->read_only = read_only;
	stack->levels = calloc(nlevels, sizeof(*stack->levels));
	stack->locks = malloc(nlevels * sizeof(*stack->locks));
	if (!stack->levels || !stack->locks) {
		stack_close(stack);
		return NULL;
	}
	return stack;
}

void stack_close(struct stack *stack)
{
	if (!stack)
		return;
	for (unsigned i = 0; i < stack->nlevels; i++) {
		io_close(stack->levels[i].file);
		if (stack->locks[i] >= 0)
			close(stack->locks[i]);
	}
	free(stack->levels);
	free(stack->locks);
	free(stack->descriptor);
	free(stack->snapshot);
	free(stack);
}

int stack_lock(struct stack *stack, unsigned level, enum file_lock from, enum file_lock to, struct ploop_error *err)
{
	if (stack->locks[level] < 0)
		return 0;
	return lock_file(stack->locks[level], from, to, stack->levels[level].file->path, err);
}

/* Takes an open level over as the new top. */
static int stack_extend(struct stack *stack, const struct delta *delta, int lock)
{
	unsigned n = stack->nlevels;
	struct delta *levels = reallocarray(stack->levels, n + 1, sizeof(*levels));
	int *locks;

	if (!levels)
		return -ENOMEM;
	stack->levels = levels;
	locks = reallocarray(stack->locks, n + 1, sizeof(*locks));
	if (!locks)
		return -ENOMEM;
	stack->locks = locks;
	levels[n] = *delta;
	locks[n] = lock;
	stack->nlevels++;
	return 0;
}

/* The file that is locked must still be the one that its name means: another may have removed it meanwhile. */
static int check_linked(int lock, const char *path, struct ploop_error *err)
{
	struct stat st;

	if (lock >= 0 && fstat(lock, &st) == 0 && !st.st_nlink)
		return error_set(err, -ENOENT, PLOOP_EXIT_OPEN, "Can't open %s: it was removed", path);
	return 0;
}

int stack_push(struct loop *loop, struct stack *stack, const char *path, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct level_request request = { .loop = loop, .write = true };
	struct delta delta = { .format = &format_ploop1 };
	int lock = -1, r = dir_open_parent(NULL, path, &dir, &request.name, err);

	if (r < 0)
		return r;
	request.dir = dir;
	request.beneath = true;
	r = level_open(&request, &delta, &lock, err);
	if (r == -EXDEV)
		return error_set(err, r, PLOOP_EXIT_PARAM, "%s is a link that leads elsewhere", path);
	if (r < 0)
		return r;
	r = check_linked(lock, path, err);
	if (!r)
		r = level_parse(&delta, 0, err);
	if (!r) {
		r = stack_extend(stack, &delta, lock);
		if (r < 0)
			error_sys(err, r, PLOOP_EXIT_MALLOC, "%s", path);
	}
	if (r < 0) {
		io_close(delta.file);
		if (lock >= 0)
			close(lock);
	}
	return r;
}

void stack_pop(struct stack *stack)
{
	unsigned top = --stack->nlevels;

	io_close(stack->levels[top].file);
	if (stack->locks[top] >= 0)
		close(stack->locks[top]);
}

static int stack_add(struct stack *stack, const struct level_request *request, const struct format *format,
		     struct ploop_error *err)
{
	unsigned level = stack->nlevels;
	int r = level_open(request, &stack->levels[level], &stack->locks[level], err);

	if (r < 0)
		return r;
	stack->levels[level].format = format;
	stack->nlevels++;
	return 0;
}

/* From the top down, because a raw base without a word on its clusters has those of what is above it. */
static int stack_parse(struct stack *stack, uint32_t cluster, struct ploop_error *err)
{
	for (unsigned i = stack->nlevels; i-- > 0;) {
		struct delta *delta = &stack->levels[i];
		int r;

		if (!delta->format->has_index && !cluster)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "Blocksize is not specified for the raw image %s (-b)", delta->file->path);
		r = level_parse(delta, cluster, err);
		if (r < 0)
			return r;
		if (!cluster)
			cluster = delta->geometry.cluster;
		if (delta->geometry.cluster != cluster)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect blocksize %s bs=%u [current bs=%u]",
					 delta->file->path, delta->geometry.cluster / SECTOR, cluster / SECTOR);
	}
	return 0;
}

static int check_pair(const struct delta *lower, const struct delta *upper, struct ploop_error *err)
{
	const struct geometry *below = &lower->geometry, *above = &upper->geometry;

	if (!upper->format->has_index)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is raw: only the base can be", upper->file->path);
	if (lower->format == upper->format && below->version != above->version)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "Wrong version %s %u [prev %u]", upper->file->path,
				 above->version, below->version);
	if (above->size < below->size)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT,
				 "%s is smaller than %s below it (%llu and %llu sectors)", upper->file->path,
				 lower->file->path, (unsigned long long)(above->size / SECTOR),
				 (unsigned long long)(below->size / SECTOR));
	/* What its last cluster holds beyond its end would show through. A raw file ends where it ends. */
	if (above->size > below->size && below->size % below->cluster && lower->format->has_index)
		return error_set(err, -EINVAL, PLOOP_EXIT_FORMAT, "%s ends inside a cluster, and %s above it is longer",
				 lower->file->path, upper->file->path);
	return 0;
}

static int stack_check(const struct stack *stack, struct ploop_error *err)
{
	int r = 0;

	for (unsigned i = 1; i < stack->nlevels && !r; i++)
		r = check_pair(&stack->levels[i - 1], &stack->levels[i], err);
	return r;
}

/*
 * What a process that died in the middle of a snapshot left in a level below the top is read, so that it must be durable: no flush
 * of the device reaches that file. A mark tells that it may be so; a raw file has none.
 */
static int settle_below(struct loop *loop, struct delta *delta, int lock, struct ploop_error *err)
{
	bool marked = delta->geometry.state == FORMAT_IN_USE;
	int r = marked ? level_clear_mark(loop, delta, lock, err) : 0;

	if (r || (!marked && delta->format->has_index))
		return r;
	r = io_sync(delta->file);
	return r ? error_sys(err, r, PLOOP_EXIT_FSYNC, "Can't sync %s", delta->file->path) : 0;
}

/* May the top be written, and are those below marked as nobody's. */
static int stack_prepare_writing(struct loop *loop, struct stack *stack, struct ploop_error *err)
{
	struct delta *top = &stack->levels[stack->nlevels - 1];
	int r = image_settle_extension(top, err);

	if (r < 0)
		return r;
	if (top->geometry.read_only)
		return error_set(err, -EROFS, PLOOP_EXIT_FORMAT, "%s can only be read (-r): %s", top->file->path,
				 top->geometry.reason);
	for (unsigned i = 0; i + 1 < stack->nlevels && !r; i++) {
		r = settle_below(loop, &stack->levels[i], stack->locks[i], err);
		/* It may be merged into. */
		if (!r && !stack->levels[i].geometry.partial)
			r = image_settle_extension(&stack->levels[i], err);
	}
	return r;
}

int stack_finish(struct loop *loop, struct stack *stack, uint32_t cluster,
		 int (*replay)(void *data, struct stack *stack, struct ploop_error *err), void *data,
		 struct ploop_error *err)
{
	int r = stack_parse(stack, cluster, err);

	if (!r)
		r = stack_check(stack, err);
	if (!r && replay && !stack->read_only)
		r = replay(data, stack, err);
	if (!r && !stack->read_only)
		r = stack_prepare_writing(loop, stack, err);
	return r;
}

static int choose_snapshot(const struct descriptor *d, const struct stack_request *request, const struct snapshot **ret,
			   struct ploop_error *err)
{
	const char *wanted = request->snapshot;
	const struct snapshot *s = descriptor_top(d), *up;
	struct guid guid;

	if (wanted && !strcmp(wanted, "base")) {
		while ((up = tree_parent(d, s)))
			s = up;
	} else if (wanted) {
		if (!guid_parse(wanted, &guid))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Incorrect uuid specified: %s", wanted);
		s = descriptor_find(d, &guid);
	}
	if (!s)
		return error_set(err, -ENOENT, PLOOP_EXIT_NO_SNAPSHOT, "Uuid %s not found in %s", wanted, d->path);
	if (!request->read_only && s->children)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Unable to mount (rw) snapshot %s: it has %u child%s",
				 s->guid.text, s->children, s->children > 1 ? "ren" : "");
	*ret = s;
	return 0;
}

/* Whether the words of the descriptor themselves lead elsewhere, and not a link that lies in the way. */
static bool names_elsewhere(const char *file)
{
	for (const char *part = file; part; part = strchr(part, '/')) {
		part += *part == '/';
		if (!strncmp(part, "..", 2) && (!part[2] || part[2] == '/'))
			return true;
	}
	return *file == '/';
}

static int refuse_outside(const struct descriptor *d, const char *file, struct ploop_error *err)
{
	if (names_elsewhere(file))
		return error_set(err, -EXDEV, PLOOP_EXIT_PARAM,
				 "%s names %s, which is outside its folder; if you trust it, say --outside", d->path,
				 file);
	return error_set(err, -EXDEV, PLOOP_EXIT_PARAM,
			 "%s names %s, which leads outside its folder by a link; name the file itself there", d->path,
			 file);
}

static int open_chain(struct stack *stack, struct level_request *level, const struct descriptor *d, bool outside,
		      const struct snapshot *const *chain, unsigned n, struct ploop_error *err)
{
	for (unsigned i = 0; i < n; i++) {
		const char *file = chain[i]->file;
		int r;

		level->name = file;
		level->beneath = !(outside && names_elsewhere(file));
		level->write = !stack->read_only && i == n - 1;
		r = stack_add(stack, level, descriptor_raw(chain[i]) ? &format_raw : &format_ploop1, err);
		if (r == -EXDEV)
			return refuse_outside(d, file, err);
		if (r < 0)
			return r;
	}
	return 0;
}

static int open_descriptor(struct loop *loop, const struct stack_request *request, const char *path, struct stack **ret,
			   struct ploop_error *err)
{
	_descriptor_free_ struct descriptor *d = NULL;
	_cleanup_(cleanup_stack)
	struct stack *stack = NULL;
	_dir_close_ struct dir *dir = NULL;
	const struct snapshot *chain[TREE_MAX_DEPTH], *snapshot = NULL;
	struct level_request level = { .loop = loop, .module = request->module, .unlocked = request->unlocked };
	const char *name;
	int n, r = dir_open_parent(request->folders, path, &dir, &name, err);

	if (!r)
		r = descriptor_read(dir, name, &d, err);
	if (!r)
		r = choose_snapshot(d, request, &snapshot, err);
	if (r < 0)
		return r;
	n = tree_chain(d, snapshot, chain, err);
	if (n < 0)
		return n;
	stack = stack_new((unsigned)n, request->read_only);
	if (stack) {
		stack->descriptor = strdup(path);
		stack->snapshot = strdup(snapshot->guid.text);
	}
	if (!stack || !stack->descriptor || !stack->snapshot)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", path);
	level.dir = dir;
	r = open_chain(stack, &level, d, request->outside, chain, (unsigned)n, err);
	if (!r)
		r = stack_finish(loop, stack, d->cluster, NULL, NULL, err);
	if (!r)
		*ret = take_ptr(stack);
	return r;
}

static int open_image(struct stack *stack, struct loop *loop, const struct stack_request *request, const char *path,
		      const struct format *format, struct ploop_error *err)
{
	_dir_close_ struct dir *dir = NULL;
	struct level_request level = {
		.loop = loop,
		.module = request->module,
		.unlocked = request->unlocked,
		.write = !stack->read_only && stack->nlevels + 1 == request->noperands,
	};
	int r = dir_open_parent(request->folders, path, &dir, &level.name, err);

	if (r < 0)
		return r;
	level.dir = dir;
	return stack_add(stack, &level, format, err);
}

/* The locks would call it in use, by ourselves. */
static int check_once(const struct stack_request *request, struct ploop_error *err)
{
	struct stat one, other;

	for (unsigned i = 1; i < request->noperands; i++) {
		for (unsigned j = 0; j < i; j++) {
			if (!stat(request->operands[i], &one) && !stat(request->operands[j], &other) &&
			    one.st_dev == other.st_dev && one.st_ino == other.st_ino)
				return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "%s is named twice",
						 request->operands[i]);
		}
	}
	return 0;
}

static int open_images(struct loop *loop, const struct stack_request *request, struct stack **ret,
		       struct ploop_error *err)
{
	const struct format *base = request->base_format ? format_find(request->base_format) : &format_ploop1;
	_cleanup_(cleanup_stack)
	struct stack *stack = NULL;
	int r = 0;

	if (!base)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Bad -f argument: %s", request->base_format);
	if (request->snapshot)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
				 "%s is no " DESCRIPTOR_NAME ": snapshots are found only there", request->operands[0]);
	r = request->folders ? 0 : check_once(request, err);
	if (r < 0)
		return r;
	stack = stack_new(request->noperands, request->read_only);
	if (!stack)
		return error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", request->operands[0]);
	for (unsigned i = 0; i < request->noperands && !r; i++)
		r = open_image(stack, loop, request, request->operands[i], i ? &format_ploop1 : base, err);
	if (!r)
		r = stack_finish(loop, stack, request->cluster, NULL, NULL, err);
	if (!r)
		*ret = take_ptr(stack);
	return r;
}

/* As descriptor_find_file(). Other folders than the host's have no links, and go by the name alone. */
static int find_descriptor(const struct stack_request *request, const char *operand, char **ret,
			   struct ploop_error *err)
{
	size_t len = strlen(operand);

	if (!request->folders)
		return descriptor_find_file(operand, ret, err);
	if (len < 4 || strcmp(operand + len - 4, ".xml"))
		return 0;
	*ret = strdup(operand);
	return *ret ? 1 : error_sys(err, -ENOMEM, PLOOP_EXIT_MALLOC, "%s", operand);
}

int stack_open(struct loop *loop, const struct stack_request *request, struct stack **ret, struct ploop_error *err)
{
	_free_
	char *path = NULL;

	if (!request->noperands)
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "no image is named");
	if (request->noperands > TREE_MAX_DEPTH)
		return error_set(err, -E2BIG, PLOOP_EXIT_PARAM, "%u images; at most %d can be stacked",
				 request->noperands, TREE_MAX_DEPTH);
	for (unsigned i = 0; i < request->noperands; i++) {
		int r = find_descriptor(request, request->operands[i], &path, err);

		if (r < 0)
			return r;
		if (r && request->noperands > 1)
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "%s is a descriptor: it stands alone, or name only images",
					 request->operands[i]);
	}
	return path ? open_descriptor(loop, request, path, ret, err) : open_images(loop, request, ret, err);
}
