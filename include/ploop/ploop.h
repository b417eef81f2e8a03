/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ploop.h - the public interface of libploop.
 *
 * Conventions, the same everywhere:
 *  - A function returns 0 or a negative errno. Predicates return bool.
 *  - A last parameter `struct ploop_error *err` takes the text for a person and the exit status of the original
 *    tool. It may be NULL. It is written on failure only.
 *  - Results go into `ret_` parameters, which are untouched on failure.
 *  - Offsets and lengths are bytes.
 *  - The library never prints and never exits. ploop_set_log() says where its messages go.
 */
#ifndef PLOOP_PLOOP_H
#define PLOOP_PLOOP_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define PLOOP_API __attribute__((visibility("default")))

/* Exit statuses of the command line: the numbers of the original tool. */
enum ploop_exit {
	PLOOP_EXIT_OK = 0,
	PLOOP_EXIT_CREAT = 1,
	PLOOP_EXIT_DEVICE = 2,
	PLOOP_EXIT_DEVIOC = 3,
	PLOOP_EXIT_OPEN = 4,
	PLOOP_EXIT_MALLOC = 5,
	PLOOP_EXIT_READ = 6,
	PLOOP_EXIT_WRITE = 7,
	PLOOP_EXIT_SYSFS = 9,
	PLOOP_EXIT_FORMAT = 11, /* PLOOPFMT of the original: the image is broken */
	PLOOP_EXIT_SYS = 12,
	PLOOP_EXIT_PROTOCOL = 13,
	PLOOP_EXIT_LOOP = 14,
	PLOOP_EXIT_FSTAT = 15,
	PLOOP_EXIT_FSYNC = 16,
	PLOOP_EXIT_BUSY = 17,
	PLOOP_EXIT_FLOCK = 18,
	PLOOP_EXIT_FTRUNCATE = 19,
	PLOOP_EXIT_FALLOCATE = 20,
	PLOOP_EXIT_MOUNT = 21,
	PLOOP_EXIT_UMOUNT = 22,
	PLOOP_EXIT_LOCK = 23,
	PLOOP_EXIT_MKFS = 24,
	PLOOP_EXIT_RESIZE_FS = 26,
	PLOOP_EXIT_MKDIR = 27,
	PLOOP_EXIT_RENAME = 28,
	PLOOP_EXIT_ABORT = 29,
	PLOOP_EXIT_RELOC = 30,
	PLOOP_EXIT_CHANGE_GPT = 33,
	PLOOP_EXIT_UNLINK = 35,
	PLOOP_EXIT_MKNOD = 36,
	PLOOP_EXIT_IN_USE = 37, /* PLOOPINUSE: the image was not closed, or somebody uses it */
	PLOOP_EXIT_PARAM = 38,
	PLOOP_EXIT_DISKDESCR = 39,
	PLOOP_EXIT_NOT_MOUNTED = 40, /* DEV_NOT_MOUNTED */
	PLOOP_EXIT_FSCK = 41,
	PLOOP_EXIT_NO_SNAPSHOT = 43,
	PLOOP_EXIT_NO_CBT = 44,
	PLOOP_EXIT_CRYPT = 45,
	PLOOP_EXIT_UMOUNT_BUSY = 46,
};

#define PLOOP_ERROR_TEXT 1024

/* What went wrong. Owned by the caller; needs no clean-up. */
struct ploop_error {
	int code;                    /* negative errno */
	enum ploop_exit status;      /* what the command line exits with */
	char text[PLOOP_ERROR_TEXT]; /* one line: what, which file, what to do */
};

/* Levels of the original's `-v`: -1 errors, 0 results, 1.. more and more detail; the tool's default is 3. */
typedef void (*ploop_log_fn)(void *data, int level, const char *text);

/*
 * Sends the library's messages to `fn` (NULL: nowhere, the default). Process-wide; call it before any thread is made.
 * The environment variable PLOOP_DEBUG=io,map,... sends debug messages of these rooms to standard error.
 */
PLOOP_API void ploop_set_log(ploop_log_fn fn, void *data);

/*
 * How far a long operation is: called now and then, on the caller's thread. `stage` names what is being done; `total` is 0
 * when nobody knows. Anything but 0 asks the operation to stop, which then fails with -ECANCELED and leaves things as its
 * description says. Where such a function is a parameter it may be NULL.
 */
typedef int (*ploop_progress_fn)(void *data, const char *stage, uint64_t done, uint64_t total);

/* The version of the library, for example "0.1.0". */
PLOOP_API const char *ploop_version(void);

#ifdef __cplusplus
}
#endif
#endif
