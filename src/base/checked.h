/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* checked.h - sums of numbers that a disk or a user says. Each returns false, and leaves *ret alone, on overflow. */
#ifndef BASE_CHECKED_H
#define BASE_CHECKED_H

#include <stdbool.h>
#include <stdint.h>

static inline bool checked_add(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_add_overflow(a, b, &v))
		return false;
	*ret = v;
	return true;
}

static inline bool checked_mul(uint64_t a, uint64_t b, uint64_t *ret)
{
	uint64_t v;

	if (__builtin_mul_overflow(a, b, &v))
		return false;
	*ret = v;
	return true;
}

/* Rounds up to a multiple of `unit`, which need not be a power of two and must not be 0. */
static inline bool checked_round_up(uint64_t v, uint64_t unit, uint64_t *ret)
{
	uint64_t rest = v % unit;

	if (!rest) {
		*ret = v;
		return true;
	}
	return checked_add(v, unit - rest, ret);
}

/* For numbers already known to be small. */
static inline uint64_t div_round_up(uint64_t v, uint64_t unit)
{
	return v / unit + (v % unit != 0);
}

static inline uint64_t round_down(uint64_t v, uint64_t unit)
{
	return v - v % unit;
}

static inline uint64_t round_up(uint64_t v, uint64_t unit)
{
	return div_round_up(v, unit) * unit;
}

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

static inline bool is_power_of_two(uint64_t v)
{
	return v && !(v & (v - 1));
}

#endif
