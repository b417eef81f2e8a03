# SPDX-License-Identifier: LGPL-2.1-or-later
# What the tests in the virtual machine rely on: its kernel has all front ends' drivers, and a disk is mounted there.

load ../cli/common
load ../cli/devices

@test "the kernel has loop, fuse, nbd and ublk" {
	[ -c /dev/loop-control ]
	[ -c /dev/fuse ]
	[ -b /dev/nbd0 ]
	[ -c /dev/ublk-control ]
}

@test "a disk is mounted over FUSE, written to and unmounted" {
	new_disk disk.hds
	run -0 ploop mount --front-end fuse -m mnt disk.hds
	echo hello >mnt/file
	run -0 ploop umount -m mnt
	run -0 ploop mount --front-end fuse -m mnt disk.hds
	[ "$(cat mnt/file)" = hello ]
	run -0 ploop umount -m mnt
	nothing_left
}
