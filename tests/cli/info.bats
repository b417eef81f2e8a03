#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# info: the size of a disk, who serves it, how full it is; mounted or not.
# Each test has names of its own.
# shellcheck disable=SC2030,SC2031
load common

own_setup() {
	require qemu-img mkfs.ext4
	mkdir disk mnt
}

own_teardown() {
	mountpoint -q ro && umount ro
	[ ! -e disk/DiskDescriptor.xml ] || ploop umount disk/DiskDescriptor.xml >/dev/null 2>&1 || true
}

# make_ext4 [OFFSET]: a disk of 256 MiB with a file of 20 MiB in its file system.
make_ext4() {
	head -c 20M /dev/urandom >file
	truncate -s 256M raw
	if [ $# -gt 0 ]; then
		parted -s raw mklabel gpt mkpart p "${1}B" 100%
	fi
	mkfs.ext4 -q -F -E "offset=${1:-0}" raw $((200 * 1024))k
	debugfs -w -R "write file file" "raw?offset=${1:-0}" 2>/dev/null >/dev/null
	qemu-img convert -f raw -O parallels raw disk/root.hds
	ploop -v-1 restore-descriptor disk disk/root.hds
}

# numbers: "blocks used inodes used" of the table that `info` printed.
numbers() {
	# shellcheck disable=SC2154
	echo "$output" | awk '/1k-blocks/ {b = $2 " " $3} /inodes/ {print b, $2, $3}'
}

@test "-s: sectors, cluster, version" {
	qemu-img create -q -f parallels disk/root.hds 64m
	ploop -v-1 restore-descriptor disk disk/root.hds
	run ploop -v-1 info -s disk/DiskDescriptor.xml
	status_is 0
	[ "$output" = "$(printf 'size:\t\t131072\nblocksize:\t2048\nfmt_version:\t2')" ]
	run ploop info disk -s
	output_has "131072"
	run ploop info -s disk/root.hds
	output_has "131072"
	truncate -s 96M raw
	run ploop info -s -f raw -b 64 raw
	[ "$output" = "$(printf 'size:\t\t196608\nblocksize:\t64\nfmt_version:\t0')" ]
}

@test "-d: no device when it is not mounted; with -s after it" {
	qemu-img create -q -f parallels disk/root.hds 64m
	ploop -v-1 restore-descriptor disk disk/root.hds
	run ploop -v-1 info -d disk/DiskDescriptor.xml
	status_is 0
	[ "$output" = "$(printf 'device:\t\t')" ]
	run ploop -v-1 info -ds disk/DiskDescriptor.xml
	[ "${lines[0]}" = "$(printf 'size:\t\t131072')" ]
	[ "${lines[3]}" = "$(printf 'device:\t\t')" ]
}

@test "the size comes from the image, not from the descriptor" {
	qemu-img create -q -f parallels disk/root.hds 64m
	ploop -v-1 restore-descriptor disk disk/root.hds
	sed -i s,131072,262144, disk/DiskDescriptor.xml
	run ploop info -s disk
	output_has 131072
}

@test "a file system without being mounted, in a partition and without one" {
	for offset in 0 1048576; do
		rm -rf raw disk/*
		if [ $offset = 0 ]; then make_ext4; else make_ext4 $offset; fi
		sum=$(md5sum <disk/root.hds)
		run ploop -v-1 info disk/DiskDescriptor.xml
		status_is 0
		[ "${lines[0]}" = "   resource           Size           Used" ]
		read -r blocks used inodes files <<<"$(numbers)"
		[ "$inodes" = 51200 ]
		[ "$files" = 12 ]
		((blocks > 180000 && blocks <= 204800 && used > 20480 && used < 30000))
		[ "$(md5sum <disk/root.hds)" = "$sum" ]
	done
}

@test "no file system: 21, and what to do" {
	qemu-img create -q -f parallels disk/root.hds 64m
	run ploop -v-1 info disk/root.hds
	status_is 21
	output_is_one_line
	output_has "no file system of a known kind"
}

@test "xfs" {
	require mkfs.xfs
	truncate -s 512M raw
	mkfs.xfs -q raw
	run ploop -v-1 info -f raw -b 2048 raw
	status_is 0
	read -r blocks used inodes files <<<"$(numbers)"
	[ "$files" = 3 ]
	((blocks > 300000 && blocks < 524288 && used < 20000 && inodes > 100000))
}

@test "--json of a chain" {
	require jq
	qemu-img create -q -f parallels disk/root.hds 64m
	cp disk/root.hds disk/top
	ploop -v-1 restore-descriptor disk disk/root.hds
	sed -i -e 's,{5fbaabe3[^<]*,{11111111-aaaa-4bbb-8ccc-000000000001},' \
		-e 's,<TopGUID>[^<]*,<TopGUID>{5fbaabe3-6958-40ff-92a7-860e329aab41},' \
		-e 's,</Image>,&<Image><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><Type>Compressed</Type><File>top</File></Image>,' \
		-e 's,</Shot>,&<Shot><GUID>{5fbaabe3-6958-40ff-92a7-860e329aab41}</GUID><ParentGUID>{11111111-aaaa-4bbb-8ccc-000000000001}</ParentGUID></Shot>,' \
		disk/DiskDescriptor.xml
	run ploop info --json disk
	status_is 0
	echo "$output" | jq -e --arg d "$PWD/disk" '
		.descriptor == $d + "/DiskDescriptor.xml" and .size == 67108864 and .cluster == 1048576 and
		.device == null and .mapped == 0 and .file_system == null and
		(.images | length) == 2 and .images[0].file == $d + "/root.hds" and .images[1].file == $d + "/top" and
		.images[0].uuid == "{11111111-aaaa-4bbb-8ccc-000000000001}" and .images[0].format == "ploop1" and
		.images[1].in_use == false and .images[0].length == 1048576'
	run ploop info --json -u 11111111-AAAA-4bbb-8ccc-000000000001 disk
	echo "$output" | jq -e '.images | length == 1'
	run ploop -v-1 info -u 11111111-AAAA-4bbb-8ccc-000000000002 disk
	status_is 43
	output_is_one_line
}

@test "files outside the folder only with --outside" {
	qemu-img create -q -f parallels root.hds 64m
	ploop -v-1 restore-descriptor disk root.hds
	run ploop -v-1 info -s disk
	status_is 38
	output_is_one_line
	output_has "outside its folder"
	run ploop -v-1 info -s --outside disk
	status_is 0
	output_has 131072
	ln -s ../root.hds disk/root.hds
	sed -i "s,<File>.*</File>,<File>root.hds</File>," disk/DiskDescriptor.xml
	run ploop -v-1 info -s --outside disk
	status_is 38
	output_has "by a link"
}

@test "on a read-only file system" {
	require_root
	make_ext4
	mkdir ro
	mount --bind disk ro
	mount -o remount,bind,ro ro
	run ploop -v-1 info ro/DiskDescriptor.xml
	status_is 0
	output_has "1k-blocks"
	run ploop -v-1 mount ro/DiskDescriptor.xml
	status_is 4
	output_has "-r opens it for reading"
	[ -e /dev/fuse ] || skip "no /dev/fuse"
	ploop mount -r -m mnt ro/DiskDescriptor.xml
	cmp file mnt/file
	ploop umount -m mnt
	umount ro
}

@test "mounted: the device, and what the kernel counts; afterwards the same from the image" {
	require_root
	require jq
	[ -e /dev/fuse ] || skip "no /dev/fuse"
	make_ext4 1048576
	ploop mount -m mnt disk/DiskDescriptor.xml
	head -c 30M /dev/urandom >mnt/more
	sync
	run ploop -v-1 info -d disk/DiskDescriptor.xml
	status_is 0
	[[ "${lines[0]}" =~ ^device:$'\t\t'(/.*/ploop[0-9]+)$ ]]
	[ "${lines[1]}" = "$(printf 'partition:\t%sp1' "${BASH_REMATCH[1]}")" ]
	run ploop -v-1 info disk/DiskDescriptor.xml
	status_is 0
	read -r blocks used inodes files <<<"$(numbers)"
	[ "$blocks $inodes $files" = "$(stat -f -c '%b %S %c %d' mnt | awk '{print $1 * $2 / 1024, $3, $3 - $4}')" ]
	run ploop info --json disk
	echo "$output" | jq -e '.mapped >= 50 * 1048576 and .images[0].in_use and .file_system.type == "ext4" and
		(.file_system.approximate | not) and (.device | startswith("/"))'
	ploop umount disk/DiskDescriptor.xml
	run ploop -v-1 info disk/DiskDescriptor.xml
	[ "$(numbers)" = "$blocks $used $inodes $files" ]
}

@test "a disk that somebody else writes to: who" {
	require qemu-io
	qemu-img create -q -f parallels disk/root.hds 64m
	ploop -v-1 restore-descriptor disk disk/root.hds
	sleep 30 | qemu-io -f parallels disk/root.hds &
	for _ in $(seq 50); do
		sleep 0.1
		qemu-img info disk/root.hds >/dev/null 2>&1 || break
	done
	run ploop -v-1 info -s disk
	status_is 0
	run ploop -v-1 info disk
	kill %1
	status_is 37
	output_is_one_line
	output_has "(qemu-io)"
}

@test "--report: what could be given back, the balloon, every file; mounted or not, without a byte written" {
	require jq
	require_root
	[ -c /dev/fuse ] && [ -c /dev/loop-control ] || skip "no devices"
	export PLOOP_RUN_DIR=$PWD/run PLOOP_DEV_DIR=$PWD/dev
	mkdir run dev
	ploop -v-1 init -s 256m disk/root.hds
	echo old >disk/.statfs
	ploop -v-1 mount -m mnt disk
	[ ! -e disk/.statfs ]
	head -c 40M /dev/urandom >mnt/file
	sync -f mnt
	before=$(ploop info --json disk | jq .reclaimable)
	((before < 4 << 20))
	rm mnt/file
	sync -f mnt
	after=$(ploop info --json disk | jq .reclaimable)
	((after >= 36 << 20 && after <= 44 << 20))
	run ploop map disk
	status_is 0
	output_has "flushed last"
	ploop -v-1 umount -m mnt
	sum=$(md5sum <disk/root.hds)
	run ploop info --json disk
	[ "$(jq .reclaimable <<<"$output")" -ge $((36 << 20)) ]
	[ "$(jq .balloon <<<"$output")" = 0 ]
	[ "$(jq .allocated <<<"$output")" = $(($(stat -c %b disk/root.hds) * 512)) ]
	[ "$(md5sum <disk/root.hds)" = "$sum" ]
	ploop -v-1 snapshot -u 11111111-1111-4111-8111-111111111111 disk
	ploop -v-1 snapshot-switch -D -u 11111111-1111-4111-8111-111111111111 disk
	run ploop info --json disk
	[ "$(jq '.images | length' <<<"$output")" = 2 ]
	[ "$(jq '.other_images | length' <<<"$output")" = 1 ]
	# It lies below a snapshot now.
	[ "$(jq .reclaimable <<<"$output")" = 0 ]
	run ploop info --report disk
	status_is 0
	output_has "reclaimable"
	[ "$(grep -c root.hds <<<"$output")" = 3 ]
}

@test "reclaimable: what lies between the files of a mounted disk, and nothing of the files" {
	require jq
	require_root
	[ -c /dev/fuse ] && [ -c /dev/loop-control ] || skip "no devices"
	export PLOOP_RUN_DIR=$PWD/run PLOOP_DEV_DIR=$PWD/dev
	mkdir run dev
	ploop -v-1 init -s 256m disk/root.hds
	ploop -v-1 mount -m mnt disk
	for i in {10..89}; do
		head -c 760K /dev/urandom >"mnt/$i"
		sync -f mnt
	done
	rm mnt/*[02468]
	sync -f mnt
	ploop -v-1 compact disk
	[ "$(ploop info --json disk | jq .reclaimable)" -lt $((3 << 20)) ]
	ploop -v-1 umount -m mnt
	[ "$(ploop info --json disk | jq .reclaimable)" -lt $((3 << 20)) ]
}
