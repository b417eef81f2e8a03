/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * folder.h - a folder on the simulated disk, "/sim", in place of the host's: all that src/lib and src/image do to the files of a disk
 * happens there, so that the power can be cut between and inside of any of it. The linker puts it there (--wrap, see meson.build).
 *
 * Names are kept apart from files, as file systems do:
 *  1. Every change of names is atomic, and is durable after the folder is synced. Of those that are not, a cut leaves the first few,
 *     or some; one of a name that is not there then did not happen either.
 *  2. The bytes of a file are durable as sim.h says, whatever happens to its name.
 *  3. Each change or sync of names is an operation and a step of the sim: it can fail, and the power can be cut in its place.
 * There are no locks, no devices and no other processes.
 */
#ifndef TESTS_SIM_FOLDER_H
#define TESTS_SIM_FOLDER_H

#include <stdint.h>

#include "io/sim.h"

#define FOLDER "/sim"

/* There is one at a time. */
void folder_new(uint64_t seed);
void folder_free(void);
struct sim *folder_sim(void);

/* The power was cut, and all files are closed: what is left of names and files, and they can be used again. */
void folder_boot(void);

#endif
