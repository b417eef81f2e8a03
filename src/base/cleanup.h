/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * cleanup.h - scope-bound clean-up on the control path.
 *
 *	_free_ char *name = NULL;
 *	_close_ int fd = -EBADF;
 *
 * Such a variable is always initialised. take_ptr() and take_fd() keep the value and disarm the clean-up.
 */
#ifndef BASE_CLEANUP_H
#define BASE_CLEANUP_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void cleanup_free(void *p)
{
	free(*(void **)p);
}

static inline void cleanup_close(int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void cleanup_fclose(FILE **file)
{
	if (*file)
		fclose(*file);
}

#define _cleanup_(fn) __attribute__((cleanup(fn)))
#define _free_ _cleanup_(cleanup_free)
#define _close_ _cleanup_(cleanup_close)
#define _fclose_ _cleanup_(cleanup_fclose)

#define take_ptr(p)                     \
	({                              \
		typeof(p) *at_ = &(p);  \
		typeof(p) taken_ = *at_; \
		*at_ = NULL;            \
		taken_;                 \
	})

static inline int take_fd(int *fd)
{
	int taken = *fd;

	*fd = -EBADF;
	return taken;
}

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

#endif
