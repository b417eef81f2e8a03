/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* error.c - fills a struct ploop_error. */
#include "base/error.h"

#include <stdio.h>
#include <string.h>

static void error_fill(struct ploop_error *err, int code, enum ploop_exit status, const char *format, va_list ap)
{
	err->code = code;
	err->status = status;
	vsnprintf(err->text, sizeof(err->text), format, ap);
}

int error_set(struct ploop_error *err, int code, enum ploop_exit status, const char *format, ...)
{
	va_list ap;

	if (!err)
		return code;
	va_start(ap, format);
	error_fill(err, code, status, format, ap);
	va_end(ap);
	return code;
}

int error_sys(struct ploop_error *err, int code, enum ploop_exit status, const char *format, ...)
{
	va_list ap;
	size_t used;

	if (!err)
		return code;
	va_start(ap, format);
	error_fill(err, code, status, format, ap);
	va_end(ap);
	used = strlen(err->text);
	snprintf(err->text + used, sizeof(err->text) - used, ": %s", strerror(-code));
	return code;
}

int error_prefix(struct ploop_error *err, int code, const char *format, ...)
{
	char text[PLOOP_ERROR_TEXT];
	va_list ap;
	int used;

	if (!err)
		return code;
	memcpy(text, err->text, sizeof(text));
	va_start(ap, format);
	used = vsnprintf(err->text, sizeof(err->text), format, ap);
	va_end(ap);
	if (used >= 0 && (size_t)used < sizeof(err->text))
		snprintf(err->text + used, sizeof(err->text) - used, ": %.*s", (int)(sizeof(text) - 3 - used), text);
	return err->code;
}
