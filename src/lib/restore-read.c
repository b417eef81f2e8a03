/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* restore-read.c - what a backup says of itself. */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/error.h"
#include "lib/backup.h"
#include "lib/copy-stream.h"

static int protocol(struct ploop_error *err, const char *why)
{
	return error_set(err, -EPROTO, PLOOP_EXIT_PROTOCOL, "Stream corrupted: %s", why);
}

int backup_read_head(struct stream_in *in, struct backup_head *ret, struct ploop_error *err)
{
	static const enum stream_type types[] = { STREAM_HELLO, STREAM_BACKUP, STREAM_IMAGE };
	struct stream_record record;
	const uint8_t *payload;
	size_t len;
	int r = 0;

	for (unsigned i = 0; r == 0 && i < ARRAY_SIZE(types); i++) {
		r = stream_in_read(in, &record, &payload, &len, err);
		if (r == 0 && i == 1 && !(ret->hello.flags & STREAM_IS_BACKUP))
			return error_set(err, -EINVAL, PLOOP_EXIT_PARAM,
					 "it is no backup but a copy: `ploop copy -d` takes it");
		if (r == 0 && record.type != types[i])
			return protocol(err, "a record where it makes no sense");
		if (r == 0 && i == 0)
			r = stream_get_hello(payload, len, &ret->hello, err);
		else if (r == 0 && i == 1)
			stream_get_backup(payload, &ret->backup);
		else if (r == 0)
			r = stream_get_image(payload, len, &ret->image, err);
	}
	if (r == 0 && ret->hello.flags != STREAM_IS_BACKUP)
		return protocol(err, "a backup with something else in it");
	ret->size = record.length;
	return r;
}

int backup_look(const char *path, struct backup_head *ret, struct ploop_error *err)
{
	_close_ int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct ploop_error why;
	struct stream_in *in;
	int r;

	if (fd < 0)
		return error_sys(err, -errno, PLOOP_EXIT_OPEN, "Can't open %s", path);
	r = stream_in_new(stream_read_fd, &fd, &in, err);
	if (r < 0)
		return r;
	r = backup_read_head(in, ret, &why);
	stream_in_free(in);
	return r < 0 ? error_set(err, r, why.status, "%s: %s", path, why.text) : 0;
}
