#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The mistakes of a person at the terminal: each gets one line that says what to do.
load common
load devices

# says STATUS TEXT COMMAND..: the command fails so, with one line that has the text in it.
says() {
	local want=$1 text=$2
	shift 2
	run --separate-stderr "$@"
	status_is "$want"
	# shellcheck disable=SC2154
	[ "${#stderr_lines[@]}" -eq 1 ] || { echo "${#stderr_lines[@]} lines: $stderr" >&2; return 1; }
	# shellcheck disable=SC2154
	[[ "$stderr" == *"$text"* ]] || { echo "no '$text' in: $stderr" >&2; return 1; }
}

@test "init: no size, no name, a size that is none, a folder that is not there, twice" {
	says 38 "give the size with -s" ploop init disk.hds
	says 38 "give one DELTA" ploop init -s 1g
	says 38 "Invalid argument for option -s: 1.5g" ploop init -s 1.5g disk.hds
	says 4 "Can't open the folder nowhere" ploop init -s 64m nowhere/disk.hds
	ploop init -s 64m -t none disk.hds
	says 38 "File exists; each disk has a folder of its own" ploop init -s 64m -t none other.hds
}

@test "init: too small for its file system" {
	require mkfs.xfs
	mkdir one
	says 24 "ext4 wants 16 MiB (or use -t none)" ploop -v0 init -s 10m one/disk.hds
	says 24 "xfs wants 300 MiB (or use -t none)" ploop -v0 init -s 64m -t xfs one/disk.hds
	[ -z "$(ls one)" ]
}

@test "a file that is no image, by what it is" {
	require qemu-img
	touch empty
	head -c 1000000 /dev/zero >zeros
	qemu-img create -q -f qcow2 other.qcow2 10m
	for verb in map info; do
		says 11 "the file is empty" ploop $verb empty
		says 11 "a raw one is named so with -f raw" ploop $verb zeros
		says 11 "it is a qcow2 image; qemu-img convert -O parallels" ploop $verb other.qcow2
	done
	says 4 "DiskDescriptor.xml: No such file" ploop info .
}

@test "one image named twice" {
	ploop init -s 64m -t none disk.hds
	says 38 "disk.hds is named twice" ploop map disk.hds ./disk.hds
}

@test "a disk that is mounted already, in every verb" {
	ploop init -s 64m -t none disk.hds
	device=$(ploop mount disk.hds | sed -n 's/^Adding delta dev=\([^ ]*\) .*/\1/p')
	says 21 "already used by device $device" ploop mount disk.hds
	says 37 "(ploopd); unmount it first, see \`ploop list\`" ploop mount DiskDescriptor.xml
	ploop -v-1 map disk.hds >/dev/null # as it was flushed last
	says 37 "(ploopd); unmount it first, see \`ploop list\`" ploop bench -w disk.hds
	says 37 "(ploopd); unmount it first, see \`ploop list\`" ploop check disk.hds
	ploop umount "$device"
}

@test "umount: a folder or a device without its option is understood; what is not mounted is told" {
	require mkfs.ext4
	ploop init -s 64m disk.hds
	ploop mount -m mnt disk.hds
	ploop umount mnt
	[ -z "$(ploop list)" ]
	says 38 "Unable to find ploop device by mnt; see \`ploop list\`" ploop umount -m mnt
	says 40 "is not mounted" ploop umount DiskDescriptor.xml
	says 2 "/ploop77; see \`ploop list\`" ploop umount /dev/ploop77
}

@test "who is not root is told so" {
	require su
	says 4 "devices need root" su nobody -s /bin/sh -c "PATH=$PATH ploop mount disk.hds"
	says 4 "devices need root" su nobody -s /bin/sh -c "PATH=$PATH ploop list"
}
