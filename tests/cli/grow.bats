#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Grow: a device in use, an image, a disk by its descriptor; what the descriptor says afterwards; what is refused.
load common
load devices

bytes() {
	blockdev --getsize64 dev/ploop0
}

# fill FIRST_MIB COUNT: random bytes of the device.
fill() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count="$2" conv=notrunc oflag=direct status=none
}

# head_sum MIB: the sum of the beginning of the device.
head_sum() {
	head -c "$1M" dev/ploop0 | sha256sum
}

clean() {
	qemu-img check -q -f parallels "$1"
	ploop -v-1 check -r "$1"
}

# descriptor_size FILE: sectors.
descriptor_size() {
	sed -n 's,.*<Disk_size>\(.*\)</Disk_size>.*,\1,p' "$1"
	sed -n 's,.*<End>\(.*\)</End>.*,\1,p' "$1"
}

@test "an image grows, and the descriptor beside it learns of it" {
	require qemu-img
	ploop -v-1 init -s 1g -t none ploop.image
	ploop -v-1 grow -s 32g ploop.image
	[ "$(qemu-img info -f parallels --output=json ploop.image | jq '.["virtual-size"]')" = $((32 << 30)) ]
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((32 << 21)) ]
	clean ploop.image
}

@test "a raw image grows" {
	ploop -v-1 init -s 64m -f raw -t none ploop.image
	dd if=/dev/urandom of=ploop.image bs=1M count=64 conv=notrunc status=none
	cp ploop.image before
	ploop -v-1 grow -s 32g -f raw ploop.image
	[ "$(stat -c %s ploop.image)" = $((32 << 30)) ]
	cmp -n $((64 << 20)) before ploop.image
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((32 << 21)) ]
	# Half a sector at its end was not part of the disk, and does not become so.
	mkdir half
	printf '%1000s' x >half/raw
	ploop -v-1 grow -s 1m -f raw half/raw
	[ "$(tail -c +513 half/raw | tr -d '\0' | wc -c)" = 0 ]
}

@test "a device in use grows, and the file system on it then" {
	require mkfs.ext4 resize2fs e2fsck
	ploop -v-1 init -s 1g -t none ploop.image
	ploop -v-1 mount -f ploop1 -d dev/ploop0 ploop.image
	mkfs.ext4 -q -F dev/ploop0
	mount dev/ploop0 mnt
	dd if=/dev/urandom of=mnt/file bs=1M count=8 status=none
	sha256sum mnt/file >sum
	run ploop -v3 grow -s 32g -d dev/ploop0
	status_is 0
	[ "$(bytes)" = $((32 << 30)) ]
	[ "$(ploop list --json | jq '.devices[0].size')" = $((32 << 30)) ]
	# Without CAP_SYS_RESOURCE, as in some containers, nobody resizes a file system that is mounted.
	if ! (($(printf '%d' "0x$(awk '/^CapEff/ { print $2 }' /proc/self/status)") >> 24 & 1)); then
		umount mnt
		e2fsck -fp dev/ploop0
		resize2fs dev/ploop0 32g 2>&1
		mount dev/ploop0 mnt
	fi
	resize2fs dev/ploop0 32g 2>&1
	[ "$(df --output=size -B1G mnt | tail -1)" -ge 30 ]
	sha256sum -c --quiet sum
	umount mnt
	e2fsck -fn dev/ploop0
	ploop -v-1 umount -d dev/ploop0
	clean ploop.image
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((32 << 21)) ]
}

@test "a raw device in use grows" {
	ploop -v-1 init -s 64m -f raw -t none ploop.image
	ploop -v-1 mount -f raw -b 2048 -d dev/ploop0 ploop.image
	fill 60 4
	head_sum 64 >before
	ploop -v-1 grow -s 32g -d dev/ploop0
	[ "$(bytes)" = $((32 << 30)) ]
	fill 1000 1
	head_sum 64 | diff before -
	ploop -v-1 umount -d dev/ploop0
	[ "$(stat -c %s ploop.image)" = $((32 << 30)) ]
}

@test "a disk grows by its descriptor, mounted or not" {
	ploop -v-1 init -s 64m disk.hds -t none
	ploop -v-1 grow -s 100m DiskDescriptor.xml
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((100 << 11)) ]
	ploop -v-1 mount -d dev/ploop0 DiskDescriptor.xml
	[ "$(bytes)" = $((100 << 20)) ]
	run ploop -v-1 grow --json -s 1g .
	status_is 0
	[ "$(jq .size <<<"$output")" = $((1 << 30)) ]
	[ "$(bytes)" = $((1 << 30)) ]
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((1 << 21)) ]
	# The same again is not an error, whatever was left behind.
	sed -i 's,2097152,131072,' DiskDescriptor.xml
	ploop -v-1 grow -s 1g DiskDescriptor.xml
	[ "$(descriptor_size DiskDescriptor.xml | sort -u)" = $((1 << 21)) ]
	ploop -v-1 umount -d dev/ploop0
	clean disk.hds
}

@test "in steps that move clusters, under load, nothing is lost" {
	require fio
	local size
	# 64 sectors a cluster: 8176 entries in the first cluster of the index
	ploop -v-1 init -s 64m -b 64 -t none ploop.image
	ploop -v-1 mount -f ploop1 -d dev/ploop0 ploop.image
	[ -b "$(node_of ploop0)" ]
	fill 0 64
	head_sum 32 >before
	fio --name=load --filename="$(node_of ploop0)" --offset=32m --size=32m --rw=randwrite --bs=4k-64k --direct=1 \
		--ioengine=libaio --iodepth=8 --verify=crc32c --verify_backlog=64 --time_based --runtime=3 \
		--output=fio.log &
	for size in 1g 2g 8g 64g 512g 2t; do
		ploop -v-1 grow -s "$size" -d dev/ploop0
	done
	wait $!
	[ "$(bytes)" = $((2 << 40)) ]
	head_sum 32 | diff before -
	ploop -v-1 umount -d dev/ploop0
	clean ploop.image
}

@test "version 1 stops at its limit, and says so" {
	ploop -v-1 init -s 64m -v 1 -t none ploop.image
	# Down to whole clusters, as there are none above it.
	ploop -v-1 grow -s 4294967295 ploop.image
	[ "$(qemu-img info -f parallels --output=json ploop.image | jq '.["virtual-size"]')" = $(((2 << 40) - (1 << 20))) ]
	run ploop -v-1 grow -s 2t ploop.image
	status_is 38
	output_has "The maximum allowed size is 4294967295 sectors"
	output_is_one_line
	ploop -v-1 check -r ploop.image # qemu-img counts a longer index of an empty image as leaked
}

@test "what lies below the top keeps its size, and does not grow by itself" {
	ploop -v-1 init -s 64m -t none ploop.image
	ploop -v-1 mount -d dev/ploop0 DiskDescriptor.xml
	fill 0 64
	ploop -v-1 snapshot DiskDescriptor.xml
	ploop -v-1 grow -s 128m -d dev/ploop0
	head_sum 64 >before
	[ "$(tail -c +$(((64 << 20) + 1)) dev/ploop0 | tr -d '\0' | wc -c)" = 0 ]
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 mount -d dev/ploop0 DiskDescriptor.xml
	head_sum 64 | diff before -
	ploop -v-1 umount -d dev/ploop0
	run ploop -v-1 grow -s 2g ploop.image
	status_is 38
	output_has "only the top can grow"
	qemu-img info -f parallels --output=json ploop.image | jq -e '.["virtual-size"] == 67108864'
}

@test "smaller, no size at all, and an image in use are refused" {
	ploop -v-1 init -s 64m -t none ploop.image
	run ploop -v-1 grow -s 32m ploop.image
	status_is 38
	output_has "Incorrect new size specified 65536 current size 131072"
	output_is_one_line
	run ploop -v-1 grow ploop.image
	status_is 38
	run ploop -v-1 grow -s 1g
	status_is 38
	run ploop -v-1 grow -s 1g -f raw -d dev/ploop0
	status_is 38
	ploop -v-1 mount -f ploop1 -d dev/ploop0 ploop.image
	run ploop -v-1 grow -s 32m -d dev/ploop0
	status_is 38
	output_has "Incorrect new size specified 65536 current size 131072"
	rm DiskDescriptor.xml # a disk of its own
	run ploop -v-1 grow -s 1g ploop.image
	status_is 37
	output_is_one_line
	[ "$(bytes)" = $((64 << 20)) ]
	ploop -v-1 umount -d dev/ploop0
	ploop -v-1 mount -r -f ploop1 -d dev/ploop0 ploop.image
	run ploop -v-1 grow -s 1g -d dev/ploop0
	status_is 38
	output_has "read-only"
}
