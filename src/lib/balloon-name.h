/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* balloon-name.h - the file in the root of a disk's file system that takes space away from its users. */
#ifndef LIB_BALLOON_NAME_H
#define LIB_BALLOON_NAME_H

#define BALLOON_NAME ".balloon-c3a5ae3d-ce7f-43c4-a1ea-c61e2b4504e8"

#endif
