/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* crc32c.h - the checksum of iSCSI, ext4 and btrfs (RFC 3720, appendix B.4), by the processor where it can. */
#ifndef BASE_CRC32C_H
#define BASE_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* Goes on from `crc`, which is 0 at the start: crc32c(crc32c(0, a), b) is that of a followed by b. */
uint32_t crc32c(uint32_t crc, const void *data, size_t len);

/* The same without help of the processor. */
uint32_t crc32c_by_tables(uint32_t crc, const void *data, size_t len);

#endif
