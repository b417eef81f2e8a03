#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# snapshot-merge, and snapshot-delete of what others are made on: mounted and not, names and files afterwards.
load common
load devices

A=11111111-aaaa-4bbb-8ccc-000000000001
B=11111111-aaaa-4bbb-8ccc-000000000002
C=11111111-aaaa-4bbb-8ccc-000000000003
TOP=5fbaabe3-6958-40ff-92a7-860e329aab41

fill() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count=6 conv=notrunc oflag=direct status=none
}

# chain: four levels, mounted; A, B and C are snapshots.
chain() {
	mkdir d
	ploop -v-1 init -s 32m -t none d/root.hds
	ploop -v-1 mount -d dev/ploop0 d
	fill 0
	ploop -v-1 snapshot -u "$A" d
	fill 3
	ploop -v-1 snapshot -u "$B" d
	fill 6
	ploop -v-1 snapshot -u "$C" d
	fill 9
}

uuids() {
	ploop snapshot-list -H -o uuid d | tr -d '{}' | xargs
}

# right NAMES SUM: these snapshots, as many files, and the disk holds what it held.
right() {
	local files
	[ "$(uuids)" = "$1" ] || { uuids >&2; return 1; }
	files=(d/root.hds*)
	[ "${#files[@]}" -eq "$(wc -w <<<"$1")" ] || { ls d >&2; return 1; }
	[ "$(sum)" = "$2" ]
	[ ! -e d/DiskDescriptor.xml.journal ]
}

sum() {
	if [ -e dev/ploop0 ]; then
		sha256sum <dev/ploop0
	else
		ploop -v-1 mount -r -d dev/ploop9 d
		sha256sum <dev/ploop9
		ploop -v-1 umount -d dev/ploop9
	fi
}

# content UUID: the sum of a snapshot of a disk that is not mounted.
content() {
	ploop -v-1 mount -r -d dev/ploop9 -u "$1" d
	sha256sum <dev/ploop9
	ploop -v-1 umount -d dev/ploop9
}

both() {
	local before
	chain
	before=$(sum)
	[ "$1" = mounted ] || ploop -v-1 umount -d dev/ploop0
	run ploop -v0 snapshot-merge -u "$B" d
	status_is 0
	[ "$output" = "ploop snapshot has been successfully merged" ]
	right "$B $C $TOP" "$before"
	ploop -v-1 snapshot-delete -u "$C" d
	right "$B $TOP" "$before"
	ploop -v-1 snapshot-merge d
	right "$TOP" "$before"
	run ploop snapshot-merge d
	status_is 38
	output_has "is that a base image?"
	[ "$1" != mounted ] || ploop -v-1 umount -d dev/ploop0
	right "$TOP" "$before"
	qemu-img check -q -f parallels d/root.hds
	nothing_left
}

@test "snapshot-merge and snapshot-delete of a mounted disk" {
	both mounted
}

@test "snapshot-merge and snapshot-delete of a disk that is not mounted" {
	both not
}

@test "snapshot-merge -u -U, and -A" {
	local before
	chain
	before=$(sum)
	ploop -v-1 snapshot-merge -u "$C" -U "$B" d
	right "$A $C $TOP" "$before"
	run ploop snapshot-merge -A -u "$C" d
	status_is 38
	[ "$output" = "Options -u and -A can't be used together" ]
	run ploop snapshot-merge -u "$A" -U "$C" d
	status_is 38
	ploop -v-1 snapshot-merge -A d
	right "$TOP" "$before"
	ploop -v-1 umount -d dev/ploop0
}

# contents: each snapshot with what it holds.
contents() {
	local uuid
	for uuid in $(uuids); do
		ploop -v-1 mount -r -c look -d dev/ploop9 -u "$uuid" d
		echo "$uuid $(sha256sum <dev/ploop9)"
		ploop -v-1 umount -d dev/ploop9
	done | sort
}

# same_but WITHOUT: all snapshots hold what they held in the file `held`, but this one, which is gone; and nothing is left over.
same_but() {
	diff <(grep -v "^$1" held) <(contents)
	[ "$(find d -name 'root.hds*' | wc -l)" = "$(uuids | wc -w)" ]
	[ ! -e d/DiskDescriptor.xml.journal ]
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
}

parent_of() {
	ploop snapshot-list -H -o parent_uuid,uuid d | tr -d '{}' | awk -v it="$1" '$2 == it { print $1 }'
}

# branches: base A, on it B; on that C, with a leaf of its own, and the top. Zeros cover data of the base in one of them.
branches() {
	chain
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 snapshot-switch -D -u "$B" d
	ploop -v-1 mount -d dev/ploop0 d
	fill 12
	dd if=/dev/zero of=dev/ploop0 bs=1M seek=2 count=2 conv=notrunc oflag=direct status=none
	ploop -v-1 umount -d dev/ploop0
	contents >held
}

@test "snapshot-delete of one that two are made on: each keeps what it holds" {
	branches
	run ploop snapshot-delete -u "$B" d
	status_is 0
	same_but "$B"
	[ "$(parent_of "$C")$(parent_of "$TOP")" = "$A$A" ]
	# Now the base has two; it has one heir, which the other is made on.
	contents >held
	ploop -v-1 snapshot-delete -u "$A" d
	same_but "$A"
	[ "$(parent_of "$TOP")" = "$C" ]
}

@test "snapshot-merge into one that others are made on: these keep what they hold" {
	branches
	ploop -v-1 snapshot-merge -u "$C" d
	same_but "$B"
	contents >held
	run ploop snapshot-merge -A d
	status_is 38
	output_has "Can't merge to snapshot {$A}: it has 2 children"
	[ "$(uuids | wc -w)" = 4 ]
}

@test "snapshot-delete of one that the running disk and another are made on" {
	branches
	ploop -v-1 mount -d dev/ploop0 d
	ploop -v-1 snapshot-delete -u "$B" d
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 2 ]
	# The base's heir would be the disk that runs.
	run ploop snapshot-delete -u "$A" d
	status_is 0
	output_has "marking it as temporary instead (the disk is in use, and is made on it)"
	ploop -v-1 umount -d dev/ploop0
	same_but "$B"
	[ "$(ploop snapshot-list -H -o temporary,uuid d | grep -c ^t)" = 1 ]
}

@test "snapshot-delete of one that several devices are made on: it goes when one is left, or when it is deleted again" {
	branches
	ploop -v-1 mount -d dev/ploop0 d
	ploop -v-1 mount -r -c other -d dev/ploop1 -u "$C" d
	run ploop snapshot-delete -u "$B" d
	status_is 0
	output_has "marking it as temporary instead (several of them are in use)"
	[ "$(ploop snapshot-list -H -o temporary,uuid d | grep ^t)" = "t {$B}" ]
	ploop -v-1 umount -d dev/ploop1
	cp -a d again
	# C, and what is made on it.
	for uuid in $(uuids); do
		case $uuid in "$A" | "$B" | "$TOP") ;; *) ploop -v-1 snapshot-delete -u "$uuid" d ;; esac
	done
	[ "$(uuids)" = "$A $TOP" ]
	ploop -v-1 umount -d dev/ploop0
	[ "$(contents)" = "$(grep "^$A\|^$TOP" held)" ]
	ploop -v-1 snapshot-delete -u "$B" again
	[ "$(ploop snapshot-list -H -o uuid again | grep -c "$B")" = 0 ]
}

@test "snapshot-merge -n: a new image takes the place of two" {
	local before
	chain
	before=$(sum)
	run ploop snapshot-merge -A -n d/new d
	status_is 38
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 snapshot-merge -A -n d/new d
	[ "$(uuids)" = "$TOP" ]
	[ ! -e d/root.hds ]
	[ -e d/new ]
	[ "$(sum)" = "$before" ]
}

@test "a snapshot that is mounted beside the disk is not merged" {
	local before
	chain
	ploop -v-1 mount -r -c other -d dev/ploop1 -u "$A" d
	before=$(sum)
	run ploop snapshot-merge -A d
	status_is 17
	output_is_one_line
	run ploop snapshot-delete -u "$A" d
	status_is 17
	[ "$output" = "Snapshot {$A} is busy by device(s): $PWD/dev/ploop1" ]
	right "$A $B $C $TOP" "$before"
	[ "$(ploop snapshot-list --json d | jq '[.snapshots[] | select(.temporary)] | length')" = 0 ]
	ploop -v-1 umount -d dev/ploop1
	ploop -v-1 umount -d dev/ploop0
}

@test "snapshot-delete of a base whose children have different sizes: the smallest takes its place" {
	mkdir d
	ploop -v-1 init -s 64m d/root.hds
	ploop -v-1 snapshot -u "$A" d
	ploop -v-1 snapshot -u "$B" d
	ploop -v-1 snapshot-switch -u "$A" d
	ploop -v-1 resize -s 96m d
	ploop -v-1 snapshot -u "$C" d
	ploop -v-1 snapshot-switch -u "$B" d
	before=$(content "$B") larger=$(content "$C")
	ploop -v-1 snapshot-delete -u "$A" d
	[ "$(uuids)" = "$B $TOP $C" ] || [ "$(uuids)" = "$B $C $TOP" ]
	[ "$(content "$B")" = "$before" ]
	[ "$(content "$C")" = "$larger" ]
}
