/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* modules.h - for this room: the tables that export.c lists. */
#ifndef EXPORT_MODULES_H
#define EXPORT_MODULES_H

#include "export/export.h"

extern const struct export_ops export_ublk_ops;
extern const struct export_ops export_fuse_ops;
extern const struct export_ops export_nbd_ops;
extern const struct export_ops export_null_ops;

#endif
