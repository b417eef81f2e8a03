/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* page-cache.c - see page-cache.h. The system call is newer than the C library; on a kernel without it nothing is there. */
#include "io/page-cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/checked.h"

#ifndef SYS_cachestat
#define SYS_cachestat 451 /* on all architectures but alpha */
#endif

/* As the kernel has them. */
struct page_cache_range {
	uint64_t offset, length;
};

struct page_cache_pages {
	uint64_t here, dirty, writeback, evicted, recently_evicted;
};

int page_cache_open(int fd)
{
	char path[64];
	int r;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	r = open(path, O_RDONLY | O_CLOEXEC);
	return r < 0 ? -errno : r;
}

bool page_cache_has(int fd, uint64_t offset, uint64_t length)
{
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	struct page_cache_range range = { .offset = round_down(offset, page) };
	struct page_cache_pages pages;

	range.length = round_up(offset + length, page) - range.offset;
	return !syscall(SYS_cachestat, fd, &range, &pages, 0) && pages.here == range.length / page;
}
