#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The balloon: sizes and words, what the host gets back, whose file it may be, and what the death of somebody leaves.
load common
load devices

BALLOON=.balloon-c3a5ae3d-ce7f-43c4-a1ea-c61e2b4504e8

# disk SIZE [OPTIONS]: a disk, mounted at mnt.
disk() {
	local size=$1
	shift
	mkdir d
	ploop -v-1 init -s "$size" "$@" d/root.hds
	ploop -v-1 mount -m mnt d
}

# fill_and_delete MIB KEEP: so much was written, of which KEEP MiB are left.
fill_and_delete() {
	dd if=/dev/urandom of=mnt/gone bs=1M count=$(($1 - $2)) status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count="$2" status=none
	sync -f mnt
	rm mnt/gone
	sync -f mnt
}

# used: MiB that the image holds on the host.
used() {
	echo $(($(stat -c %b d/root.hds) / 2048))
}

length() {
	echo $(($(stat -c %s d/root.hds) >> 20))
}

# sound: the disk is unmounted, and neither the image nor the file system has any fault.
sound() {
	ploop -v-1 umount d
	qemu-img check -q -f parallels d/root.hds
	ploop -v-1 check d
	ploop -v-1 mount -d dev/ploop9 d
	e2fsck -fn dev/ploop9p1 >fsck.log 2>&1 || { cat fsck.log >&2; return 1; }
	ploop -v-1 umount d
}

@test "change, show, status, clear, complete, check, repair: the words of the original" {
	disk 1g
	[ "$(ploop balloon show -m mnt)" = "Current size of hidden balloon is 0 bytes" ]
	[ "$(ploop balloon check -m mnt)" = "Nothing to do: hidden balloon is empty" ]
	[ "$(ploop balloon repair -m mnt)" = "Nothing to do: hidden balloon is empty" ]
	run ploop balloon change -s 256m -d dev/ploop0 -m mnt
	status_is 0
	[ "${lines[0]}" = "Changing balloon size old_size=0 new_size=268435456" ]
	[ "${lines[1]}" = "Successfully inflated balloon from 0 to 268435456 bytes" ]
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 268435456 bytes" ]
	[ "$(ploop balloon show --json d | jq .size)" = 268435456 ]
	[ "$(ploop balloon status -d dev/ploop0 -m mnt)" = "Current state of in-kernel maintenance: OFF" ]
	[ "$(ploop balloon clear -d dev/ploop0)" = "Current state of in-kernel maintenance is OFF now" ]
	[ "$(ploop balloon complete -d dev/ploop0)" = 'Nothing to complete: kernel is in "OFF" state' ]
	[ "$(ploop balloon check -d dev/ploop0)" = "No free blocks found" ]
	[ "$(ploop balloon repair -d dev/ploop0)" = "No free blocks found" ]
	run ploop balloon change -s 256m d
	[ "${lines[1]}" = "Nothing to do: new_size == old_size" ]
	run ploop balloon change -s 1m d
	[ "${lines[1]}" = "Successfully truncated balloon from 268435456 to 1048576 bytes" ]
	ln -s "$(command -v ploop)" ploop-balloon
	[ "$(./ploop-balloon show -d dev/ploop0)" = "Current size of hidden balloon is 1048576 bytes" ]
	sound
}

@test "what it covers goes back to the host, and what is beside it stays" {
	disk 512m
	fill_and_delete 300 30
	sum=$(sha256sum <mnt/kept)
	[ "$(used)" -ge 295 ]
	ploop -v-1 balloon change -s 350m d >out
	grep -E '^TRUNCATED: [0-9]+ cluster-blocks' out
	[ "$(used)" -le 130 ]
	[ "$(length)" -le 140 ]
	[ "$(df --output=avail -BM mnt | tail -1 | tr -dc 0-9)" -le 100 ]
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	sound
	ploop -v-1 mount -m mnt d
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	# All of it comes back.
	ploop -v-1 balloon change -s 0 d
	dd if=/dev/urandom of=mnt/again bs=1M count=300 status=none
	sync -f mnt
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	sound
}

@test "XFS" {
	require mkfs.xfs xfs_repair
	disk 512m -t xfs
	fill_and_delete 200 20
	sum=$(sha256sum <mnt/kept)
	ploop -v-1 balloon change -s 350m d
	[ "$(used)" -le 150 ]
	[ "$(ploop balloon check d)" = "No free blocks found" ]
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	ploop -v-1 umount d
	qemu-img check -q -f parallels d/root.hds
}

@test "it is protected, and does not fit where there is no room" {
	disk 512m
	[ "$(stat -c '%a %u %h' mnt/$BALLOON)" = "600 0 1" ]
	ploop -v-1 balloon change -s 100m d
	run rm -f mnt/$BALLOON
	[ "$status" -ne 0 ]
	run truncate -s 0 mnt/$BALLOON
	[ "$status" -ne 0 ]
	run ploop balloon change -s 10g d
	status_is 20
	output_has "does not fit"
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 104857600 bytes" ]
	[ "$(ploop balloon check d)" = "No free blocks found" ]
	ploop -v-1 balloon change -s 0 d
	rm mnt/$BALLOON
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 0 bytes" ]
	# It is made anew.
	ploop -v-1 balloon change -s 1m d
	[ "$(stat -c '%a %u %s' mnt/$BALLOON)" = "600 0 1048576" ]
}

@test "what is no balloon is not touched: links, pipes, devices, others' files" {
	disk 512m
	echo precious >precious
	chmod 600 precious
	for trap in "ln -s $PWD/precious" "mkfifo -m 600" "mknod -m 600 THERE b 7 0" "mkdir" \
		"install -m 600 -o 1000 precious" "ln mnt/other"; do
		rm -rf mnt/$BALLOON
		install -m 600 precious mnt/other
		case $trap in
		*THERE*) mknod -m 600 mnt/$BALLOON b 7 0 ;;
		*) $trap mnt/$BALLOON ;;
		esac
		for action in "show" "change -s 10m" "check" "repair"; do
			# shellcheck disable=SC2086
			run timeout 20 ploop balloon $action d
			status_is 4
			output_has "remove it"
		done
		[ "$(cat precious mnt/other)" = "precious
precious" ]
	done
}

@test "who has it open, or holds it, is not overruled" {
	require flock
	disk 512m
	ploop -v-1 balloon change -s 10m d
	exec 5<mnt/$BALLOON
	flock 5
	for action in "change -s 20m" check repair; do
		# shellcheck disable=SC2086
		run ploop balloon $action d
		status_is 17
		output_has "Hidden balloon is in use by someone else!"
	done
	exec 5<&-
	# One that is open for writing could be changed under our hands.
	ploop -v-1 balloon change -s 0 d
	exec 6<>mnt/$BALLOON
	run ploop balloon change -s 20m d
	status_is 17
	exec 6<&-
	ploop -v-1 balloon repair d
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 20971520 bytes" ]
	[ "$(ploop balloon check d)" = "No free blocks found" ]
}

@test "a balloon from elsewhere: found, and what it covers is given back" {
	disk 512m
	fill_and_delete 250 30
	fallocate -l 400m mnt/$BALLOON
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 419430400 bytes" ]
	run ploop balloon check d
	[[ $output =~ ^Found\ [0-9]+\ free\ blocks\.\ Consider\ using\ \"ploop-balloon\ repair\"$ ]]
	[ "$(ploop balloon check --json d | jq .clusters)" -ge 150 ]
	run ploop balloon repair d
	status_is 0
	[[ ${lines[0]} =~ ^Found\ [0-9]+\ free\ blocks$ ]]
	[ "$(used)" -le 130 ]
	[ "$(ploop balloon check d)" = "No free blocks found" ]
	sound
}

@test "mounted in another namespace only, below another mount, or nowhere" {
	require unshare
	disk 512m
	mount -t tmpfs none mnt
	ploop -v-1 balloon change -s 10m -d dev/ploop0
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 10485760 bytes" ]
	umount mnt
	# shellcheck disable=SC2016
	unshare -m sh -c 'touch "$0/inside"; exec sleep 60' "$PWD" 3>&- &
	wait_for [ -e inside ]
	umount -i mnt
	[ "$(ploop balloon show d)" = "Current size of hidden balloon is 10485760 bytes" ]
	kill $!
	wait $! || true
	run ploop balloon show d
	status_is 38
	output_has "not mounted"
	[ "$(ploop balloon show --automount d)" = "Current size of hidden balloon is 10485760 bytes" ]
	ploop -v-1 umount d
	run ploop balloon show d
	status_is 38
	[ "$output" = "The image is not mounted" ]
	ploop -v-1 balloon change -s 20m --automount d
	[ "$(ploop -v-1 balloon show --automount d)" = "Current size of hidden balloon is 20971520 bytes" ]
	nothing_left
}

@test "errors of the call: 38" {
	run ploop balloon
	status_is 38
	run ploop balloon show
	status_is 38
	output_has "Error: one of -d, -m or DiskDescriptor.xml argument is required"
	run ploop balloon change -d dev/ploop0
	status_is 38
	run ploop balloon inflate -d dev/ploop0
	status_is 38
	run ploop balloon show -m "$PWD"
	status_is 38
}

@test "raw images have none: 38" {
	disk 512m -f raw
	run ploop balloon change -s 10m d
	status_is 38
	output_has "Ballooning for raw format is not supported"
}

@test "what lay at the end of the image alone is cut off, though nothing moves" {
	disk 512m
	for _ in 1 2 3; do
		dd if=/dev/urandom of=mnt/gone bs=1M count=250 status=none
		sync -f mnt
		rm mnt/gone
		sync -f mnt
		ploop -v-1 balloon change -s 400m d
		[ "$(length)" -le 100 ]
		ploop -v-1 balloon change -s 0 d
	done
	sound
}
