/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* kept.c - see kept.h. */
#include "daemon/kept.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "base/log.h"
#include "control/message.h"
#include "daemon/daemon.h"
#include "device/shadow.h"
#include "image/stack.h"

#define VERSION 1

/* --- saving --- */

static struct json_object *print_rest(const struct stack *stack, const struct export_kept *export)
{
	struct json_object *rest = json_object_new_object();
	const char *locks[DEVICE_MAX_LEVELS + 1];

	if (!rest)
		return NULL;
	for (unsigned i = 0; i < stack->nlevels; i++)
		locks[i] = stack->locks[i] < 0 ? "none" : "held";
	message_add_number(rest, "version", VERSION);
	message_add_text(rest, "base_format", stack->levels[0].format->name);
	message_add_text(rest, "export", export->text);
	message_add_number(rest, "export_fds", export->nfds);
	message_add_texts(rest, "locks", locks, stack->nlevels);
	return rest;
}

/* The state with the images of the stack. */
static int print_state(const struct daemon *daemon, struct json_object **ret)
{
	struct device_state state = daemon->state;
	char *images[DEVICE_MAX_LEVELS + 1];

	for (unsigned i = 0; i < daemon->stack->nlevels; i++)
		images[i] = (char *)(uintptr_t)daemon->stack->levels[i].file->path;
	state.images = images;
	state.nimages = daemon->stack->nlevels;
	return state_print(&state, ret);
}

static int write_lines(int fd, const struct daemon *daemon, const struct export_kept *export)
{
	_message_ struct json_object *request = NULL, *state = NULL, *rest = NULL;
	int r = open_request_print(&daemon->request, &request);

	if (!r)
		r = print_state(daemon, &state);
	if (!r)
		rest = print_rest(daemon->stack, export);
	if (!r && !rest)
		r = -ENOMEM;
	r = r ? r : message_write(fd, request);
	r = r ? r : message_write(fd, state);
	return r ? r : message_write(fd, rest);
}

static int save(struct daemon *daemon)
{
	const struct export_ops *ops = daemon->export->ops;
	const struct stack *stack = daemon->stack;
	struct keeper_set set = { 0 };
	struct export_kept export = { 0 };
	_close_ int text = -EBADF;
	int r = ops->keep ? ops->keep(daemon->export, &export) : -EOPNOTSUPP;

	if (r < 0)
		return r;
	text = memfd_create("ploop-kept", MFD_CLOEXEC);
	r = text < 0 ? -errno : write_lines(text, daemon, &export);
	if (r < 0)
		return r;
	set.any_time = export.any_time;
	memcpy(set.name, daemon->name, sizeof(daemon->name));
	set.fds[set.n++] = text;
	set.fds[set.n++] = shadow_fd(daemon->shadow);
	for (unsigned i = 0; i < export.nfds; i++)
		set.fds[set.n++] = export.fds[i];
	for (unsigned i = 0; i < stack->nlevels; i++)
		if (stack->locks[i] >= 0)
			set.fds[set.n++] = stack->locks[i];
	return keeper_keep(daemon->keeper, &set);
}

void kept_save(struct daemon *daemon)
{
	int r;

	if (daemon->keeper < 0 || !daemon->kept)
		return;
	r = save(daemon);
	if (r < 0)
		log_warning("%s: would not survive its ploopd: %s", daemon->name, strerror(-r));
}

/* --- loading --- */

static int next_line(struct message_buffer *buffer, int fd, struct json_object **ret)
{
	int r;

	while ((r = message_take(buffer, ret)) == 0) {
		ssize_t n = message_fill(buffer, fd);

		if (n <= 0)
			return n < 0 ? (int)n : -EPROTO;
	}
	return r < 0 ? r : 0;
}

static int take_locks(struct json_object *rest, const struct keeper_set *set, unsigned at, struct kept *kept,
		      struct ploop_error *err)
{
	char **locks = NULL;
	size_t n = 0;
	int r = message_texts(rest, "locks", DEVICE_MAX_LEVELS + 1, &locks, &n, err);

	if (r == 0 && (n != kept->state.nimages || !n))
		r = -EPROTO;
	for (size_t i = 0; i < n && r == 0; i++) {
		bool held = !strcmp(locks[i], "held");

		if (held && at >= set->n)
			r = -EPROTO;
		else
			kept->locks[i] = held ? set->fds[at++] : -1;
	}
	message_texts_free(locks, n);
	return r;
}

static int take_rest(struct json_object *rest, const struct keeper_set *set, struct kept *kept, struct ploop_error *err)
{
	uint64_t version, nfds;
	const char *text = NULL, *format = NULL;
	int r = message_number(rest, "version", UINT32_MAX, &version, err);

	if (r == 0)
		r = message_number(rest, "export_fds", EXPORT_KEPT_FDS, &nfds, err);
	if (r == 0)
		r = message_need_text(rest, "export", &text, err);
	if (r == 0)
		r = message_need_text(rest, "base_format", &format, err);
	if (r == 0 && (version != VERSION || strlen(text) >= EXPORT_KEPT_TEXT || set->n < 2 + nfds))
		r = -EPROTO;
	if (r < 0)
		return r;
	kept->base_format = strdup(format);
	if (!kept->base_format)
		return -ENOMEM;
	strcpy(kept->export.text, text);
	kept->export.any_time = set->any_time;
	kept->export.nfds = (unsigned)nfds;
	kept->shadow = set->fds[1];
	memcpy(kept->export.fds, set->fds + 2, nfds * sizeof(int));
	return take_locks(rest, set, 2 + (unsigned)nfds, kept, err);
}

static int load(const struct keeper_set *set, struct kept *kept, struct ploop_error *err)
{
	_message_ struct json_object *request = NULL, *state = NULL, *rest = NULL;
	struct message_buffer buffer = { 0 };
	int r = set->n < 2 || lseek(set->fds[0], 0, SEEK_SET) < 0 ? -EPROTO : 0;

	r = r ? r : next_line(&buffer, set->fds[0], &request);
	r = r ? r : next_line(&buffer, set->fds[0], &state);
	r = r ? r : next_line(&buffer, set->fds[0], &rest);
	message_buffer_free(&buffer);
	r = r ? r : open_request_parse(request, &kept->request, err);
	r = r ? r : state_parse(state, &kept->state, err);
	return r ? r : take_rest(rest, set, kept, err);
}

int kept_load(const struct keeper_set *set, struct kept *ret, struct ploop_error *err)
{
	struct kept kept = { 0 };
	int r = load(set, &kept, err);

	if (r < 0) {
		kept_clear(&kept);
		return error_set(err, r, PLOOP_EXIT_PROTOCOL,
				 "%s: what the engine before left is not understood by ploopd %s", set->name,
				 PLOOP_VERSION);
	}
	*ret = kept;
	return 0;
}

void kept_clear(struct kept *kept)
{
	open_request_clear(&kept->request);
	state_clear(&kept->state);
	free(kept->base_format);
	*kept = (struct kept){ 0 };
}
