#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Descriptor, files and running device: kept in line while one of them changes, and brought in line after somebody died.
load common
load devices

A=11111111-aaaa-4bbb-8ccc-000000000001
B=11111111-aaaa-4bbb-8ccc-000000000002
C=11111111-aaaa-4bbb-8ccc-000000000003
TOP=5fbaabe3-6958-40ff-92a7-860e329aab41

fill() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count="${2:-6}" conv=notrunc oflag=direct status=none
}

# A and B are snapshots, the disk is mounted; six MiB of data in each and in the top.
chain() {
	mkdir d
	ploop -v-1 init -s 32m -t none d/root.hds
	ploop -v-1 mount -d dev/ploop0 d
	fill 0
	ploop -v-1 snapshot -u "$A" d
	fill 3
	ploop -v-1 snapshot -u "$B" d
	fill 6
	before=$(sum)
}

sum() {
	sha256sum <dev/ploop0
}

uuids() {
	ploop snapshot-list -H -o uuid d | tr -d '{}' | xargs
}

images() {
	ploop list --json | jq '.devices[0].images | length'
}

# merging ARGUMENTS..: in the background, so slowly that it does not end by itself; `client` is its pid.
merging() {
	ploop -v-1 "$@" 3>&- &
	client=$!
}

state() {
	ploop merge -d dev/ploop0 --status --json | jq -e "$1" >/dev/null
}

# told_at_once COMMAND..: refused with 17 and a line about the merge, and not after a minute.
told_at_once() {
	local start=$SECONDS
	run "$@"
	status_is 17
	output_has "a merge of $PWD/d/DiskDescriptor.xml is under way, by process"
	output_is_one_line
	[ $((SECONDS - start)) -lt 20 ]
}

looked_at() {
	[ "$(uuids)" = "$A $B $TOP" ]
	ploop info --json d >/dev/null
	ploop list >/dev/null
	told_at_once ploop snapshot d
	told_at_once ploop snapshot-delete -u "$B" d
	told_at_once ploop snapshot-switch -u "$A" d
	told_at_once ploop snapshot-merge d
	told_at_once ploop gc d
}

# behind WHAT TEXT: the one finding of a dry run, which changes nothing.
behind() {
	local held
	held=$(sha256sum <d/DiskDescriptor.xml)
	run ploop repair-descriptor --dry-run d
	status_is 0
	[[ "$output" == "$1 "* ]] || { echo "$output" >&2; return 1; }
	output_has "$2"
	[ "$(ploop repair-descriptor --dry-run --json d | jq -r '.findings | length, .[0].behind' | xargs)" = "1 $1" ]
	[ "$(sha256sum <d/DiskDescriptor.xml)" = "$held" ]
}

repaired() {
	run ploop repair-descriptor d
	status_is 0
	output_has ": done"
	run ploop repair-descriptor d
	status_is 0
	[ "$output" = "descriptor, files and devices agree" ]
}

@test "while a device is merged: others look, and who wants to change the disk is told at once" {
	require jq
	chain
	merging snapshot-merge -A --rate 1m d
	wait_for state '.state == "running"'
	looked_at
	mkdir e
	ploop -v-1 init -s 32m -t none e/root.hds
	ploop -v-1 mount -d dev/ploop1 e
	ploop -v-1 umount -d dev/ploop1
	ploop merge -d dev/ploop0 --stop
	wait "$client" || :
	ploop -v-1 snapshot-merge -A d
	[ "$(uuids)" = "$TOP" ]
	[ "$(sum)" = "$before" ]
}

@test "while images are merged: the same; the images are refused to a device" {
	chain
	ploop -v-1 umount -d dev/ploop0
	merging snapshot-merge -A --rate 1m d
	wait_for sh -c '! flock -n d/DiskDescriptor.xml.lck true || ploop snapshot-list -o temporary d | grep -q t'
	wait_for sh -c 'ploop snapshot d 2>&1 | grep -q "is under way"'
	looked_at
	run ploop mount d
	status_is 37
	kill -9 "$client"
	wait "$client" || :
	ploop -v-1 mount -d dev/ploop0 d
	[ "$(sum)" = "$before" ]
}

@test "a client that dies between the lower merges and the top: the descriptor is brought in line by the next verb" {
	require jq
	chain
	merging merge -d dev/ploop0 --rate 4m
	wait_for state '.top'
	kill -9 "$client"
	wait "$client" || :
	[ "$(uuids)" = "$A $B $TOP" ]
	run ploop snapshot-delete -u "$C" d
	status_is 43
	output_has "has merged, as somebody was interrupted"
	[ "$(uuids)" = "$B $TOP" ]
	[ "$(find d -name 'root.hds*' | wc -l)" = 2 ]
	ploop merge -d dev/ploop0 --stop
	ploop -v-1 merge -d dev/ploop0
	[ "$(uuids)" = "$TOP" ]
	[ "$(sum)" = "$before" ]
	ploop -v-1 umount -d dev/ploop0
	run qemu-img check -q -f parallels d/root.hds
	status_is 0
}

@test "a client that dies: the merge of the top ends without it, and the next verb forgets what is empty" {
	require jq
	chain
	merging merge -d dev/ploop0 --rate 10m
	wait_for state '.done > 0'
	kill -9 "$client"
	wait "$client" || :
	wait_for state '.state == "done"'
	[ "$(images)" = 1 ]
	ploop -v-1 snapshot -u "$C" d
	[ "$(uuids)" = "$C $TOP" ]
	[ "$(images)" = 2 ]
	[ "$(sum)" = "$before" ]
}

@test "unmounted in the middle of a merge: it stops, and the next mount ends it" {
	require jq
	local status=0
	chain
	merging merge -d dev/ploop0 --rate 1m
	wait_for state '.state == "running"'
	ploop -v-1 umount -d dev/ploop0
	wait "$client" || status=$?
	[ "$status" -ne 0 ]
	nothing_left
	ploop -v-1 mount -d dev/ploop0 d
	# What it has marked as temporary goes.
	[ "$(sum)" = "$before" ]
	[ "$(uuids)" = "$TOP" ]
}

@test "repair-descriptor: an older descriptor takes over the images of the device" {
	chain
	ploop -v-1 umount -d dev/ploop0
	cp d/DiskDescriptor.xml older.xml
	ploop -v-1 mount -d dev/ploop0 d
	ploop -v-1 snapshot -u "$C" d
	fill 9
	now=$(sum)
	cp older.xml d/DiskDescriptor.xml
	for verb in snapshot snapshot-merge "snapshot-delete -u $B"; do
		# shellcheck disable=SC2086
		run ploop $verb d
		status_is 39
		output_has "do not agree on the images"
		output_has "\`ploop repair-descriptor --dry-run $PWD/d/DiskDescriptor.xml\`"
	done
	behind descriptor "does not know $PWD/d/root.hds.{"
	repaired
	[ "$(uuids | wc -w)" = 4 ]
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 mount -d dev/ploop0 d
	[ "$(sum)" = "$now" ]
}

@test "repair-descriptor: a device that lacks the new top gets it" {
	chain
	ploop -v-1 umount -d dev/ploop0
	cp d/DiskDescriptor.xml older.xml
	ploop -v-1 snapshot -u "$C" d
	cp d/DiskDescriptor.xml newer.xml
	cp older.xml d/DiskDescriptor.xml
	ploop -v-1 mount -d dev/ploop0 d
	cp newer.xml d/DiskDescriptor.xml
	behind device "lacks $PWD/d/root.hds.{"
	repaired
	[ "$(images)" = 4 ]
	[ "$(sum)" = "$before" ]
}

@test "repair-descriptor: what a device has merged is forgotten" {
	chain
	merging merge -d dev/ploop0 -l 1..2 --rate 10m
	wait_for state '.done > 0'
	kill -9 "$client"
	wait "$client" || :
	wait_for state '.state == "done"'
	behind descriptor "which $PWD/dev/ploop0 has merged"
	repaired
	[ "$(uuids)" = "$A $TOP" ]
	[ "$(sum)" = "$before" ]
}

@test "repair-descriptor: size, format, journal; a file that is missing needs a decision" {
	mkdir d
	ploop -v-1 init -s 32m -t none d/root.hds
	sed -i 's|<Disk_size>65536<|<Disk_size>65000<|' d/DiskDescriptor.xml
	behind descriptor "says 65000 sectors, and the disk has 65536"
	repaired
	sed -i "s/$TOP/$B/g" d/DiskDescriptor.xml
	behind descriptor "is in old format: its top is {$B}"
	repaired
	ploop -v-1 snapshot -u "$A" d
	printf 'ploop journal 1\noperation snapshot\nfile never.hds\nend\n' >d/DiskDescriptor.xml.journal
	behind files "tells of a change that was interrupted"
	repaired
	ploop -v-1 snapshot-switch -D -u "$A" d
	rm "$(ploop snapshot-list -H -o current,fname d | awk '$1 == "*" { print $2 }')"
	behind files "is not there"
	run ploop repair-descriptor d
	status_is 39
	run ploop repair-descriptor
	status_is 38
}

@test "Single delta, nothing to merge: which one is behind is asked for" {
	chain
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 mount -d dev/ploop0 d/root.hds
	run ploop merge -d dev/ploop0
	status_is 38
	output_has "Single delta, nothing to merge: $PWD/dev/ploop0 has one image and $PWD/d/DiskDescriptor.xml names 3"
	output_has "\`ploop repair-descriptor --dry-run"
	run ploop repair-descriptor --dry-run d
	output_has "with other images below it than"
	output_has "nobody can tell which is right"
}
