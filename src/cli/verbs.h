/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* verbs.h - one line for each verb; each is defined in a file of its name. */
#ifndef CLI_VERBS_H
#define CLI_VERBS_H

#include "cli/verb.h"

/* Disks */

/* Devices */

/* Look */

/* About ploop itself */
extern const struct verb verb_help;
extern const struct verb verb_version;

#endif
