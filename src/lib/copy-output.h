/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* copy-output.h - where a copy goes: a file here, a descriptor, or the input of a command. */
#ifndef LIB_COPY_OUTPUT_H
#define LIB_COPY_OUTPUT_H

#include <sys/types.h>

#include "lib/copy-sink.h"
#include "lib/copy-source.h"

struct copy_output {
	struct copy_sink *sink;
	pid_t command; /* 0: none */
	int to, from;  /* its input and output */
};

/* *ret is the output's. */
int copy_output_open(struct copy_output *output, const struct ploop_copy *copy, const struct copy_source *source,
		     struct copy_sink **ret, struct ploop_error *err);

/* `result` is how the copy went. Ends the command, whose failure is one of the copy. Returns how it went in all. */
int copy_output_close(struct copy_output *output, int result, struct ploop_error *err);

#endif
