/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* page-cache.h - what the host's kernel has of a file in memory, for those who read past its cache. */
#ifndef IO_PAGE_CACHE_H
#define IO_PAGE_CACHE_H

#include <stdbool.h>
#include <stdint.h>

/* Opens the file of `fd` once more, for reading through the cache. A negative errno when that cannot be. */
int page_cache_open(int fd);

/* Whether all of the range seems to be there. No promise: it may go at any moment. */
bool page_cache_has(int fd, uint64_t offset, uint64_t length);

#endif
