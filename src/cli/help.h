/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* help.h - the summary of all verbs. */
#ifndef CLI_HELP_H
#define CLI_HELP_H

#include <stdio.h>

void help_summary(FILE *out);

#endif
