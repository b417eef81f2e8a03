#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# `ploop check`: options, statuses and words. What it finds in an image is the business of tests/images.
load common

# image FILE [STATEMENTS]: an image of five mapped clusters, after these statements of Python about `i` (tests/images/image.py).
image() {
	python3 - "$@" <<-'END'
		import os, sys
		sys.path.insert(0, os.environ["PLOOP_SOURCE"] + "/tests/images")
		from image import *
		i = Image()
		exec("\n".join(sys.argv[2:]))
		i.write(sys.argv[1])
	END
}

in_use='i.header["in_use"] = IN_USE'
duplicate='i.entries[50] = 3'
nowhere='i.entries[51] = 77'
tail='i.length = i.end() + 65536'

# descriptor BASE TOP: a disk of two images.
descriptor() {
	local snapshot='{11111111-aaaa-4bbb-8ccc-000000000001}' top='{5fbaabe3-6958-40ff-92a7-860e329aab41}'
	cat >DiskDescriptor.xml <<-END
		<Parallels_disk_image>
		<Disk_Parameters><Disk_size>6400</Disk_size><Cylinders>40</Cylinders><Heads>16</Heads><Sectors>10</Sectors>
		<Padding>0</Padding></Disk_Parameters>
		<StorageData><Storage><Start>0</Start><End>6400</End><Blocksize>64</Blocksize>
		<Image><GUID>$snapshot</GUID><Type>Compressed</Type><File>$1</File></Image>
		<Image><GUID>$top</GUID><Type>Compressed</Type><File>$2</File></Image>
		</Storage></StorageData>
		<Snapshots><TopGUID>$top</TopGUID>
		<Shot><GUID>$snapshot</GUID><ParentGUID>{00000000-0000-0000-0000-000000000000}</ParentGUID></Shot>
		<Shot><GUID>$top</GUID><ParentGUID>$snapshot</ParentGUID></Shot></Snapshots>
		</Parallels_disk_image>
	END
}

@test "a good image: 0, and silence with -s" {
	image disk.hds
	run ploop check disk.hds
	status_is 0
	output_has "clean"
	run ploop check -s disk.hds
	status_is 0
	[ -z "$output" ]
}

@test "without options nothing is written, and an image in use is 37" {
	image disk.hds "$in_use" "$tail"
	cp disk.hds before
	run ploop check disk.hds
	status_is 37
	output_has "Dirty flag is set"
	cmp disk.hds before
}

@test "-f repairs and trims but keeps the mark, -d takes it away, as old scripts expect" {
	image disk.hds "$in_use" "$tail"
	run ploop check -f disk.hds
	status_is 37
	output_has "Trimming tail"
	run ploop check -d disk.hds
	status_is 0
	run ploop check disk.hds
	status_is 0
}

@test "-r writes nothing and says 7 when something should have been" {
	image disk.hds "$in_use"
	cp disk.hds before
	run ploop check -r -d disk.hds
	status_is 7
	run ploop check -r disk.hds
	status_is 37
	cmp disk.hds before
}

@test "damage is 11 and the message names the level that repairs it" {
	image disk.hds "$duplicate"
	run --separate-stderr ploop check disk.hds
	status_is 11
	# shellcheck disable=SC2154
	[[ "$stderr" == *"Fatal errors were found, image "*"disk.hds is not repaired; --repair=safe"* ]]
	image disk.hds "$duplicate" "$nowhere"
	run --separate-stderr ploop check --repair=safe disk.hds
	status_is 11
	[[ "$stderr" == *"--repair=all"* ]]
	run ploop check --repair=all disk.hds
	status_is 0
}

@test "--undo-file and --undo: there and back" {
	image disk.hds "$in_use" "$duplicate" "$nowhere"
	cp disk.hds before
	run ploop check --repair=all --undo-file=undo disk.hds
	status_is 0
	run cmp disk.hds before
	status_is 1
	run ploop check --undo=undo disk.hds
	status_is 0
	cmp disk.hds before
	run ploop check --repair=all --undo-file=undo disk.hds
	status_is 4 || status_is 1
	cmp disk.hds before
}

@test "--undo refuses an image that was changed since, unless -f" {
	image disk.hds "$duplicate"
	ploop check --repair=safe --undo-file=undo disk.hds
	printf '\1' | dd of=disk.hds bs=1 seek=270 conv=notrunc status=none
	run ploop check --undo=undo disk.hds
	status_is 17
	run ploop check --undo=undo -f disk.hds
	status_is 0
}

@test "an undo file with nothing in it is not left behind" {
	image disk.hds
	run ploop check --repair=all --undo-file=undo disk.hds
	status_is 0
	[ ! -e undo ]
}

@test "--json lists every finding" {
	image disk.hds "$duplicate" "$nowhere" "$tail"
	run --separate-stderr ploop check --json disk.hds
	status_is 11
	[ "$(jq -r '.status' <<<"$output")" = 11 ]
	[ "$(jq -r '.images[0].found.duplicate' <<<"$output")" = 1 ]
	[ "$(jq -r '.images[0].findings | map(.kind) | sort | join(" ")' <<<"$output")" = "beyond-file duplicate tail" ]
	[ "$(jq -r '.images[0].findings[] | select(.kind == "duplicate") | .cluster' <<<"$output")" = 50 ]
}

@test "a descriptor: every image from the base up" {
	image base.hds "$in_use"
	image top.hds "$duplicate"
	descriptor base.hds top.hds
	run ploop check DiskDescriptor.xml
	status_is 37
	output_has "base.hds: Dirty flag"
	output_has "top.hds: Block 3 is used more than once"
	run ploop check -u '{11111111-aaaa-4bbb-8ccc-000000000001}' --repair=safe .
	status_is 0
	run ploop check DiskDescriptor.xml
	status_is 11
	run ploop check --repair=safe DiskDescriptor.xml
	status_is 0
	run ploop check DiskDescriptor.xml
	status_is 0
	image top.hds 'i.__init__(2, 128)'
	run ploop check DiskDescriptor.xml
	status_is 38
	output_has "Incorrect blocksize"
}

@test "images outside the folder need --outside" {
	mkdir inside
	image base.hds
	image inside/top.hds
	descriptor ../base.hds top.hds
	mv DiskDescriptor.xml inside
	run ploop check inside
	status_is 38
	output_has "--outside"
	run ploop check --outside inside
	status_is 0
}

@test "an image that somebody has open is 37, and not looked at" {
	require qemu-io
	image disk.hds
	coproc qemu-io -f parallels disk.hds
	# shellcheck disable=SC2154
	pid=$COPROC_PID
	echo "write 0 512" >&"${COPROC[1]}"
	read -r -u "${COPROC[0]}" _
	run ploop check disk.hds
	kill "$pid"
	wait "$pid" || true
	status_is 37
	output_has "Can't check"
}

@test "raw: needs -b; a descriptor's option is refused on an image" {
	truncate -s 1M raw
	run ploop check -R raw
	status_is 38
	output_has "Cluster blocksize required for raw image"
	run ploop check -R -b 2048 raw
	status_is 0
	image disk.hds
	run ploop check -u '{11111111-aaaa-4bbb-8ccc-000000000001}' disk.hds
	status_is 38
	output_has "Option -u is only applicable to DiskDescriptor.xml syntax"
}

@test "what is no image is 11, what is not there is 4" {
	run ploop check /etc/passwd
	status_is 11
	run ploop check nothing.hds
	status_is 4
}
