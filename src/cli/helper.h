/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* helper.h - ploop under the names mount.ploop and umount.ploop, which mount(8) and umount(8) call. */
#ifndef CLI_HELPER_H
#define CLI_HELPER_H

#include <stdbool.h>

/* False when argv[0] is neither of the two; else does its work, and *ret_status is what to exit with. */
bool helper_main(int argc, char **argv, int *ret_status);

#endif
