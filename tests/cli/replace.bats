#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Replace: an image gives way to another one that holds the same, on a disk in use and at rest; and what is refused.
load common
load devices

# stack: a disk of three images in disk/, with data of its own in each, mounted as ploop0.
stack() {
	ploop -v-1 init -s 16m -t none disk/root.hds
	ploop -v-1 mount -d dev/ploop0 disk
	fill 0 6
	ploop -v-1 snapshot -u "$FIRST" disk
	fill 3 6
	ploop -v-1 snapshot -u "$SECOND" disk
	fill 5 2
}

FIRST='{11111111-1111-4111-8111-111111111111}'
SECOND='{22222222-2222-4222-8222-222222222222}'

# fill FIRST COUNT: random bytes in so many MiB of the device.
fill() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count="$2" conv=notrunc oflag=direct status=none
}

sum() {
	sha256sum <dev/ploop0
}

# image LEVEL: its file.
image() {
	ploop list --json | jq -r ".devices[0].images[$1]"
}

# file_of UUID: what the descriptor calls it, without folders.
file_of() {
	grep -A2 "<GUID>$1" disk/DiskDescriptor.xml | sed -n 's:.*<File>\(.*\)</File>.*:\1:p'
}

own_setup_disk() {
	require jq
	mkdir disk
	stack
}

# same_after_remount SUM: also when the files are opened anew.
same_after_remount() {
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 mount -d dev/ploop0 disk
	[ "$(sum)" = "$1" ]
}

@test "an image of a mounted disk is replaced; the descriptor names the new one" {
	own_setup_disk
	local before old
	before=$(sum)
	old=$(image 1)
	cp --sparse=always "$old" disk/other
	run ploop replace -d dev/ploop0 -l 1 -i disk/other
	status_is 0
	[ "$(image 1)" = "$PWD/disk/other" ]
	[ "$(file_of "$SECOND")" = other ]
	[ "$(sum)" = "$before" ]
	rm "$old"
	fill 9 2
	before=$(sum)
	run ploop snapshot-merge -u "$SECOND" disk
	status_is 0
	[ "$(sum)" = "$before" ]
	same_after_remount "$before"
}

@test "-k: the new image gets the name of the old one, and the descriptor stays as it is" {
	own_setup_disk
	local before old text number
	before=$(sum)
	old=$(image 0)
	text=$(cat disk/DiskDescriptor.xml)
	mkdir aside
	cp --sparse=always "$old" aside/other
	number=$(stat -c %i aside/other)
	run ploop replace -d dev/ploop0 -o "$old" -k -i aside/other
	status_is 0
	[ "$(image 0)" = "$old" ]
	[ "$(stat -c %i "$old")" = "$number" ]
	[ ! -e aside/other ]
	[ "$(cat disk/DiskDescriptor.xml)" = "$text" ]
	[ "$(sum)" = "$before" ]
	# It is the new one that a merge writes to.
	ploop -v-1 merge -d dev/ploop0 -l 0..1
	[ "$(sum)" = "$before" ]
	same_after_remount "$before"
}

@test "a mounted disk by its descriptor or its mount point" {
	own_setup_disk
	local before
	before=$(sum)
	cp --sparse=always "$(image 0)" disk/one
	run ploop replace -l 0 -i disk/one disk
	status_is 0
	cp --sparse=always disk/one disk/two
	run ploop replace -u "$FIRST" -i disk/two disk/DiskDescriptor.xml
	status_is 0
	cp --sparse=always disk/two disk/three
	run ploop replace -o disk/two -i disk/three disk
	status_is 0
	[ "$(image 0)" = "$PWD/disk/three" ]
	[ "$(sum)" = "$before" ]
	run ploop replace -u "$SECOND" -l 1 -i disk/one disk
	status_is 38
	ploop -v-1 umount -d dev/ploop0
	mkdir fs
	ploop -v-1 init -s 64m fs/root.hds
	ploop -v-1 mount -m mnt fs
	ploop -v-1 snapshot fs
	cp --sparse=always fs/root.hds fs/other
	run ploop replace -m mnt -l 0 -i fs/other
	status_is 0
	echo still here >mnt/file
	ploop -v-1 umount -m mnt
}

@test "a disk at rest, any of its images; not by level" {
	own_setup_disk
	local before top
	before=$(sum)
	top=$(image 2)
	ploop -v-1 umount -d dev/ploop0
	cp --sparse=always "disk/$(file_of "$FIRST")" disk/one
	run ploop replace -l 0 -i disk/one disk
	status_is 38
	output_has "Can't specify level for offline replace"
	run ploop replace -u "$FIRST" -i disk/one disk
	status_is 0
	[ "$(file_of "$FIRST")" = one ]
	cp --sparse=always "$top" disk/two
	run ploop replace -o "$top" -k -i disk/two disk
	status_is 0
	[ ! -e disk/two ]
	ploop check disk
	ploop -v-1 mount -d dev/ploop0 disk
	[ "$(sum)" = "$before" ]
}

@test "what holds the same in another order is the same; what does not is refused" {
	require qemu-img
	own_setup_disk
	local before base
	before=$(sum)
	base=$(image 0)
	qemu-img convert -U -f parallels -O raw "$base" raw
	qemu-img convert -S 0 -f raw -O parallels -o cluster_size=1M raw disk/other
	run ploop replace -d dev/ploop0 -l 0 -i disk/other
	status_is 0
	[ "$(sum)" = "$before" ]
	cp --sparse=always disk/other disk/changed
	printf x | dd of=disk/changed bs=1 seek=$((3 << 20)) conv=notrunc status=none
	for more in '' -k; do
		run ploop -v-1 replace -d dev/ploop0 -l 0 -i disk/changed $more
		status_is 11
		output_is_one_line
		output_has "Images $PWD/disk/other and $PWD/disk/changed are not identical"
	done
	[ "$(image 0)" = "$PWD/disk/other" ]
	# An upper image must also map the same: a cluster of zeros hides what is below.
	qemu-img create -q -f parallels -o cluster_size=1M disk/empty 16M
	run ploop replace -d dev/ploop0 -l 1 -i disk/empty
	status_is 11
	run ploop replace -d dev/ploop0 -l 1 --no-compare -i disk/empty
	status_is 11
	qemu-img create -q -f parallels -o cluster_size=1M disk/larger 17M
	run ploop replace -d dev/ploop0 -l 0 -i disk/larger
	status_is 11
	output_has "are of different size"
	[ "$(sum)" = "$before" ]
	run ploop replace -d dev/ploop0 -l 0 --no-compare -i disk/changed
	status_is 0
	[ "$(image 0)" = "$PWD/disk/changed" ]
}

@test "what cannot be replaced, and by what" {
	own_setup_disk
	local before
	before=$(sum)
	cp --sparse=always "$(image 0)" disk/other
	run ploop replace -d dev/ploop0 -l 2 -i disk/other
	status_is 38
	output_has "is the top of"
	run ploop replace -d dev/ploop0 -l 3 -i disk/other
	status_is 38
	output_has "Invalid level 3 specified, allowed values are 0 to 2"
	run ploop replace -d dev/ploop0 -l 0
	status_is 38
	output_has "image file not specified (use -i)"
	run ploop replace -d dev/ploop0 -i disk/other
	status_is 38
	run ploop replace -d dev/ploop0 -l 0 -u "$FIRST" -i disk/other
	status_is 38
	run ploop replace -d dev/ploop0 -o disk/other -i disk/other
	status_is 38
	run ploop replace -d dev/ploop0 -l 0 -i "$(image 0)"
	status_is 38
	run ploop replace -d dev/ploop0 -l 0 -i nowhere
	status_is 4
	cp disk/other .
	run ploop replace -d dev/ploop0 -l 0 -i other
	status_is 38
	output_has "is not in the folder of"
	run ploop replace -d dev/ploop0 -l 0 -f raw -i disk/other
	status_is 38
	run ploop replace -u '{33333333-3333-4333-8333-333333333333}' -i disk/other disk
	status_is 43
	[ "$(sum)" = "$before" ]
	[ ! -e disk/DiskDescriptor.xml.replace ]
	[ ! -e disk/DiskDescriptor.xml.journal ]
}

@test "an image that a second device uses is left alone; a device that only reads has any of its images replaced" {
	own_setup_disk
	cp --sparse=always "$(image 0)" disk/other
	ploop -v-1 mount -r -d dev/ploop1 -c second -u "$FIRST" disk
	run ploop replace -u "$FIRST" -i disk/other disk
	status_is 17
	output_has "dev/ploop1"
	ploop -v-1 umount -d dev/ploop0
	run ploop replace -d dev/ploop1 -l 0 -i disk/other
	status_is 0
	[ "$(image 0)" = "$PWD/disk/other" ]
}

@test "images without a descriptor, and a raw base" {
	require jq
	mkdir raw
	truncate -s 8m raw/base
	dd if=/dev/urandom of=raw/base bs=1M seek=2 count=3 conv=notrunc status=none
	ploop -v-1 mount -f raw -b 2048 -d dev/ploop0 raw/base
	ploop -v-1 snapshot -d dev/ploop0 raw/delta
	fill 1 2
	local before
	before=$(sum)
	cp --sparse=always raw/base other
	run ploop replace -d dev/ploop0 -l 0 -f raw -i other
	status_is 0
	[ "$(image 0)" = "$PWD/other" ]
	[ "$(sum)" = "$before" ]
	cp --sparse=always other more
	run ploop replace -d dev/ploop0 -l 0 -f raw -k -i more
	status_is 0
	[ "$(image 0)" = "$PWD/other" ]
	[ ! -e more ]
	[ "$(sum)" = "$before" ]
}

@test "images are replaced under writes, again and again" {
	own_setup_disk
	local i writer
	(while [ ! -e stop ]; do fill $((RANDOM % 12)) 1 || exit 1; done) &
	writer=$!
	for i in {1..3}; do
		cp --sparse=always "$(image $((i % 2)))" "disk/other$i"
		run ploop replace -d dev/ploop0 -l $((i % 2)) --no-compare -i "disk/other$i"
		status_is 0
	done
	touch stop
	wait "$writer"
	same_after_remount "$(sum)"
	ploop -v-1 umount -d dev/ploop0
	ploop check disk
}
