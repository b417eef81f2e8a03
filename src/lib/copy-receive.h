/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-receive.h - the receiving half of a copy, for ploop_copy_receive() and the fuzzer. */
#ifndef LIB_COPY_RECEIVE_H
#define LIB_COPY_RECEIVE_H

#include "lib/copy-sink.h"
#include "lib/copy-stream.h"

struct copy_receive {
	struct stream_in *in;
	struct copy_sink *sink;
	int feedback; /* a descriptor for answers; -1: nobody listens */
	int (*progress)(void *data, const char *stage, uint64_t done, uint64_t total); /* may be NULL */
	void *progress_data;
};

/* Takes a stream of ours to its end and finishes the sink. */
int copy_receive(struct copy_receive *receive, struct ploop_error *err);

/* Takes a stream of the original's, which is that of one image file, and gives the file its name. */
int copy_receive_old(struct stream_in *in, const char *target, int feedback, struct ploop_error *err);

/* Says "SUCCESS\n" or "FAILURE\n", as the original does. */
int copy_feedback(int fd, bool success, struct ploop_error *err);

#endif
