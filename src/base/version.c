/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include <ploop/ploop.h>

const char *ploop_version(void)
{
	return PLOOP_VERSION;
}
