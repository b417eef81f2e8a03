/* SPDX-License-Identifier: LGPL-2.1-or-later */
/* self.h - what a process must do to itself before it may serve a block device. None of it is fatal; each says why in the log. */
#ifndef DAEMON_SELF_H
#define DAEMON_SELF_H

/*
 * Leaves the mount namespace of the caller for one of our own, but keeps the caller's root folder: paths mean the same as before, also
 * those of file systems mounted later. So the process neither keeps a file system of anybody busy, nor is it the last user of
 * a namespace in which its own device is mounted: the unmount at the end of that would wait for the process that does it.
 *
 * The caller's namespace may end before we do, and all paths with it. So ours has what we need to the end under the same
 * names: /dev, /sys, /proc, and the folders of rundir.h. Returns the root of that, for self_find_root(), or -EBADF.
 */
int self_isolate(void);

/* Takes the root of our own namespace when the caller's has ended. Call it before paths are used late in life. */
void self_find_root(int refuge);

/*
 * The kernel may write dirty pages of our own device in order to give us memory: PR_SET_IO_FLUSHER keeps it from that, read back
 * because a wrong argument clears the flag in silence. Memory is locked as it is touched, and the OOM killer looks elsewhere.
 * Threads made later inherit all of it.
 */
void self_protect(void);

#endif
