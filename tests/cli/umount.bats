#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# ploop umount: all forms, its truth, and who is in the way.
load common
load devices

@test "by device, by partition, by mount point, by image" {
	new_disk a.hds
	for how in "-d $PWD/dev/ploop0" "-d $PWD/dev/ploop0p1" "-d ploop0" "-m mnt" "-m $PWD/mnt" a.hds; do
		ploop mount -m mnt a.hds
		# shellcheck disable=SC2086
		run ploop umount $how
		status_is 0
		output_has "Unmounting file system at $PWD/mnt"
		output_has "Unmounting device $PWD/dev/ploop0"
		nothing_left
	done
}

@test "what is not mounted: 40 for a descriptor, 38 for an image and a folder, 2 for a device" {
	new_disk a.hds
	new_descriptor DiskDescriptor.xml a.hds 64
	run ploop umount DiskDescriptor.xml
	status_is 40
	output_has "is not mounted"
	run ploop umount .
	status_is 40
	run ploop umount a.hds
	status_is 38
	output_has "Image a.hds is not mounted"
	run ploop umount -m mnt
	status_is 38
	output_has "Unable to find ploop device by mnt"
	run ploop umount -d /dev/ploop4
	status_is 2
	output_is_one_line
}

@test "exactly one of the forms: 38" {
	for how in "" "-d ploop0 -m mnt" "a b" "--all -m mnt"; do
		# shellcheck disable=SC2086
		run ploop umount $how
		status_is 38
	done
}

@test "a daemon that ended has closed the image: nothing is written afterwards" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	pid=$(daemon_pid)
	dd if=/dev/urandom of=mnt/file bs=1M count=20 status=none
	ploop umount -m mnt
	is_dead "$pid"
	before=$(sha256sum <a.hds)
	qemu-img check -q -f parallels a.hds
	[ "$(sha256sum <a.hds)" = "$before" ]
}

@test "a busy file system: 46, and one line names the process" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	(cd mnt && exec sleep 60 3>&-) &
	holder=$!
	run --separate-stderr ploop umount -m mnt
	kill "$holder"
	status_is 46
	# shellcheck disable=SC2154
	[ "$stderr" = "Failed to umount $PWD/mnt: in use: process $holder (sleep) stands in it" ]
	mountpoint -q mnt
	ploop umount -m mnt
	nothing_left
}

@test "a device that somebody has open: 46, and one line names the process" {
	new_image a.hds
	ploop mount a.hds
	tail -f /dev/null 8<dev/ploop0 3>&- &
	holder=$!
	run --separate-stderr ploop umount a.hds
	kill "$holder"
	status_is 46
	[ "$stderr" = "$PWD/dev/ploop0 is in use: process $holder (tail) has it open" ]
	ploop umount a.hds
	nothing_left
}

@test "a device mounted in another namespace: 46, and one line says where" {
	require unshare
	new_disk a.hds
	ploop mount a.hds
	unshare -m sh -c "mount dev/ploop0p1 mnt && exec sleep 60" 3>&- &
	holder=$!
	wait_for grep -q "$PWD/mnt " "/proc/$holder/mountinfo"
	is_not_mounted mnt
	run --separate-stderr ploop umount a.hds
	status_is 46
	[ "$stderr" = "$PWD/dev/ploop0 is in use: mounted at $PWD/mnt in the mount namespace of process $holder (sleep)" ]
	kill "$holder"
	wait_for is_dead "$holder"
	ploop umount a.hds
	nothing_left
}

@test "a short use is waited for" {
	new_image a.hds
	ploop mount a.hds
	timeout 1 tail -f /dev/null 8<dev/ploop0 3>&- &
	run ploop umount a.hds
	status_is 0
	nothing_left
}

@test "a file system mounted twice is unmounted twice" {
	new_disk a.hds
	mkdir bind
	ploop mount -m mnt a.hds
	mount --bind mnt bind
	ploop umount -m mnt
	nothing_left
}

@test "a file system with device numbers of its own" {
	require mkfs.btrfs
	grep -q btrfs /proc/filesystems || skip "no btrfs"
	new_image a.hds 256M
	ploop mount a.hds
	mkfs.btrfs -q dev/ploop0
	ploop umount a.hds
	ploop mount -m mnt a.hds
	[ "$(ploop list -a)" = "ploop0       $PWD/a.hds $PWD/mnt" ]
	ploop umount -m mnt
	nothing_left
}

@test "XFS: a log that was not replayed is left alone by -r" {
	require mkfs.xfs
	grep -q xfs /proc/filesystems || skip "no XFS"
	new_image a.hds 512M
	ploop mount a.hds
	mkfs.xfs -q dev/ploop0
	ploop umount a.hds
	ploop mount -m mnt a.hds
	echo logged >mnt/file
	sync -f mnt/file
	cp a.hds crashed.hds
	ploop umount -m mnt
	before=$(sha256sum <crashed.hds)
	run ploop mount -r -m mnt crashed.hds
	status_is 0
	output_has "(norecovery)"
	ploop umount -m mnt
	[ "$(sha256sum <crashed.hds)" = "$before" ]
	ploop mount -m mnt crashed.hds
	[ "$(cat mnt/file)" = logged ]
}

@test "umount -l: out of sight now, gone with its last user" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	exec 7>mnt/open
	ploop umount -l -m mnt
	is_not_mounted mnt
	[ -b dev/ploop0 ]
	echo late >&7
	exec 7>&-
	wait_for is_gone run/ploop0
	nothing_left
	ploop mount -m mnt a.hds
	[ "$(cat mnt/open)" = late ]
}

@test "--all takes them all, one inside another too" {
	new_disk a.hds 256
	ploop mount -m mnt a.hds
	new_disk mnt/b.hds
	mkdir inner
	ploop mount -m inner mnt/b.hds
	ploop umount --all
	nothing_left
}

@test "SIGTERM ends a daemon in order, but not under a mounted file system" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	pid=$(daemon_pid)
	kill "$pid"
	sleep 0.3
	echo more >mnt/file
	sync -f mnt/file
	umount mnt
	wait_for is_dead "$pid"
	nothing_left
	ploop mount -m mnt a.hds
	[ "$(cat mnt/file)" = more ]
}

@test "a loop device that is detached by hand takes the daemon along" {
	new_image a.hds
	ploop mount --front-end fuse a.hds
	pid=$(daemon_pid)
	losetup -d "$(node_of ploop0)"
	wait_for is_dead "$pid"
	nothing_left
}
