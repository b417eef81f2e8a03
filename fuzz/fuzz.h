/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* fuzz.h - what a fuzzer is: one function, driven by libFuzzer (scripts/fuzz) or by replay.c over the corpus (the tests). */
#ifndef FUZZ_FUZZ_H
#define FUZZ_FUZZ_H

#include <stddef.h>
#include <stdint.h>

/* Returns 0. Aborts on a finding. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#endif
