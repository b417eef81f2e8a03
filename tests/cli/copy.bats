#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Copies of disks in use: local, by streams, of whole stacks; what is refused, and what is left when something goes wrong.
# Each test has a device of its own.
# shellcheck disable=SC2030,SC2031
load common
load devices

# new_source [INIT OPTION..]: a mounted disk of 64 MiB with data in it, as $DEV.
new_source() {
	mkdir source
	ploop -v-1 init -s 64m -t none "$@" source/root.hds
	ploop -v-1 mount source
	DEV=$PWD/dev/ploop0
	[ -b "$DEV" ]
	fill "$DEV" 0 10
	fill "$DEV" 30 7
}

# fill DEVICE AT MIB: random data.
fill() {
	dd if=/dev/urandom of="$1" bs=1M seek="$2" count="$3" oflag=direct conv=notrunc status=none
}

# same_disk IMAGE [OPTION..]: what is in the image is what is on the device.
same_disk() {
	local image=$1
	shift
	ploop -v-1 mount -r "$@" "$image"
	cmp "$DEV" dev/ploop1
	ploop -v-1 umount -d dev/ploop1
}

# A command that writes at the last moment: what was there, zeros over data, data over zeros, a discard, and new clusters.
last_words() {
	cat <<-END
		dd if=/dev/urandom of=$DEV bs=4k seek=700 count=3 oflag=direct conv=notrunc status=none
		dd if=/dev/zero of=$DEV bs=64k seek=40 count=20 oflag=direct conv=notrunc status=none
		blkdiscard -o 31457280 -l 3145728 $DEV
		dd if=/dev/urandom of=$DEV bs=4k seek=12801 count=1 oflag=direct conv=notrunc status=none
	END
}

nothing_unfinished() {
	! compgen -G '*.ploop-part' >&2
}

@test "to a file: the copy is what the disk was when it stood still" {
	require qemu-img
	new_source
	run ploop copy -s "$DEV" -d copy.hds -F "$(last_words)"
	status_is 0
	output_has "the disk stood still for"
	[ "$(stat -c %a copy.hds)" = 600 ]
	ploop check copy.hds
	qemu-img check -q -f parallels copy.hds
	same_disk copy.hds
	nothing_unfinished
	ploop umount source
	# Holes are not copied, nor is what was discarded.
	[ "$(ploop info --json copy.hds | jq .mapped)" -le $((16 * 1048576)) ]
}

@test "in two halves, as one stream, compressed, with an answer" {
	new_source -b 64
	ploop copy -s "$DEV" -F "$(last_words)" | ploop copy -d one.hds
	same_disk one.hds
	ploop copy -s "$DEV" --compress | ploop copy -d two.hds
	same_disk two.hds
	mkfifo back
	ploop copy -s "$DEV" -f 3 3<>back | ploop copy -d three.hds -f 4 4<>back
	same_disk three.hds
	ploop copy -s "$DEV" --via "ploop copy -d four.hds -f 1" --json >report
	[ "$(jq .converged report)" = true ]
	[ "$(jq .last_bytes report)" -lt "$(jq .bytes report)" ]
	same_disk four.hds
	ploop copy -s "$DEV" -o 5 5>&1 >/dev/null | ploop copy -d five.hds -i 6 6<&0
	same_disk five.hds
	for image in one two three four five; do ploop check $image.hds; done
}

@test "raw and version 1 disks; the original's stream both ways" {
	mkdir raw
	ploop -v-1 init -s 64m -t none -f raw raw/disk.raw
	ploop -v-1 mount raw
	DEV=$PWD/dev/ploop0
	fill "$DEV" 3 5
	ploop copy -s "$DEV" -d copy.raw -F "$(last_words)"
	cmp "$DEV" copy.raw
	ploop copy -s "$DEV" --compat | ploop copy -d old.raw
	cmp "$DEV" old.raw
	ploop umount raw
	new_source -v 1
	ploop copy -s "$DEV" --compat -F "$(last_words)" >stream
	[ "$(head -c 4 stream | od -An -tx4 | tr -d ' ')" = 4cc0ac3d ]
	ploop copy -d old.hds < <(cat stream)
	ploop check old.hds
	[ "$(ploop info --json old.hds | jq .version)" = 1 ]
	same_disk old.hds
	# As a receiver that only seeks and writes, and trusts all numbers.
	python3 - <<-END
		import struct
		stream, image = open("stream", "rb"), open("written.hds", "wb")
		while True:
		    marker, size, position = struct.unpack("<IIQ", stream.read(16))
		    assert marker == 0x4cc0ac3d
		    if not size:
		        break
		    image.seek(position)
		    image.write(stream.read(size))
	END
	ploop check written.hds
	same_disk written.hds
	# The answer to its question, and its damage.
	mkfifo back
	ploop copy -s "$DEV" --compat -f 3 3<>back | ploop copy -d asked.hds -f 4 4<>back
	same_disk asked.hds
	{ head -c 1000 stream; printf 'x%.0s' {1..100}; tail -c +1000 stream; } >bad
	run bash -c 'cat bad | ploop copy -d bad.hds'
	status_is 13
	[ "$output" = "Stream corrupted" ]
	[ ! -e bad.hds ]
	run bash -c 'head -c 100000 stream | ploop copy -d bad.hds'
	status_is 6
	[ ! -e bad.hds ]
	nothing_unfinished
}

@test "of a disk with snapshots: the top, flat, or all" {
	new_source
	for uuid in {11111111,22222222,33333333}-aaaa-4bbb-8ccc-000000000001; do
		ploop -v-1 snapshot -u "$uuid" source
		fill "$DEV" 5 2
		blkdiscard -o $((9 << 20)) -l $((1 << 20)) "$DEV"
		fill "$DEV" 40 1
	done
	ploop copy -s "$DEV" --flat -d flat.hds -F "$(last_words)"
	same_disk flat.hds
	ploop copy -s "$DEV" --all -d all -F "$(last_words)"
	same_disk all
	diff <(cd source && ploop snapshot-list -H -o uuid,parent_uuid,fname . | sed "s|$PWD/||; s|.*/||") \
		<(cd all && ploop snapshot-list -H -o uuid,parent_uuid,fname . | sed "s|$PWD/||; s|.*/||")
	ploop copy -s "$DEV" --all --compress | ploop copy -d streamed
	same_disk streamed
	# The top alone goes with the images that are below it.
	ploop copy -s "$DEV" -d top.hds -F "$(last_words)"
	mapfile -t images < <(ploop list --json | jq -r '.devices[0].images[]')
	sha1sum <"$DEV" >sum
	ploop umount source
	ploop -v-1 mount -r -d /dev/ploop5 "${images[@]:0:3}" top.hds
	sha1sum <dev/ploop5 | diff - sum
	ploop -v-1 umount -d dev/ploop5
	for uuid in {11111111,22222222,33333333}-aaaa-4bbb-8ccc-000000000001; do
		for disk in source all streamed; do
			ploop -v-1 mount -r -u "$uuid" -d "/dev/ploop5" $disk
			sha1sum <dev/ploop5
			ploop -v-1 umount -d dev/ploop5
		done >sums
		[ "$(uniq sums | wc -l)" = 1 ]
	done
	ploop check all
}

@test "where files can share blocks, those that nobody writes to are not copied" {
	require mkfs.xfs
	truncate -s 400m xfs
	mkfs.xfs -q -m reflink=1 xfs || skip "no XFS with reflink"
	mount -o loop xfs mnt || skip "XFS cannot be mounted"
	mkdir mnt/source
	ploop -v-1 init -s 64m -t none mnt/source/root.hds
	ploop -v-1 mount mnt/source
	DEV=$PWD/dev/ploop0
	fill "$DEV" 0 12
	ploop -v-1 snapshot mnt/source
	fill "$DEV" 8 4
	local before after
	before=$(df --output=used -k mnt | tail -1)
	ploop copy -s "$DEV" --all -d mnt/all -F "$(last_words)"
	ploop copy -s "$DEV" --flat -d mnt/flat -F "$(last_words)"
	same_disk mnt/flat
	ploop check mnt/all
	ploop check mnt/flat
	# 12 MiB in the base, twice; 4 to 7 MiB in the top, twice.
	after=$(df --output=used -k mnt | tail -1)
	echo "$((after - before)) KiB"
	[ $((after - before)) -lt $((20 * 1024)) ]
	ploop -v-1 umount -d dev/ploop0
	umount mnt
}

@test "a copy of the first passes: what is written meanwhile comes after" {
	require fio
	new_source
	fio --thread --name=w --filename="$DEV" --rw=randwrite --bs=4k --iodepth=8 --ioengine=libaio --direct=1 --size=48m \
		--time_based --runtime=60 --output=/dev/null &
	writer=$!
	stop="kill -9 $writer; while [ -n \"\$(ls /proc/$writer/fd 2>/dev/null)\" ]; do sleep 0.02; done"
	ploop copy -s "$DEV" -d copy.hds --max-passes 4 -F "$stop" --json >report
	wait "$writer" || true
	[ "$(jq .passes report)" -ge 3 ]
	same_disk copy.hds
}

@test "while it is copied the disk stays what it is" {
	new_source
	cat >words <<-END
		ploop snapshot source; echo \$?
		ploop umount -d $DEV; echo \$?
		ploop snapshot -d $DEV source/other.hds; echo \$?
		ploop copy -s $DEV -d second.hds; echo \$?
	END
	ploop -v-1 copy -s "$DEV" -d copy.hds -F "bash words >said 2>&1"
	cat said
	[ "$(grep -c "is being copied" said)" = 4 ]
	[ "$(grep -xE '[0-9]+' said | tr '\n' ' ')" = "17 17 17 17 " ]
	same_disk copy.hds
	[ ! -e second.hds ]
	ploop -v-1 snapshot source
	ploop umount source
}

@test "what cannot be done says so and leaves nothing" {
	new_source
	run ploop copy -F true
	status_is 38
	output_has "Either -s or -d is required"
	run ploop copy -d there.hds </dev/null
	status_is 38
	output_has "Invalid input fd 0: must be a pipe or a socket"
	touch there.hds
	run ploop copy -s "$DEV" -d there.hds
	status_is 1
	output_has "File exists"
	run bash -c "ploop copy -s $DEV 2>/dev/null | ploop copy -d there.hds"
	status_is 1
	[ ! -s there.hds ]
	run ploop copy -s "$DEV" -d copy.hds -F "exit 3"
	status_is 12
	output_has "Command exit 3 failed with code 3"
	run ploop copy -s "$DEV" -d copy.hds -F 'kill -9 $$'
	status_is 12
	output_has "killed by signal 9"
	run ploop copy -s "$DEV" -d nowhere/copy.hds
	[ "$status" -ne 0 ]
	run ploop copy -s "$DEV" --via false
	[ "$status" -ne 0 ]
	run ploop copy -s "$DEV" --all --flat -d x
	status_is 38
	run ploop copy -s dev/ploop9 -d copy.hds
	[ "$status" -ne 0 ]
	[ ! -e copy.hds ]
	nothing_unfinished
	# It works on.
	fill "$DEV" 1 1
	ploop umount source
}

@test "a disk is not copied onto itself" {
	mkdir source
	ploop -v-1 init -s 64m source/root.hds
	ploop -v-1 mount -m mnt source
	run ploop copy -s dev/ploop0 -d mnt/copy.hds
	status_is 38
	output_has "which is to be copied"
	# The file system in a copy is whole without its journal.
	echo words >mnt/file
	ploop copy -s dev/ploop0 -d copy.hds
	echo more >>mnt/file
	ploop umount mnt
	mkdir other
	ploop -v-1 mount -r -d /dev/ploop7 copy.hds
	e2fsck -fn dev/ploop7p1
	mount -o ro,noload dev/ploop7p1 other
	[ "$(cat other/file)" = words ]
	umount other
	ploop umount -d dev/ploop7
}

@test "damaged streams are refused, and no file is left" {
	new_source -b 64
	ploop copy -s "$DEV" >stream 2>report
	size=$(stat -c %s stream)
	for at in 10 60 100 150 5000 $((size / 3)) $((size / 2)) $((size - 60)) $((size - 5)); do
		cp stream bad
		printf '\x5a' | dd of=bad bs=1 seek="$at" conv=notrunc status=none
		cmp -s stream bad && printf '\xa5' | dd of=bad bs=1 seek="$at" conv=notrunc status=none
		run bash -c 'cat bad | ploop copy -d bad.hds'
		status_is 13
		output_has "Stream corrupted"
		run bash -c "head -c $at stream | ploop copy -d bad.hds"
		status_is 6
		[ ! -e bad.hds ]
		nothing_unfinished
	done
}

@test "--resume: what is there is not sent again" {
	new_source
	# The first breaks off: its receiver takes so much and no more.
	ploop copy -s "$DEV" --rate 100m | head -c 9m | ploop copy -d copy.hds --resume || true
	[ -e copy.hds.ploop-part ]
	run ploop copy -s "$DEV" -d copy.hds
	status_is 1
	output_has "--resume goes on with it"
	fill "$DEV" 2 1
	blkdiscard -o $((4 << 20)) -l $((1 << 20)) "$DEV"
	ploop copy -s "$DEV" --resume --json --via "ploop copy -d copy.hds --resume -f 1" >report
	[ "$(jq .bytes report)" -le $((13 << 20)) ]
	same_disk copy.hds
	ploop check copy.hds
	nothing_unfinished
	# Without a way back there is nothing to resume by.
	run ploop copy -s "$DEV" --resume
	status_is 38
	# The same in one process, and a part that is rubbish.
	head -c 3000000 /dev/urandom >rubbish.hds.ploop-part
	ploop copy -s "$DEV" -d rubbish.hds --resume
	same_disk rubbish.hds
}

@test "whoever dies, the disk goes on, and gc finds what is left" {
	new_source
	ploop copy -s "$DEV" -d copy.hds --rate 2m &
	copier=$!
	wait_for test -e copy.hds.ploop-part
	kill -9 "$copier"
	wait "$copier" || true
	fill "$DEV" 20 1
	wait_for ploop -v-1 snapshot source
	# What another copy has left in the folder of a disk; a part that somebody writes to stays.
	mkdir source/x.ploop-part
	touch source/x.ploop-part/root.hds source/y.ploop-part
	flock source/y.ploop-part ploop gc --remove source || true
	[ -e source/y.ploop-part ]
	[ ! -e source/x.ploop-part ]
	ploop gc --remove source
	[ ! -e source/y.ploop-part ]
	ploop copy -s "$DEV" --flat -d copy.hds --resume
	same_disk copy.hds
	# The daemon.
	ploop copy -s "$DEV" --flat -d second.hds --rate 10m 2>said &
	copier=$!
	wait_for test -e second.hds.ploop-part
	kill_daemon
	if wait "$copier"; then false; fi
	[ ! -e second.hds ] && [ ! -e second.hds.ploop-part ]
	ploop umount -d "$DEV"
	ploop -v-1 mount source
	same_disk copy.hds
}

@test "over ssh, as the manual says" {
	require sshd ssh ssh-keygen
	new_source
	ssh-keygen -q -t ed25519 -N '' -f host
	ssh-keygen -q -t ed25519 -N '' -f user
	cp user.pub authorized
	chmod 600 authorized
	mkdir -p /run/sshd
	port=$((20000 + RANDOM % 20000))
	"$(command -v sshd)" -D -e -f /dev/null -p "$port" -o ListenAddress=127.0.0.1 -h "$PWD/host" -o StrictModes=no -o UsePAM=no \
		-o "AuthorizedKeysFile=$PWD/authorized" -o PidFile=none -o PermitRootLogin=yes 2>sshd.log &
	sshd=$!
	cat >to <<-END
		#!/bin/sh
		exec ssh -q -p "$port" -i $PWD/user -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
			-o BatchMode=yes -o IdentityAgent=none root@127.0.0.1 "\$@"
	END
	chmod +x to
	wait_for ./to true
	run ploop copy -s "$DEV" --all --compress --resume --via "./to $(command -v ploop) copy -d $PWD/moved --resume -f 1"
	ploop copy -s "$DEV" | ./to "$(command -v ploop) copy -d $PWD/piped.hds"
	kill "$sshd"
	wait "$sshd" || true
	status_is 0
	same_disk moved
	same_disk piped.hds
}
