#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# modules, map and bench: what looks at disks in process. No root, no device.
load common

own_setup() {
	require qemu-img qemu-io jq
	qemu-img create -q -f parallels disk.hds 64m
}

@test "modules: all families, as text and as JSON" {
	run ploop modules
	status_is 0
	output_has "Formats:"
	output_has "Front ends:"
	for name in ploop1 raw uring sync fuse null; do
		ploop modules --json | jq -e --arg name $name '.modules[] | select(.name == $name) | .summary != ""'
	done
	[ "$(ploop modules --json | jq '.modules[] | select(.name == "sync").usable')" = true ]
}

@test "map: an empty disk has no piece, and is not written to" {
	before=$(md5sum disk.hds)
	run ploop map disk.hds
	status_is 0
	output_has "64 MiB in clusters of 1 MiB; 0 B (0.0 %) mapped, in 0 pieces"
	[ "${lines[-1]}" = "$(printf '.%.0s' {1..64})" ]
	[ "$before" = "$(md5sum disk.hds)" ]
}

@test "map: pieces where they were written, in numbers" {
	qemu-io -f parallels -c 'write 40m 2m' -c 'write 8m 1m' disk.hds
	ploop map --json --extents disk.hds >map.json
	[ "$(jq -c '[.size, .cluster, .mapped, .pieces]' map.json)" = "[67108864,1048576,3145728,2]" ]
	[ "$(jq -c '[.extents[] | select(.mapped) | [.offset, .length, .level, .file_offset]]' map.json)" = \
		"[[8388608,1048576,0,3145728],[41943040,2097152,0,1048576]]" ]
	# The extents cover the disk without a gap.
	[ "$(jq '[.extents[].length] | add' map.json)" = 67108864 ]
	run ploop map disk.hds
	[ "${lines[-1]}" = "........0...............................00......................" ]
}

@test "map: a stack shows which level each part comes from" {
	qemu-img create -q -f parallels top.hds 64m
	qemu-io -f parallels -c 'write 0 4m' disk.hds
	qemu-io -f parallels -c 'write 2m 3m' top.hds
	run ploop map disk.hds top.hds
	status_is 0
	[[ "${lines[-1]}" == 00111...* ]]
	[ "$(ploop map --json disk.hds top.hds | jq -c '[.levels[].mapped]')" = "[2097152,3145728]" ]
}

@test "map: a picture that is well-formed XML" {
	qemu-io -f parallels -c 'write 40m 2m' -c 'write 8m 1m' disk.hds
	mkdir 'a & <b>'
	cp disk.hds 'a & <b>/'
	run ploop map --svg map.svg 'a & <b>/disk.hds'
	status_is 0
	python3 -c 'import sys, xml.dom.minidom; xml.dom.minidom.parse("map.svg")'
	[ "$(grep -c hsl map.svg)" -ge 4 ]
	run ploop map --svg /nonexistent/map.svg disk.hds
	status_is 1
	output_has "/nonexistent/map.svg: No such file or directory"
}

@test "map and bench: what cannot be opened is one line" {
	for verb in map bench; do
		run ploop $verb nowhere.hds
		[ "$status" -ne 0 ]
		output_is_one_line
		output_has "nowhere.hds"
		run ploop $verb -f raw disk.hds
		status_is 38
		output_is_one_line
		output_has "-b"
		run ploop $verb --json
		status_is 38
		output_is_one_line
		output_has "name a descriptor"
		run ploop $verb -u x disk.hds
		status_is 38
		output_has "Incorrect uuid specified: x"
		run ploop $verb --io floppy disk.hds
		status_is 38
		output_has "there is no I/O module floppy"
	done
}

@test "bench: reads change nothing" {
	qemu-io -f parallels -c 'write -P 7 40m 2m' disk.hds
	before=$(md5sum disk.hds)
	run ploop bench -c 500 -d 8 --random disk.hds
	status_is 0
	[[ "${lines[0]}" == "500 reads of 4 KiB, 8 in flight, step random"* ]]
	[ "$before" = "$(md5sum disk.hds)" ]
}

@test "bench: writes land where they should" {
	ploop bench -w -c 16 -d 4 -s 64k -S 1m -o 32m disk.hds
	qemu-img check -f parallels disk.hds
	qemu-io -f parallels -c 'read -P 0xa5 32m 64k' -c 'read -P 0 33619968 64k' -c 'read -P 0xa5 47m 64k' disk.hds
	[ "$(ploop map --json disk.hds | jq .mapped)" = 16777216 ]
}

@test "bench: first writes touch each cluster once, and only an empty disk" {
	[ "$(ploop bench --first-write --json disk.hds | jq -c '[.kind, .requests]')" = '["first_write",64]' ]
	[ "$(ploop map --json disk.hds | jq .mapped)" = 67108864 ]
	qemu-img check -f parallels disk.hds
	run ploop bench --first-write disk.hds
	status_is 38
	output_has "first writes need an empty disk"
}

@test "bench: flushes, drained and not, on every I/O module and loop" {
	for io in uring sync; do
		for loop in uring poll; do
			ploop bench -w -c 100 -d 4 --flush-interval 10 --io $io --loop $loop --json disk.hds >drain.json || continue
			[ "$(jq -c '[.requests, .flushes, .io, .loop]' drain.json)" = "[100,9,\"$io\",\"$loop\"]" ]
			ploop bench -w -c 100 -d 4 --flush-interval 10 --no-drain --io $io --loop $loop disk.hds
		done
	done
	[ -s drain.json ]
	qemu-img check -f parallels disk.hds
}

@test "bench: what makes no sense is refused" {
	for bad in "-s 100" "-o 64m" "-s 128m" "-d 100000" "--flush-interval 3" "-c x" "--loop wheel"; do
		# shellcheck disable=SC2086
		run ploop bench $bad disk.hds
		status_is 38
		output_is_one_line
	done
}
