/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * prng.h - pseudo-random numbers that a seed repeats exactly, on every machine. For simulation and tests; nothing secret.
 * (splitmix64: one 64-bit word of state.)
 */
#ifndef BASE_PRNG_H
#define BASE_PRNG_H

#include <stdbool.h>
#include <stdint.h>

struct prng {
	uint64_t state;
};

static inline uint64_t prng_mix(uint64_t v)
{
	v = (v ^ (v >> 30)) * 0xbf58476d1ce4e5b9u;
	v = (v ^ (v >> 27)) * 0x94d049bb133111ebu;
	return v ^ (v >> 31);
}

static inline void prng_seed(struct prng *prng, uint64_t seed)
{
	prng->state = prng_mix(seed + 1);
}

static inline uint64_t prng_next(struct prng *prng)
{
	return prng_mix(prng->state += 0x9e3779b97f4a7c15u);
}

/* A number in [0, limit); 0 when limit is 0. */
static inline uint64_t prng_below(struct prng *prng, uint64_t limit)
{
	return limit ? prng_next(prng) % limit : 0;
}

/* True once in n times. */
static inline bool prng_one_in(struct prng *prng, uint64_t n)
{
	return prng_below(prng, n) == 0;
}

#endif
