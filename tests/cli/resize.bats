#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# resize: images, device, partition and file system, in one go.
load common
load devices

# fill DIR MIB: files of random bytes, with their checksums in ./sums.
fill() {
	local i
	for ((i = 0; i < $2; i++)); do
		mkdir -p "$1/d$((i % 7))"
		head -c 1M /dev/urandom >"$1/d$((i % 7))/f$i"
	done
	(cd "$1" && find . -type f -name 'f*' -exec sha256sum {} + >"$BATS_TEST_TMPDIR/sums")
}

put_files() {
	ploop -v-1 mount -m mnt .
	fill mnt "$1"
	ploop -v-1 umount -m mnt
}

# sizes_are SECTORS: the disk, the descriptor and the end of the partition.
sizes_are() {
	run -0 ploop -v-1 info -s .
	output_has "$(printf 'size:\t\t%s\n' "$1")"
	grep -q "<Disk_size>$1</Disk_size>" DiskDescriptor.xml
	run -0 ploop resize --info --json .
	[ "$(jq .end <<<"$output")" -eq $((($1 - 2048) * 512)) ]
	[ "$(jq '.fs_size == .end - .start' <<<"$output")" = true ]
}

# disk_is_sound: image, file system and files; nothing is left over.
disk_is_sound() {
	local part
	qemu-img check -q -f parallels disk.hds
	run -0 ploop -v-1 gc .
	run ! grep -vE '^(lock|$)' <<<"$output"
	ploop -v-1 mount .
	part=$(echo dev/ploop*p1)
	case $(blkid -p -o value -s TYPE "$part") in
	ext4) e2fsck -fn "$part" ;;
	xfs) xfs_repair -n "$part" ;;
	esac
	run -0 sfdisk --verify dev/ploop0
	ploop -v-1 umount .
	ploop -v-1 mount -m mnt .
	[ ! -e sums ] || (cd mnt && sha256sum --quiet -c ../sums)
	ploop -v-1 umount -m mnt
}

@test "a disk that is not mounted becomes larger, with its files" {
	require qemu-img resize2fs e2fsck sfdisk blkid jq
	ploop -v-1 init -s 500m disk.hds
	put_files 8
	ploop -v-1 resize -s 2g DiskDescriptor.xml
	sizes_are 4194304
	# The same again changes nothing.
	ploop -v-1 resize -s 2g .
	sizes_are 4194304
	disk_is_sound
	nothing_left
}

@test "a disk that is not mounted becomes smaller, with its files" {
	require qemu-img resize2fs e2fsck sfdisk blkid jq
	ploop -v-1 init -s 3g disk.hds
	put_files 8
	ploop -v-1 resize -s 300m .
	sizes_are 614400
	disk_is_sound
	nothing_left
}

@test "too small a size is refused with the smallest, which then works" {
	require qemu-img resize2fs e2fsck sfdisk blkid jq
	local minimum before
	ploop -v-1 init -s 400m disk.hds
	put_files 20
	before=$(sha256sum disk.hds DiskDescriptor.xml)
	run --separate-stderr ploop resize -s 30m .
	status_is 38
	# shellcheck disable=SC2154
	[[ "$stderr" =~ ^"Unable to change image size to 61440 sectors, minimal size is "([0-9]+)$ ]]
	minimum=${BASH_REMATCH[1]}
	[ "$before" = "$(sha256sum disk.hds DiskDescriptor.xml)" ]
	[ "$(ploop resize --info --json . | jq .minimum)" -eq $((minimum * 512)) ]
	run ploop resize -s $((minimum - 2048)) .
	status_is 38
	ploop -v-1 resize -s "$minimum" .
	sizes_are "$minimum"
	disk_is_sound
	[ "$(stat -c %s disk.hds)" -le $((minimum * 512 + 1048576)) ]
}

@test "a file becomes as short as what is in it" {
	ploop -v-1 init -s 400m disk.hds
	ploop -v-1 mount -m mnt .
	head -c 150M /dev/zero | tr '\0' x >mnt/large
	head -c 8M /dev/urandom >mnt/small
	sync -f mnt
	rm mnt/large
	ploop -v-1 umount -m mnt
	[ "$(stat -c %s disk.hds)" -gt 150000000 ]
	ploop -v-1 resize -s 200m .
	[ "$(stat -c %s disk.hds)" -lt 40000000 ]
}

@test "--info tells both bounds and touches nothing" {
	require jq
	local before
	ploop -v-1 init -s 256m disk.hds
	before=$(sha256sum disk.hds DiskDescriptor.xml)
	run -0 ploop -v-1 resize --info .
	output_has "524288 sectors (256 MiB)"
	output_has "the file system holds so much"
	output_has "ext4 with blocks of 4096 bytes"
	output_has "inodes:"
	[ "$before" = "$(sha256sum disk.hds DiskDescriptor.xml)" ]
	ploop -v-1 mount -d dev/ploop3 .
	run -0 ploop -v-1 resize --info --json .
	[ "$(jq -r .device <<<"$output")" = "$PWD/dev/ploop3" ]
	[[ "$(jq -r .minimum_why <<<"$output")" == "it is in use, "*balloon* ]]
	ploop -v-1 umount .
	nothing_left
}

# resize_both_ways NAME OPTION..: a disk of its own, larger and smaller, with files.
resize_both_ways() {
	mkdir -p "$1/mnt"
	cd "$1" || return 1
	shift
	ploop -v-1 init -s 200m "$@" disk.hds
	put_files 4
	ploop -v-1 resize -s 700m .
	ploop -v-1 info -s . | grep -q 1433600
	ploop -v-1 resize -s 100m .
	ploop -v-1 info -s . | grep -q 204800
	ploop -v-1 mount -F -m mnt .
	[ "$(findmnt -n -b -o SIZE mnt)" -gt 60000000 ]
	(cd mnt && sha256sum --quiet -c "$BATS_TEST_TMPDIR/sums")
	ploop -v-1 umount -m mnt
	ploop -v-1 check .
	cd "$BATS_TEST_TMPDIR" || return 1
}

@test "version 1, which has a limit" {
	resize_both_ways disk -v 1
	run ploop resize -s 3t disk
	status_is 38
	output_has "The maximum allowed size is 4294965248 sectors"
}

@test "small clusters" {
	resize_both_ways disk -b 64
}

@test "a raw disk, and one without a partition table" {
	resize_both_ways raw -f raw
	resize_both_ways bare -P
}

@test "xfs becomes larger, mounted or not, and never smaller" {
	require mkfs.xfs xfs_repair qemu-img sfdisk blkid jq
	ploop -v-1 init -t xfs -s 320m disk.hds
	put_files 4
	ploop -v-1 resize -s 1g .
	sizes_are 2097152
	disk_is_sound
	run ploop resize -s 400m .
	status_is 38
	output_has "minimal size is 2097152"
	nothing_left
}

@test "a disk in use becomes larger under its users" {
	require mkfs.xfs xfs_repair qemu-img sfdisk blkid jq
	ploop -v-1 init -t xfs -s 320m disk.hds
	ploop -v-1 mount -d dev/ploop0 -m mnt .
	fill mnt 4
	ploop -v-1 resize -s 600m .
	[ "$(findmnt -n -b -o SIZE mnt)" -gt 500000000 ]
	(cd mnt && sha256sum --quiet -c ../sums)
	fsfreeze -f mnt
	run ploop resize -s 700m .
	fsfreeze -u mnt
	status_is 17
	output_has "is frozen"
	ploop -v-1 umount .
	sizes_are 1228800
	# Its device runs, and nobody has it mounted.
	ploop -v-1 mount .
	ploop -v-1 resize -s 700m .
	ploop -v-1 umount .
	sizes_are 1433600
	disk_is_sound
}

@test "ext4 in use becomes larger, where that is allowed" {
	require qemu-img e2fsck sfdisk blkid jq
	ploop -v-1 init -s 320m disk.hds
	ploop -v-1 mount -d dev/ploop0 -m mnt .
	fill mnt 4
	# CAP_SYS_RESOURCE
	if ((0x$(awk '/^CapEff/ { print $2 }' /proc/self/status) >> 24 & 1)); then
		ploop -v-1 resize -s 600m .
		[ "$(findmnt -n -b -o SIZE mnt)" -gt 500000000 ]
	else
		run ploop resize -s 600m .
		status_is 26
		output_has "CAP_SYS_RESOURCE"
	fi
	(cd mnt && sha256sum --quiet -c ../sums)
	ploop -v-1 umount .
	ploop -v-1 resize -s 600m .
	sizes_are 1228800
	disk_is_sound
}

@test "what is not known is left alone" {
	ploop -v-1 init -t none -s 64m disk.hds
	run -0 ploop resize -s 100m .
	output_has "holds no file system that is known"
	run -0 ploop -v-1 info -s .
	output_has 204800
	run ploop resize -s 50m .
	status_is 38
	output_has "holds no file system that is known"
	run ploop resize -s 4m .
	status_is 38
	output_has "Unable to change image size to 8192 sectors"
}

@test "of several partitions the last is resized, if it holds a file system" {
	require sfdisk mkfs.ext4 e2fsck jq
	ploop -v-1 init -t none -s 300m disk.hds
	ploop -v-1 mount -d dev/ploop0 .
	printf 'label: gpt\nstart=2048, size=204800\nstart=206848, size=204800\n' | sfdisk -q dev/ploop0
	ploop -v-1 umount .
	run ploop resize -s 400m .
	status_is 38
	output_has "partition 2 lies last"
	ploop -v-1 mount -d dev/ploop0 .
	mkfs.ext4 -q dev/ploop0p1
	mkfs.ext4 -q dev/ploop0p2
	ploop -v-1 umount .
	ploop -v-1 resize -s 400m .
	[ "$(ploop resize --info --json . | jq -c '[.partition, .start, .end]')" = "[2,105906176,418381824]" ]
	ploop -v-1 mount -d dev/ploop0 .
	e2fsck -fn dev/ploop0p1
	e2fsck -fn dev/ploop0p2
	ploop -v-1 umount .
}

@test "a disk with snapshots keeps its size when its file system becomes smaller" {
	require qemu-img resize2fs e2fsck jq
	local uuid
	ploop -v-1 init -s 600m disk.hds
	put_files 8
	ploop -v-1 snapshot .
	uuid=$(ploop -v-1 snapshot-list -H -s -o uuid . | head -n 1)
	[ "$(ploop -v-1 resize --json -s 200m . | jq .disk_larger)" = true ]
	run -0 ploop -v-1 info -s .
	output_has 1228800
	run -0 ploop resize --info --json .
	[ "$(jq .fs_size <<<"$output")" -eq $((198 * 1048576)) ]
	# Without the snapshot the next one finishes.
	ploop -v-1 snapshot-delete -u "${uuid// /}" .
	[ "$(ploop -v-1 resize --json -s 200m . | jq .disk_larger)" = false ]
	run -0 ploop -v-1 info -s .
	output_has 409600
	disk_is_sound
}

@test "inodes: what ext4 allows, and what works" {
	ploop -v-1 init -s 256m disk.hds
	run ploop resize -N 100000 .
	status_is 38
	output_is_one_line
	output_has "ploop resize -s 1G ."
	output_has "ploop mount -r -m DIR ."
	output_has "-N 100000 --from DIR NEW/root.hds"
	ploop -v-1 resize -s 1g .
	run -0 ploop -v-1 info .
	[ "$(awk '/inodes/ { print $2 }' <<<"$output")" -ge 100000 ]
	run ploop resize -N 1000 .
	status_is 38
	output_has "inodes already"
}

@test "a disk in use becomes smaller by a balloon, and larger again" {
	require jq
	local minimum
	ploop -v-1 init -s 500m disk.hds
	ploop -v-1 mount -m mnt .
	fill mnt 30
	ploop -v-1 resize -s 300m .
	[ "$(ploop -v-1 balloon show -m mnt)" = "Current size of hidden balloon is 209715200 bytes" ]
	run -0 ploop -v-1 info -s .
	output_has 1024000
	run --separate-stderr ploop resize -s 20m .
	status_is 38
	[[ "$stderr" =~ ^"Unable to change image size to 40960 sectors, minimal size is "([0-9]+)$ ]]
	minimum=${BASH_REMATCH[1]}
	[ "$(ploop resize --info --json . | jq .minimum)" -eq $((minimum * 512)) ]
	[ "$(ploop resize --json -s "$minimum" . | jq -c '[.ballooned, .disk_larger]')" = "[true,true]" ]
	[ "$(findmnt -n -b -o AVAIL mnt)" -lt 3000000 ]
	ploop -v-1 resize -s 500m .
	[ "$(ploop -v-1 balloon show -m mnt)" = "Current size of hidden balloon is 0 bytes" ]
	(cd mnt && sha256sum --quiet -c ../sums)
	# What the balloon held back is no reason to stay large, once the disk is not in use.
	ploop -v-1 resize -s 200m .
	ploop -v-1 umount .
	ploop -v-1 resize -s 200m .
	run -0 ploop -v-1 info -s .
	output_has 409600
	ploop -v-1 mount -m mnt .
	[ "$(ploop -v-1 balloon show -m mnt)" = "Current size of hidden balloon is 0 bytes" ]
	(cd mnt && sha256sum --quiet -c ../sums)
	ploop -v-1 umount .
}

@test "--offline refuses a disk in use" {
	ploop -v-1 init -s 100m disk.hds
	ploop -v-1 mount .
	run ploop resize --offline -s 200m .
	status_is 17
	output_has "unmount it first"
	ploop -v-1 umount .
	ploop -v-1 mount -r -c reader .
	run ploop resize -s 200m .
	status_is 17
	ploop -v-1 umount -c reader .
}
