/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* files.h - the options of verbs that open the files of a disk in process, the same in each. */
#ifndef CLI_FILES_H
#define CLI_FILES_H

#include "cli/arg.h"
#include "cli/call.h"

struct files {
	struct ploop_files files;
	char uuid[ARG_UUID];
};

enum {
	OPTION_IO = OPTION_OWN + 0x80,
	OPTION_OUTSIDE,
};

/* clang-format off */
#define FILES_OPTIONS \
	{ 'u', "uuid", "UUID", "this snapshot instead of the disk as it is now" }, \
	{ 'f', "format", "raw|ploop1|expanded", "format of the base, when there is no descriptor that says it" }, \
	{ 'b', "blocksize", "SECTORS", "cluster size of a raw base without descriptor" }, \
	{ OPTION_OUTSIDE, "outside", NULL, "follow the descriptor to files outside its folder" }, \
	{ OPTION_IO, "io", "uring|sync", "I/O module (chosen by itself)" }
/* clang-format on */

/* Takes one option. Returns 1 when it was one of these, 0 when not, negative when its argument is wrong. */
int files_option(struct files *files, int option, const char *value, struct ploop_error *err);

/* Takes the operands. Returns 0, or PLOOP_EXIT_PARAM after telling what is missing. */
int files_operands(struct files *files, const struct call *call);

#endif
