/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* size.c - the size grammar of the original tool, with its messages. */
#include "cli/size.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"

#define SIZE_LIMIT (0xffffffffull << 9 << 9) /* bytes, exclusive */

static int size_invalid(const char *text, const char *option, struct ploop_error *err)
{
	return error_set(err, -EINVAL, PLOOP_EXIT_PARAM, "ERROR: Invalid argument for option %s: %s", option, text);
}

static int size_too_large(const char *text, const char *option, struct ploop_error *err)
{
	return error_set(err, -ERANGE, PLOOP_EXIT_PARAM, "ERROR: Too large value for option %s: %s", option, text);
}

/* strtoull() takes "-1" for a huge number; so did the original, which then called it too large. */
static int digits_parse(const char *text, const char *option, uint64_t *ret, const char **ret_rest,
			struct ploop_error *err)
{
	char *rest;

	errno = 0;
	*ret = strtoull(text, &rest, 0);
	if (rest == text)
		return size_invalid(text, option, err);
	if (errno == ERANGE || strchr(text, '-'))
		return size_too_large(text, option, err);
	*ret_rest = rest;
	return 0;
}

static uint64_t suffix_unit(char suffix)
{
	static const char letters[] = "KMGT";
	const char *at = strchr(letters, toupper((unsigned char)suffix));

	return at && *at ? 1ull << (10 * (at - letters + 1)) : 0;
}

int size_parse(const char *text, const char *option, unsigned unit, uint64_t *ret, struct ploop_error *err)
{
	uint64_t number, factor = unit, bytes;
	const char *rest;
	int r;

	r = digits_parse(text, option, &number, &rest, err);
	if (r < 0)
		return r;
	if (*rest) {
		factor = suffix_unit(*rest);
		if (!factor || rest[1])
			return size_invalid(text, option, err);
	}
	if (!checked_mul(number, factor, &bytes) || bytes >= SIZE_LIMIT)
		return size_too_large(text, option, err);
	*ret = bytes;
	return 0;
}

int number_parse(const char *text, const char *option, uint64_t max, uint64_t *ret, struct ploop_error *err)
{
	const char *rest;
	uint64_t number;
	int r;

	r = digits_parse(text, option, &number, &rest, err);
	if (r < 0)
		return r;
	if (*rest)
		return size_invalid(text, option, err);
	if (number > max)
		return size_too_large(text, option, err);
	*ret = number;
	return 0;
}

const char *size_format(uint64_t bytes, char buffer[SIZE_TEXT])
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	uint64_t unit = 1;
	unsigned i = 0;

	while (i < 6 && bytes / unit >= 1024) {
		unit *= 1024;
		i++;
	}
	if (bytes % unit == 0)
		snprintf(buffer, SIZE_TEXT, "%llu %s", (unsigned long long)(bytes / unit), units[i]);
	else
		snprintf(buffer, SIZE_TEXT, "%.1f %s", (double)bytes / (double)unit, units[i]);
	return buffer;
}
