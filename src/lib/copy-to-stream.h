/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-to-stream.h - a copy goes out as a stream of ours. */
#ifndef LIB_COPY_TO_STREAM_H
#define LIB_COPY_TO_STREAM_H

#include <stdbool.h>

#include "lib/copy-sink.h"

struct copy_to_stream {
	int fd, feedback; /* stay the caller's; feedback -1: none */
	bool compress;
	struct stream_hello hello;
	const struct stream_backup *backup; /* NULL: it is none */
};

int copy_to_stream(const struct copy_to_stream *config, struct copy_sink **ret, struct ploop_error *err);

#endif
