#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# restore-descriptor: a new descriptor from the base alone.
load common

own_setup() {
	require qemu-img
	mkdir disk
	qemu-img create -q -f parallels disk/root.hds 64m
}

# field NAME: the text of the first such element.
field() {
	sed -n "s,.*<$1>\(.*\)</$1>.*,\1,p" disk/DiskDescriptor.xml | head -n 1
}

@test "a descriptor for a ploop1 base" {
	run ploop restore-descriptor disk disk/root.hds
	status_is 0
	output_has "Storing $PWD/disk/DiskDescriptor.xml"
	[ "$(field Disk_size)" = 131072 ]
	[ "$(field Blocksize)" = 2048 ]
	[ "$(field Heads)/$(field Cylinders)/$(field Sectors)" = 16/256/32 ]
	[ "$(field Type)" = Compressed ]
	[ "$(field File)" = root.hds ]
	[ "$(field TopGUID)" = "{5fbaabe3-6958-40ff-92a7-860e329aab41}" ]
	[ "$(field ParentGUID)" = "{00000000-0000-0000-0000-000000000000}" ]
	[ ! -e disk/DiskDescriptor.xml.tmp ]
}

@test "again, and over a broken one" {
	ploop restore-descriptor disk disk/root.hds
	cp disk/DiskDescriptor.xml first
	run ploop restore-descriptor disk disk/root.hds
	status_is 0
	cmp first disk/DiskDescriptor.xml
	echo "<broken" >disk/DiskDescriptor.xml
	run ploop restore-descriptor disk disk/root.hds
	status_is 0
	cmp first disk/DiskDescriptor.xml
}

@test "a base in another folder is named by its whole path" {
	mkdir other
	ploop restore-descriptor other disk/root.hds
	grep -q "<File>$PWD/disk/root.hds</File>" other/DiskDescriptor.xml
}

@test "a raw base: the largest cluster that divides it, or the one that is said" {
	truncate -s $((64 * 1024 * 3)) disk/raw
	ploop restore-descriptor -f raw disk disk/raw
	[ "$(field Type)" = Plain ]
	[ "$(field Blocksize)" = 128 ]
	[ "$(field Disk_size)" = 384 ]
	ploop restore-descriptor disk disk/raw -f raw -b 64
	[ "$(field Blocksize)" = 64 ]
	truncate -s 100000 disk/raw
	run ploop restore-descriptor -f raw disk disk/raw
	status_is 38
	output_has "Image size must be aligned to 32K"
	run ploop restore-descriptor -f raw -b 100 disk disk/raw
	status_is 38
	output_has "Incorrect blocksize"
}

@test "snapshots are not thrown away" {
	ploop restore-descriptor disk disk/root.hds
	sed -i -e 's,</Image>,&<Image><GUID>{11111111-aaaa-4bbb-8ccc-000000000001}</GUID><Type>Compressed</Type><File>x</File></Image>,' \
		-e 's,</Shot>,&<Shot><GUID>{11111111-aaaa-4bbb-8ccc-000000000001}</GUID><ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>,' \
		disk/DiskDescriptor.xml
	cp disk/DiskDescriptor.xml first
	run ploop restore-descriptor disk disk/root.hds
	status_is 38
	output_has "names 2 images"
	cmp first disk/DiskDescriptor.xml
}

@test "deltas beside the base are told of" {
	cp disk/root.hds "disk/root.hds.{99999999-dddd-4eee-8fff-0000000000f1}"
	run ploop restore-descriptor disk disk/root.hds
	status_is 0
	output_has "1 delta "
}

@test "what is no image, no folder, or not there" {
	run ploop -v-1 restore-descriptor disk disk/none
	status_is 4
	output_is_one_line
	run ploop -v-1 restore-descriptor none disk/root.hds
	status_is 4
	output_is_one_line
	head -c 100000 /dev/zero >disk/zeros
	run ploop -v-1 restore-descriptor disk disk/zeros
	status_is 11
	output_has "signature"
	output_is_one_line
	run ploop restore-descriptor disk
	status_is 38
	run ploop restore-descriptor -f qcow2 disk disk/root.hds
	status_is 38
	output_has "Bad -f argument: qcow2"
	[ ! -e disk/DiskDescriptor.xml ]
}

@test "another change of the descriptor is waited for" {
	require flock
	ploop restore-descriptor disk disk/root.hds
	flock disk/DiskDescriptor.xml.lck sleep 0.5 &
	sleep 0.1
	run timeout 10 ploop restore-descriptor disk disk/root.hds
	status_is 0
	wait
}
