/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* range.h - a growing list of stretches of bytes, such as those of a disk that nobody needs. */
#ifndef BASE_RANGE_H
#define BASE_RANGE_H

#include <stddef.h>
#include <stdint.h>

struct range {
	uint64_t offset, length; /* bytes; the sum is never more than 64 bits hold */
};

struct ranges {
	struct range *list;
	size_t n, room;
};

/* Adds one; it must not end beyond UINT64_MAX. One that goes on where the last one ends makes that longer. -ENOMEM. */
int ranges_add(struct ranges *ranges, uint64_t offset, uint64_t length);

/* By offset; those that touch or overlap become one. */
void ranges_sort(struct ranges *ranges);

/* Of a sorted list: each one shrinks inward to multiples of `unit`; what is empty then goes. */
void ranges_align(struct ranges *ranges, uint64_t unit);

/* How many bytes are in both of two sorted lists. */
uint64_t ranges_common(const struct ranges *one, const struct ranges *other);

uint64_t ranges_sum(const struct ranges *ranges);
void ranges_clear(struct ranges *ranges);

#endif
