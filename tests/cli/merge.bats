#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Merge: of levels of a device in use, and of images; what the descriptor says afterwards; what is refused.
load common
load devices

# stack SIZE: ploop.image, delta and delta1 on a mounted device, with data of its own in each, and some of it in all three.
stack() {
	ploop -v-1 init -s "${1:-32m}" -t none ploop.image
	ploop -v-1 mount -f ploop1 -d dev/ploop0 ploop.image
	fill 0 12
	ploop -v-1 snapshot -d dev/ploop0 delta
	fill 4 12
	ploop -v-1 snapshot -d dev/ploop0 delta1
	fill 8 12
}

# fill FIRST COUNT: random bytes in so many MiB of the device; and a sector in the cluster behind.
fill() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count="$2" conv=notrunc oflag=direct status=none
	dd if=/dev/urandom of=dev/ploop0 bs=512 seek=$((($1 + $2) * 2048 + 3)) count=1 conv=notrunc oflag=direct status=none
}

sum() {
	sha256sum <"${1:-dev/ploop0}"
}

# content IMAGES..: the sum of a disk that is not mounted, base first.
content() {
	ploop -v-1 mount -r -d dev/ploop9 "$@"
	sum dev/ploop9
	ploop -v-1 umount -d dev/ploop9
}

clean() {
	for file; do
		qemu-img check -q -f parallels "$file" || { echo "$file" >&2; return 1; }
	done
}

levels() {
	ploop list --json | jq '.devices[0].images | length'
}

# images_named: the files that the descriptor names, base first.
images_named() {
	ploop snapshot-list -H -o fname . | xargs -n1 basename | xargs
}

# merged_online RANGE LEVELS "NAMED": the example of the documentation.
merged_online() {
	local before
	require jq
	stack
	before=$(sum)
	run ploop merge -d dev/ploop0 -l "$1"
	status_is 0
	[ "$(levels)" = "$2" ]
	[ "$(sum)" = "$before" ]
	[ "$(images_named)" = "$3" ]
	# It is a device like any other afterwards.
	fill 2 8
	before=$(sum)
	ploop -v-1 umount -d dev/ploop0
	clean ploop.image delta delta1
	ploop -v-1 mount -d dev/ploop0 DiskDescriptor.xml
	[ "$(sum)" = "$before" ]
	ploop -v-1 umount -d dev/ploop0
	nothing_left
}

@test "merge -d DEVICE -l 0..2" {
	merged_online 0..2 1 "ploop.image"
	[ "$(stat -c %s delta delta1 | sort -u)" = 1048576 ]
}

@test "merge -d DEVICE -l 0..1" {
	merged_online 0..1 2 "ploop.image delta1"
}

@test "merge -d DEVICE -l 1..2, and -l 1 for the same" {
	merged_online 1..2 2 "ploop.image delta"
	rm -f ploop.image delta delta1 DiskDescriptor.xml*
	merged_online 1 2 "ploop.image delta"
}

@test "merge -d DEVICE without a range: all of it; then there is nothing to merge" {
	require jq
	local before
	stack
	before=$(sum)
	ploop -v-1 merge -d dev/ploop0
	[ "$(levels)" = 1 ]
	[ "$(sum)" = "$before" ]
	run ploop merge -d dev/ploop0
	status_is 38
	[ "$output" = "Single delta, nothing to merge" ]
	run ploop merge -d dev/ploop0 --status
	output_has "done levels 0..2"
	ploop -v-1 umount -d dev/ploop0
}

@test "after a merge all old ways to name the files are the same disk" {
	local before
	stack
	rm DiskDescriptor.xml
	before=$(sum)
	ploop -v-1 merge -d dev/ploop0 -l 0..2
	fill 2 20
	before=$(sum)
	ploop -v-1 umount -d dev/ploop0
	[ "$(content ploop.image)" = "$before" ]
	[ "$(content ploop.image delta)" = "$before" ]
	[ "$(content ploop.image delta delta1)" = "$before" ]
}

@test "what cannot be merged on a device is told, with the original's status" {
	stack
	run ploop merge -d dev/ploop0 -l 1..3
	status_is 9
	[ "$output" = "Illegal top level" ]
	for range in 1..1 2..0 -1..1 x 0.. 0..1x 0..200; do
		run ploop merge -d dev/ploop0 -l "$range"
		status_is 38
	done
	run ploop merge -d dev/ploop0 -f raw
	status_is 38
	run ploop merge -d dev/ploop7
	status_is 2
	run ploop merge
	status_is 38
	ploop -v-1 umount -d dev/ploop0
}

@test "a merge is throttled, looked at, paused, resumed and stopped; then it goes on" {
	require jq
	local before client status
	stack 64m
	fill 20 30
	before=$(sum)
	ploop -v-1 merge -d dev/ploop0 -l 0..2 --rate 12m 3>&- &
	client=$!
	wait_for sh -c 'ploop merge -d dev/ploop0 --status --json | jq -e ".top and .done > 0"'
	ploop merge -d dev/ploop0 --pause
	[[ "$(ploop merge -d dev/ploop0 --status)" == "paused levels 0..2"* ]]
	[ "$(sum)" = "$before" ]
	ploop merge -d dev/ploop0 --resume
	[[ "$(ploop merge -d dev/ploop0 --status)" == "running levels 0..2"* ]]
	ploop merge -d dev/ploop0 --stop
	status=0
	wait "$client" || status=$?
	status_is 29
	[ "$(ploop merge -d dev/ploop0 --status --json | jq -r .state)" = failed ]
	[ "$(sum)" = "$before" ]
	[ "$(levels)" = 2 ]
	[ "$(images_named)" = "ploop.image delta1" ]
	[ "$(ploop snapshot-list -H -o temporary . | xargs)" = "t" ]
	fill 3 40
	before=$(sum)
	# Half of it is over: only this merge is possible, or to unmount.
	run ploop snapshot -d dev/ploop0 delta2
	status_is 17
	ploop -v-1 merge -d dev/ploop0
	[ "$(sum)" = "$before" ]
	[ "$(levels)" = 1 ]
	ploop -v-1 umount -d dev/ploop0
	clean ploop.image delta1
	[ "$(content ploop.image)" = "$before" ]
}

@test "one merge at a time, and no snapshot meanwhile" {
	local client status
	stack 48m
	rm DiskDescriptor.xml
	fill 20 20
	ploop -v-1 merge -d dev/ploop0 -l 1..2 --rate 4m 3>&- &
	client=$!
	wait_for sh -c 'ploop merge -d dev/ploop0 --status | grep -q running'
	run ploop merge -d dev/ploop0 -l 0..1
	status_is 17
	[ "$output" = "levels 1..2 of ploop0 are being merged already; see \`ploop merge -d ploop0 --status\`" ]
	run ploop snapshot -d dev/ploop0 delta2
	status_is 17
	[ "$output" = "levels 1..2 of ploop0 are being merged already; see \`ploop merge -d ploop0 --status\`" ]
	ploop merge -d dev/ploop0 --stop
	status=0
	wait "$client" || status=$?
	status_is 29
	run ploop merge -d dev/ploop0 -l 0..1
	status_is 17
	output_has "the merge of levels 1..2 of ploop0 that was stopped must end first"
	ploop -v-1 umount -d dev/ploop0
}

@test "a stopped merge of the top, unmounted: mounted again it is the same disk" {
	local before status=0
	stack 48m
	fill 20 24
	before=$(sum)
	ploop -v-1 merge -d dev/ploop0 -l 1..2 --rate 8m 3>&- &
	wait_for sh -c 'ploop merge -d dev/ploop0 --status --json | jq -e ".done > 0"'
	kill -TERM $!
	wait $! || status=$?
	status_is 29
	fill 24 20
	before=$(sum)
	ploop -v-1 umount -d dev/ploop0
	clean ploop.image delta delta1
	ploop -v-1 mount -d dev/ploop0 .
	[ "$(sum)" = "$before" ]
	ploop -v-1 merge -d dev/ploop0
	[ "$(sum)" = "$before" ]
	ploop -v-1 umount -d dev/ploop0
	[ "$(content .)" = "$before" ]
}

@test "offline: one delta, three deltas, a raw base, a new image" {
	local before
	stack
	ploop -v-1 snapshot -d dev/ploop0 delta2
	fill 1 2
	before=$(sum)
	ploop -v-1 umount -d dev/ploop0
	cp ploop.image delta delta1 delta2 "$(mkdir -p raw new; echo raw)"
	cp raw/* new
	ploop merge delta2 delta1 delta ploop.image
	[ "$(content ploop.image)" = "$before" ]
	cmp delta1 raw/delta1
	clean ploop.image
	[ "$(images_named)" = "ploop.image" ]
	[ "$(ploop snapshot-list --json . | jq '.snapshots[0].temporary')" = false ]
	[ "$(content .)" = "$before" ]

	ploop -v-1 merge raw/delta2 raw/delta1
	rm raw/delta2
	clean raw/delta1
	qemu-img convert -f parallels -O raw raw/ploop.image raw/base.raw
	[ "$(content raw/ploop.image raw/delta raw/delta1)" = "$before" ]
	ploop -v-1 merge -f raw raw/delta1 raw/delta raw/base.raw
	[ "$(sum raw/base.raw)" = "$before" ]

	ploop -v-1 merge -n new/all new/delta2 new/delta1 new/delta new/ploop.image
	[ "$(content new/all)" = "$before" ]
	cmp new/ploop.image raw/ploop.image
	run ploop merge -n new/all new/delta new/ploop.image
	status_is 38
	output_has "File exists"
	nothing_left
}

@test "offline: zeros in a delta stay zeros when it is merged into a delta" {
	ploop -v-1 init -s 16m -t none ploop.image
	ploop -v-1 mount -d dev/ploop0 ploop.image
	fill 0 8
	ploop -v-1 snapshot -d dev/ploop0 delta
	ploop -v-1 snapshot -d dev/ploop0 delta1
	dd if=/dev/zero of=dev/ploop0 bs=1M seek=2 count=3 oflag=direct conv=notrunc status=none
	before=$(sum)
	ploop -v-1 umount -d dev/ploop0
	rm DiskDescriptor.xml
	ploop -v-1 merge delta1 delta
	[ "$(content ploop.image delta)" = "$before" ]
}

@test "offline: what does not fit is refused, and nothing is written" {
	qemu-img create -q -f parallels base 64M
	qemu-img create -q -f parallels other -o cluster_size=64k 64M
	sha256sum base other >sums
	run ploop merge other base
	status_is 11
	output_has "Wrong blocksize"
	run ploop merge base
	status_is 38
	run ploop merge nowhere base
	status_is 4
	ploop -v-1 init -s 32m -t none ploop.image
	run ploop merge DiskDescriptor.xml
	status_is 38
	output_has "Please use ploop snapshot-merge command"
	run ploop merge base .
	status_is 38
	sha256sum -c --quiet sums
}

# sizes: base and delta16 of 16 MiB, delta32 and delta48, with data in each, some of it behind the end of those below.
sizes() {
	ploop -v-1 init -s 16m -t none -b "${1:-2048}" base
	rm DiskDescriptor.xml
	for size in 16 32 48; do
		ploop -v-1 init -s "${size}m" -t none -b "${1:-2048}" "delta$size"
		rm DiskDescriptor.xml
	done
	qemu-io -f parallels -c "write -q -P 1 0 10M" base
	qemu-io -f parallels -c "write -q -P 2 5M 10M" delta16
	qemu-io -f parallels -c "write -q -P 3 13M 10M" delta32
	qemu-io -f parallels -c "write -q -P 4 20M 25M" delta48
}

@test "online: what is merged into becomes as large as what comes into it, level by level" {
	local before small
	sizes
	small=$(ploop info -s base)
	before=$(content base delta16 delta32 delta48)
	ploop -v-1 mount -d dev/ploop0 base delta16 delta32 delta48
	# Levels that are smaller than the device stay so: what lies above them is no larger.
	ploop -v-1 merge -d dev/ploop0 -l 0..1
	[ "$(ploop info -s base)" = "$small" ]
	[ "$(sum)" = "$before" ]
	ploop -v-1 merge -d dev/ploop0
	[ "$(sum)" = "$before" ]
	[ "$(ploop info -s base)" = "$(ploop info -s delta48)" ]
	ploop -v-1 umount -d dev/ploop0
	[ "$(content base)" = "$before" ]
	clean base
}

# holds FORMAT FILE: a base of 10 MiB of ones, with fours over it in two places.
holds() {
	qemu-io -f "$1" -r -c "read -q -P 1 0 5M" -c "read -q -P 4 5M 3M" -c "read -q -P 1 8M 2M" -c "read -q -P 0 10M 246M" \
		-c "read -q -P 4 256M 1M" -c "read -q -P 0 257M 1M" "$2" >holds.log
	[ ! -s holds.log ] || { cat holds.log >&2; return 1; }
}

@test "online: a base whose longer index needs the place of its data, and one that is raw" {
	ploop -v-1 init -s 16m -t none -b 64 base
	rm DiskDescriptor.xml
	ploop -v-1 init -s 258m -t none -b 64 large
	rm DiskDescriptor.xml
	qemu-io -f parallels -c "write -q -P 1 0 10M" base
	qemu-io -f parallels -c "write -q -P 4 5M 3M" -c "write -q -P 4 256M 1M" large
	truncate -s 16M raw
	qemu-io -f raw -c "write -q -P 1 0 10M" raw
	cp large large2
	ploop -v-1 mount -d dev/ploop0 base large
	ploop -v-1 merge -d dev/ploop0
	ploop -v-1 umount -d dev/ploop0
	clean base
	holds parallels base
	ploop -v-1 mount -f raw -b 64 -d dev/ploop0 raw large2
	ploop -v-1 merge -d dev/ploop0
	ploop -v-1 umount -d dev/ploop0
	holds raw raw
}

@test "offline: a smaller base grows when a larger delta is merged into it" {
	local before small
	sizes 64
	small=$(ploop info -s base)
	before=$(content base delta16 delta32 delta48)
	ploop -v-1 merge delta16 base
	[ "$(ploop info -s base)" = "$small" ]
	ploop -v-1 merge -n all delta48 delta32 base
	[ "$(content all)" = "$before" ]
	ploop -v-1 merge delta48 delta32 base
	[ "$(content base)" = "$before" ]
	clean base
}

@test "offline: an image that is mounted is refused" {
	stack
	run ploop merge delta1 delta ploop.image
	[ "$status" -ne 0 ]
	ploop -v-1 umount -d dev/ploop0
}

@test "a snapshot with two children is not merged away" {
	local uuid
	ploop -v-1 init -s 32m -t none ploop.image
	uuid=$(ploop -v-1 snapshot --json . | jq -r .uuid)
	ploop -v-1 snapshot .
	ploop -v-1 snapshot-switch -u "$uuid" .
	mapfile -t files < <(ploop snapshot-list -H -o fname .)
	[ "${#files[@]}" -eq 3 ]
	run ploop merge "${files[1]}" ploop.image
	status_is 38
	output_has "it has 2 children"
	output_is_one_line
}
