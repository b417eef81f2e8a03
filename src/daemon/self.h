/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* self.h - what a process must do to itself before it may serve a block device. None of it is fatal; each says why in the log. */
#ifndef DAEMON_SELF_H
#define DAEMON_SELF_H

/*
 * Leaves the mount namespace of the caller for an empty one, but keeps its root folder: paths mean the same as before, also
 * those of file systems mounted later. So the process neither keeps a file system of anybody busy, nor is it the last user of
 * a namespace in which its own device is mounted: the unmount at the end of that would wait for the process that does it.
 */
void self_isolate(void);

/*
 * The kernel may write dirty pages of our own device in order to give us memory: PR_SET_IO_FLUSHER keeps it from that, read back
 * because a wrong argument clears the flag in silence. Memory is locked as it is touched, and the OOM killer looks elsewhere.
 * Threads made later inherit all of it.
 */
void self_protect(void);

#endif
