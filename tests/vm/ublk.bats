# SPDX-License-Identifier: LGPL-2.1-or-later
# The ublk front end on a stock kernel.

load ../cli/common
load ../cli/devices

limit() {
	cat "/sys/block/$(basename "$(node_of ploop0)")/queue/$1"
}

@test "what a disk needs: partitions, ext4, XFS, trim, snapshots, a merge, a balloon" {
	run -0 ploop init -s 400m -t none disk.hds
	run -0 ploop mount -d ploop0 DiskDescriptor.xml
	[[ "$(node_of ploop0)" = /dev/ublkb* ]]
	parted -s dev/ploop0 mklabel gpt mkpart a 1MiB 60MiB mkpart b 60MiB 100%
	wait_for test -b dev/ploop0p2
	mkfs.ext4 -q dev/ploop0p1
	mkfs.xfs -q dev/ploop0p2
	mkdir xfs
	mount -t ext4 dev/ploop0p1 mnt
	mount -t xfs dev/ploop0p2 xfs
	head -c 8M /dev/urandom >mnt/kept
	head -c 32M /dev/urandom >xfs/passing
	sync
	sum=$(md5sum <mnt/kept)
	run -0 ploop snapshot DiskDescriptor.xml
	head -c 4M /dev/urandom >xfs/new
	umount xfs
	run -0 ploop snapshot-merge DiskDescriptor.xml
	mount -t xfs dev/ploop0p2 xfs
	rm xfs/passing
	sync
	before=$(du -B1M disk.hds* | awk '{ n += $1 } END { print n }')
	fstrim xfs
	after=$(du -B1M disk.hds* | awk '{ n += $1 } END { print n }')
	echo "$before MiB before the trim, $after after"
	[ $((before - after)) -ge 30 ]
	umount xfs mnt
	echo 3 >/proc/sys/vm/drop_caches
	mount -t ext4 dev/ploop0p1 mnt
	[ "$(md5sum <mnt/kept)" = "$sum" ]
	umount mnt
	e2fsck -fn dev/ploop0p1
	xfs_repair -n dev/ploop0p2
	run -0 ploop umount DiskDescriptor.xml
	run -0 ploop check DiskDescriptor.xml
	nothing_left
}

@test "the kernel is told what the disk can do" {
	new_image a.hds
	run -0 ploop mount a.hds
	[ "$(limit write_cache)" = "write back" ]
	[[ "$(limit scheduler)" = *"[none]"* ]]
	[ "$(limit fua)" = 1 ]
	[ "$(limit logical_block_size)" = 512 ]
	[ "$(limit optimal_io_size)" = 1048576 ]
	[ "$(limit discard_granularity)" = 4096 ]
	[ "$(limit write_zeroes_max_bytes)" -gt 0 ]
	run -0 ploop umount -d ploop0
	run -0 ploop mount -r a.hds
	[ "$(cat "/sys/block/$(basename "$(node_of ploop0)")/ro")" = 1 ]
	[ "$(limit discard_max_bytes)" = 0 ]
	run -0 ploop umount -d ploop0
	[ ! -e /dev/ublkb0 ]
	[ ! -e /dev/ublkc0 ]
}

@test "growing in use: where the kernel can, or a refusal that changes nothing" {
	new_disk a.hds
	run -0 ploop mount -m mnt a.hds
	run ploop grow -s 128M -d ploop0
	if [ "$status" = 0 ]; then
		[ "$(blockdev --getsize64 dev/ploop0)" = 134217728 ]
	else
		status_is 38
		output_has "cannot grow while it is used"
		[ "$(blockdev --getsize64 dev/ploop0)" = 67108864 ]
	fi
	run -0 ploop umount -m mnt
}

@test "somebody who has it open keeps it" {
	new_image a.hds
	run -0 ploop mount a.hds
	exec 7<dev/ploop0
	run ploop umount -d ploop0
	status_is 46
	output_has "is in use"
	exec 7<&-
	run -0 ploop umount -d ploop0
	nothing_left
}

# has_said FILE: the engine serves, and has said what it keeps.
has_said() {
	[ "$(wc -l <"$1")" -ge 2 ]
}

@test "the next engine goes on: a writer sees a pause and no error" {
	require fio
	new_image a.hds 128M
	"$PLOOP_BUILD/tests/vm/serve" ublk a.hds >said &
	pid=$!
	wait_for has_said said
	node=$(head -n 1 said) kept=$(tail -n 1 said)
	fio --name=a --filename="$node" --rw=randwrite --bs=4k --size=32m --iodepth=16 --ioengine=libaio --direct=1 --fsync=64 \
		--verify=crc32c --time_based --runtime="${PLOOP_KILL_SECONDS:-15}" --verify_backlog=128 --verify_fatal=1 >fio.out 2>&1 3>&- &
	fio=$!
	kills=0
	while sleep 3; kill -0 $fio 2>/dev/null; do
		kill -9 $pid
		wait $pid || true
		kills=$((kills + 1))
		"$PLOOP_BUILD/tests/vm/serve" ublk a.hds "$kept" >said &
		pid=$!
	done
	wait $fio || { cat fio.out; false; }
	echo "$kills kills"
	[ $kills -ge 1 ]
	wait_for has_said said
	kill $pid
	wait $pid
	run -0 ploop check a.hds
	[ ! -e "$node" ]
}
