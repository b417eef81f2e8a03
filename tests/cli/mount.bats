#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# ploop mount: devices, names, file systems, and what is refused.
load common
load devices

@test "a bare image becomes a device; the line that scripts read" {
	new_image a.hds
	run ploop mount a.hds
	status_is 0
	[ "$output" = "Adding delta dev=$PWD/dev/ploop0 img=$PWD/a.hds (rw)" ]
	[ "$(blockdev --getsize64 dev/ploop0)" = $((64 << 20)) ]
	run ploop umount a.hds
	status_is 0
	nothing_left
}

@test "-v-1 says nothing" {
	new_image a.hds
	run ploop -v-1 mount a.hds
	status_is 0
	[ -z "$output" ]
}

@test "what is written is there after umount and mount" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	cp -a /etc/passwd mnt/
	sum=$(sha256sum <mnt/passwd)
	ploop umount -m mnt
	nothing_left
	ploop mount -m mnt a.hds
	[ "$(sha256sum <mnt/passwd)" = "$sum" ]
	ploop umount -m mnt
	qemu-img check -q -f parallels a.hds
}

@test "the file system of the partition is mounted under the name /dev/ploopNp1" {
	new_disk a.hds
	run ploop mount -m mnt -o noatime a.hds
	status_is 0
	output_has "Mounting $PWD/dev/ploop0p1 at $PWD/mnt fstype=ext4 data='noatime' "
	grep -q "^$PWD/dev/ploop0p1 $PWD/mnt ext4 rw,noatime" /proc/mounts
}

@test "a file system without a partition table" {
	new_image a.hds
	ploop mount a.hds
	mkfs.ext4 -q dev/ploop0
	ploop umount -d "$PWD/dev/ploop0"
	run ploop mount -m mnt a.hds
	status_is 0
	output_has "Mounting $PWD/dev/ploop0 at"
}

@test "a partition that is made later has its name at once" {
	require parted
	new_image a.hds
	ploop mount a.hds
	[ ! -e dev/ploop0p1 ]
	parted -s "$PWD/dev/ploop0" mklabel gpt mkpart primary 2048s 100%
	wait_for test -b dev/ploop0p1
}

@test "options follow operands, and their arguments may be glued" {
	new_disk a.hds
	ploop mount a.hds -mmnt -dploop5
	mountpoint -q mnt
	[ -b dev/ploop5 ]
}

@test "-d: a name of the caller's choice, taken once" {
	new_image a.hds
	new_image b.hds
	ploop mount -d /dev/ploop7 a.hds
	[ -b dev/ploop7 ]
	run ploop mount -d /dev/ploop7 b.hds
	status_is 17
	output_has "in use"
	output_is_one_line
	ploop umount a.hds
	run ploop mount -d /dev/sda b.hds
	status_is 38
	run ploop mount -d ploop08 b.hds
	status_is 38
	nothing_left
}

@test "-d: a file of somebody else is not touched, a stale symlink is replaced" {
	new_image a.hds
	echo precious >dev/ploop3
	run ploop mount -d ploop3 a.hds
	status_is 2
	output_has "dev/ploop3 exists and is not ours"
	[ "$(cat dev/ploop3)" = precious ]
	rm dev/ploop3
	ln -s /dev/loop-that-was dev/ploop3
	ploop mount -d ploop3 a.hds
	[ -b dev/ploop3 ]
}

@test "mounts that race get devices of their own" {
	for i in 1 2 3 4 5 6; do
		new_image $i.hds 8M
	done
	for i in 1 2 3 4 5 6; do
		ploop mount $i.hds >$i.out 3>&- &
	done
	wait
	[ "$(cat ./*.out | grep -c '^Adding delta dev=')" = 6 ]
	[ "$(cat ./*.out | grep -o 'dev=[^ ]*' | sort -u | wc -l)" = 6 ]
	[ "$(ploop list | wc -l)" = 6 ]
	ploop umount --all
	nothing_left
}

@test "a disk that is mounted is not mounted again: 21" {
	new_image a.hds
	ploop mount a.hds
	ln -s a.hds other-name
	run ploop mount other-name
	status_is 21
	output_has "already used by device $PWD/dev/ploop0"
	output_is_one_line
}

@test "an image that somebody else has open is not mounted: 37" {
	new_image a.hds
	ploop mount a.hds
	# Another run directory does not know of the device: the lock of the image does.
	mkdir other
	PLOOP_RUN_DIR=$PWD/other run ploop mount a.hds
	status_is 37
	output_is_one_line
	run qemu-img info a.hds
	[ "$status" -ne 0 ]
	output_has lock
}

@test "several devices on one disk by component, read-only" {
	new_disk a.hds
	new_descriptor DiskDescriptor.xml a.hds 64
	ploop mount -r -c one DiskDescriptor.xml
	ploop mount -r -c two -m mnt DiskDescriptor.xml
	run ploop mount -r -c two DiskDescriptor.xml
	status_is 21
	run ploop list
	output_has " one"
	output_has " two"
	run ploop umount DiskDescriptor.xml
	status_is 40
	ploop umount -c two DiskDescriptor.xml
	ploop umount DiskDescriptor.xml -c one
	nothing_left
}

@test "a descriptor, by its name or its folder" {
	mkdir disk
	new_disk disk/root.hds
	new_descriptor disk/DiskDescriptor.xml root.hds 64
	ploop mount -m mnt disk/DiskDescriptor.xml
	ploop umount disk
	ploop mount -m mnt disk
	run ploop mount disk/DiskDescriptor.xml
	status_is 21
	ploop umount disk/DiskDescriptor.xml
	nothing_left
}

@test "-u: a snapshot that is not there: 43; a word that is no UUID: 38" {
	new_disk a.hds
	new_descriptor DiskDescriptor.xml a.hds 64
	run ploop mount -u 11111111-2222-3333-4444-555555555555 DiskDescriptor.xml
	status_is 43
	output_is_one_line
	run ploop mount -u nonsense DiskDescriptor.xml
	status_is 38
	nothing_left
}

@test "-u: a snapshot beside the disk that is made of it" {
	local base='{11111111-2222-3333-4444-555555555555}' top='{5fbaabe3-6958-40ff-92a7-860e329aab41}'
	new_disk base.hds
	new_image top.hds 64M
	new_descriptor DiskDescriptor.xml top.hds 64
	sed -i "s|<Image>|<Image><GUID>$base</GUID><Type>Compressed</Type><File>base.hds</File></Image>&|
		s|<Shot>|<Shot><GUID>$base</GUID><ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>&|
		/<ParentGUID>.*<\/Shot><\/Snapshots>/s|<ParentGUID>[^<]*|<ParentGUID>$base|" DiskDescriptor.xml
	run ploop mount -m mnt DiskDescriptor.xml
	status_is 0
	output_has "Adding delta dev=$PWD/dev/ploop0 img=$PWD/base.hds (ro)"
	output_has "Adding delta dev=$PWD/dev/ploop0 img=$PWD/top.hds (rw)"
	echo new >mnt/file
	sync -f mnt/file
	run ploop mount -u "$base" -c backup DiskDescriptor.xml
	status_is 38
	output_has "child"
	output_is_one_line
	mkdir snapshot
	ploop mount -r -u "${base:1:36}" -c backup -m snapshot DiskDescriptor.xml
	[ -f mnt/file ]
	[ ! -e snapshot/file ]
	ploop list --json >json
	[ "$(jq -r '.devices[1].snapshot' json)" = "$base" ]
	[ "$(jq -r '.devices[0].snapshot' json)" = "$top" ]
	ploop umount -c backup DiskDescriptor.xml
	ploop umount DiskDescriptor.xml
	nothing_left
}

@test "a raw base needs its cluster: 38, and works with it" {
	truncate -s 64M base.raw
	run ploop mount -f raw base.raw
	status_is 38
	output_has "locksize is not specified"
	nothing_left
	ploop mount -f raw -b 2048 base.raw
	[ "$(blockdev --getsize64 dev/ploop0)" = $((64 << 20)) ]
}

@test "-r writes no byte to the image, and mounts a file system that needs its journal" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	echo kept >mnt/file
	sync -f mnt/file
	# A copy of the image in use is what a crash of the host leaves.
	cp a.hds crashed.hds
	ploop umount a.hds
	before=$(sha256sum <crashed.hds)
	run ploop mount -r -m mnt crashed.hds
	status_is 0
	output_has "img=$PWD/crashed.hds (ro)"
	output_has "(noload)"
	ls mnt
	run touch mnt/new
	[ "$status" -ne 0 ]
	run dd if=/dev/zero of=dev/ploop0 bs=4k count=1
	[ "$status" -ne 0 ]
	ploop umount -m mnt
	[ "$(sha256sum <crashed.hds)" = "$before" ]
	# Writable, the journal is replayed.
	ploop mount -m mnt crashed.hds
	[ "$(cat mnt/file)" = kept ]
}

@test "-F preens; what cannot be preened: 41, and nothing is left" {
	new_disk a.hds
	run ploop mount -F -m mnt a.hds
	status_is 0
	output_has clean
	ploop umount -m mnt
	ploop mount a.hds
	# A root folder that is gone is nothing that preening decides about.
	debugfs -w -R "clri <2>" dev/ploop0p1
	debugfs -w -R "ssv state 0" dev/ploop0p1
	ploop umount a.hds
	run ploop mount -F -m mnt a.hds
	status_is 41
	output_has "e2fsck failed (exit code "
	nothing_left
}

@test "no file system, or one that cannot be mounted: 21, and nothing is left" {
	new_image a.hds
	run --separate-stderr ploop mount -m mnt a.hds
	status_is 21
	# shellcheck disable=SC2154
	[[ "$stderr" == *"holds no file system that is known"* ]]
	nothing_left
	run --separate-stderr ploop mount -t ext4 -m mnt a.hds
	status_is 21
	[[ "$stderr" == "Can't mount file system dev=$PWD/dev/ploop0 target=$PWD/mnt data=''"* ]]
	nothing_left
}

@test "a mount point that is not there: 38, and the image is not touched" {
	new_disk a.hds
	before=$(sha256sum <a.hds)
	run ploop mount -m nowhere a.hds
	status_is 38
	output_is_one_line
	run ploop mount -m a.hds a.hds
	status_is 38
	[ "$(sha256sum <a.hds)" = "$before" ]
	nothing_left
}

@test "an image that is not there, or is none: one line, and nothing is left" {
	run ploop mount missing.hds
	status_is 4
	output_is_one_line
	output_has missing.hds
	head -c 1M /dev/zero >zero.hds
	run ploop mount zero.hds
	[ "$status" -ne 0 ]
	output_is_one_line
	output_has zero.hds
	nothing_left
}

@test "balloon_ino is dropped, other options reach the file system" {
	new_disk a.hds
	ploop mount -m mnt -o balloon_ino=12,nosuid a.hds
	grep -q "$PWD/mnt ext4 rw,nosuid" /proc/mounts
}

@test "a partition table for sectors of 4096 bytes: a clear error" {
	new_image a.hds
	ploop mount a.hds
	printf 'EFI PART' | dd of=dev/ploop0 bs=4096 seek=1 conv=notrunc status=none
	ploop umount a.hds
	run ploop mount -m mnt a.hds
	status_is 21
	output_has "sectors of 4096 bytes"
	nothing_left
}

@test "without ploopd: a clear error" {
	new_image a.hds
	PLOOPD=/nowhere/ploopd run ploop mount a.hds
	status_is 12
	output_has "/nowhere/ploopd"
	output_is_one_line
}
