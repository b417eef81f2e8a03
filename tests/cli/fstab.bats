#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# mount(8) and umount(8) with disks of type ploop. They look for their helpers in /sbin only, so each test has a mount
# namespace of its own with a /sbin that has ours, too. What is quoted is for the shell in there.
# shellcheck disable=SC2016
load common
load devices

# in_system SCRIPT: runs it where the helpers are installed.
in_system() {
	require unshare
	mkdir -p bin
	ln -sf "$PLOOP_BUILD/ploop" bin/mount.ploop
	ln -sf "$PLOOP_BUILD/ploop" bin/umount.ploop
	unshare -m bash -ec '
		sbin=$(realpath /sbin)
		mount -t overlay overlay -o "lowerdir=$PWD/bin:$sbin" "$sbin"
		'"$1"
}

@test "mount -t ploop, and umount: the device goes with the mount" {
	new_disk a.hds
	run in_system '
		mount -t ploop a.hds mnt -o noatime
		grep "^$PWD/dev/ploop0p1 $PWD/mnt ext4 rw,noatime" /proc/mounts
		echo kept >mnt/file
		umount mnt
	'
	status_is 0
	[ "${#lines[@]}" = 1 ] # nothing but what grep found
	nothing_left
	ploop mount -m mnt a.hds
	[ "$(cat mnt/file)" = kept ]
}

@test "a line of fstab, gone through twice" {
	mkdir disk
	new_disk disk/root.hds
	new_descriptor disk/DiskDescriptor.xml root.hds 64
	echo "$PWD/disk/DiskDescriptor.xml $PWD/mnt ploop ro,x-systemd.automount,nofail 0 0" >fstab
	before=$(sha256sum <disk/root.hds)
	run in_system '
		mount -T fstab "$PWD/mnt"
		mount.ploop "$PWD/disk/DiskDescriptor.xml" "$PWD/mnt" -o ro
		findmnt -no OPTIONS mnt
		umount mnt
	'
	status_is 0
	[[ "$output" == ro,* ]]
	nothing_left
	[ "$(sha256sum <disk/root.hds)" = "$before" ]
}

@test "umount of what ploop mounted ends the device, too" {
	new_disk a.hds
	run in_system 'ploop -v-1 mount -m mnt a.hds; umount mnt'
	status_is 0
	nothing_left
}

@test "umount -l, and of a dead device" {
	new_disk a.hds
	run in_system 'mount -t ploop a.hds mnt; umount -l mnt'
	status_is 0
	wait_for is_gone run/ploop0
	run in_system 'export PLOOPD_ALONE=1; mount -t ploop a.hds mnt; kill -9 $(cut -d" " -f1 run/ploop0/pid); sleep 0.3; umount mnt'
	status_is 0
	nothing_left
}

@test "umount of a busy file system: one line, and the device stays" {
	new_disk a.hds
	run in_system 'mount -t ploop a.hds mnt; cd mnt; umount ../mnt || echo "status $?"; cd ..; ploop -v-1 umount -m mnt'
	status_is 0
	[ "${#lines[@]}" = 2 ]
	output_has "stands in it"
	output_has "status 32"
	nothing_left
}

@test "mount -f mounts nothing; -s, -n, -v are accepted; own options are" {
	new_disk a.hds
	run in_system 'mount -f -t ploop a.hds mnt'
	status_is 0
	nothing_left
	run in_system 'mount.ploop a.hds mnt -snv -t ploop.ext4 -o ploop.fsck,ploop.component=c,ploop.device=ploop6; umount mnt'
	status_is 0
	output_has clean
	output_has "Adding delta dev=$PWD/dev/ploop6"
	nothing_left
}

@test "-N: in the namespace of somebody else" {
	new_disk a.hds
	run in_system '
		unshare -m sleep 60 3>&- &
		other=$!
		sleep 0.3
		mount.ploop -N $other "$PWD/a.hds" "$PWD/mnt"
		if mountpoint -q mnt; then exit 9; fi
		grep " $PWD/mnt " /proc/$other/mountinfo
		umount.ploop -N /proc/$other/ns/mnt "$PWD/mnt"
		kill $other
	'
	status_is 0
	nothing_left
}

@test "what goes wrong: one line and the status of mount(8)" {
	new_disk a.hds
	run in_system 'mount.ploop a.hds'
	status_is 32
	run in_system 'mount.ploop nowhere.hds mnt'
	status_is 32
	output_has "nowhere.hds"
	output_is_one_line
	run in_system 'mount.ploop a.hds nowhere'
	status_is 32
	output_is_one_line
	run in_system 'mount.ploop a.hds mnt -o ploop.nonsense'
	status_is 1
	output_is_one_line
	run in_system 'mount.ploop a.hds mnt -o remount,ro'
	status_is 1
	output_has "mount -i"
	run in_system 'umount.ploop mnt'
	status_is 32
	output_is_one_line
	run in_system 'mount.ploop -h'
	status_is 1
	nothing_left
}
