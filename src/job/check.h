/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * check.h - examining and repairing one image file, on any I/O module. ploop_check() in src/lib finds and locks the files.
 */
#ifndef JOB_CHECK_H
#define JOB_CHECK_H

#include <ploop/ploop.h>

struct io_file;
struct undo;

struct check_request {
	const struct ploop_check_options *options;
	uint32_t raw_cluster; /* bytes; for check_raw() */
	struct undo *undo;    /* takes what will be overwritten; NULL: none */
};

/*
 * Checks the image in `file`, which is open for writing when anything shall be repaired, and belongs to nobody else. Fills
 * *ret, findings go to the options' function. 0 when the check was made, whatever it found.
 */
int check_image(struct io_file *file, const struct check_request *request, struct ploop_check_image *ret,
		struct ploop_error *err);

/* The same for a raw image, which has nothing to be wrong but its length. */
int check_raw(struct io_file *file, const struct check_request *request, struct ploop_check_image *ret,
	      struct ploop_error *err);

#endif
