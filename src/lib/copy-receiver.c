/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-receiver.c - the receiving half of a copy: whose stream it is, and where it goes. */
#include <errno.h>
#include <sys/stat.h>

#include <ploop/ploop.h>

#include "base/error.h"
#include "lib/copy-receive.h"
#include "lib/copy-target.h"

static int receive_ours(const struct ploop_copy_receive *receive, struct stream_in *in, struct ploop_error *err)
{
	struct copy_receive taking = {
		.in = in,
		.feedback = receive->feedback,
		.progress = receive->progress,
		.progress_data = receive->progress_data,
	};
	int r = copy_target_new(receive->target, receive->resume, &taking.sink, err);

	if (r < 0) {
		copy_feedback(receive->feedback, false, NULL);
		return r;
	}
	r = copy_receive(&taking, err);
	taking.sink->ops->free(taking.sink);
	return r;
}

int ploop_copy_receive(const struct ploop_copy_receive *receive, struct ploop_error *err)
{
	int fd = receive->stream;
	struct stream_in *in;
	uint32_t first;
	struct stat st;
	int r;

	if (fstat(fd, &st) < 0 || !(S_ISFIFO(st.st_mode) || S_ISSOCK(st.st_mode)))
		return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "Invalid input fd %d: must be a pipe or a socket", fd);
	r = stream_in_new(stream_read_fd, &fd, &in, err);
	if (r < 0)
		return r;
	r = stream_in_peek(in, &first, err);
	if (r == 0)
		r = first == STREAM_OLD_MARKER ? copy_receive_old(in, receive->target, receive->feedback, err) :
						 receive_ours(receive, in, err);
	stream_in_free(in);
	return r;
}
