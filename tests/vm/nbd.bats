# SPDX-License-Identifier: LGPL-2.1-or-later
# The nbd front end on the kernel's own driver.

load ../cli/common
load ../cli/devices

# is_free NODE: the driver has given the device up.
is_free() {
	[ ! -e "/sys/block/${1#/dev/}/pid" ] && [ ! -e "/sys/block/${1#/dev/}/backend" ]
}

on_nbd() {
	run -0 ploop mount --front-end nbd "$@"
	[[ "$(node_of ploop0)" == /dev/nbd* ]]
}

@test "a file system on nbd: written, trimmed, with snapshots, merged, and the same on a device that is used again" {
	local before after fd
	ploop init -s 96m disk.hds
	on_nbd -m mnt disk.hds
	dd if=/dev/urandom of=mnt/a bs=1M count=24 conv=fsync status=none
	dd if=/dev/urandom of=mnt/b bs=1M count=24 conv=fsync status=none
	md5sum mnt/a >sum
	rm mnt/b
	sync # the blocks are free when the journal says so
	before=$(stat -c %b disk.hds)
	fstrim mnt
	after=$(stat -c %b disk.hds)
	[ $((before - after)) -gt $((20 * 2048)) ]
	run -0 ploop snapshot DiskDescriptor.xml
	cp mnt/a mnt/c
	run -0 ploop snapshot-merge DiskDescriptor.xml
	exec {fd}<dev/ploop0
	umount mnt
	run ploop umount -d /dev/ploop0
	[ "$status" -ne 0 ]
	output_has "in use"
	exec {fd}<&-
	run -0 ploop umount -d /dev/ploop0
	is_free /dev/nbd0
	on_nbd -m mnt DiskDescriptor.xml
	[ "$(node_of ploop0)" = /dev/nbd0 ]
	md5sum -c --quiet sum
	cmp mnt/a mnt/c
	run -0 ploop umount -m mnt
	is_free /dev/nbd0
	run -0 ploop check DiskDescriptor.xml
	nothing_left
}

@test "a mounted ext4 on nbd grows; parted and mkfs.xfs work there; over several connections" {
	require parted mkfs.xfs
	new_image disk.hds 200M
	PLOOP_NBD_CONNECTIONS=2 on_nbd disk.hds
	[ "$(ls /sys/block/nbd0/mq)" = "$(printf '0\n1')" ]
	run -0 mkfs.ext4 -q dev/ploop0
	mount dev/ploop0 mnt
	echo hello >mnt/file
	run -0 ploop grow -s 400m -d /dev/ploop0
	[ "$(blockdev --getsize64 dev/ploop0)" = $((400 << 20)) ]
	run -0 resize2fs dev/ploop0
	[ "$(df --output=size -BM mnt | tail -n 1 | tr -dc 0-9)" -gt 300 ]
	umount mnt
	run -0 e2fsck -fn dev/ploop0
	run -0 parted -s dev/ploop0 mklabel gpt mkpart a 1MiB 350MiB mkpart b 350MiB 100%
	wait_for test -b dev/ploop0p2
	run -0 mkfs.xfs -q -f dev/ploop0p1
	mount dev/ploop0p1 mnt
	head -c 8M /dev/urandom >mnt/file
	md5sum mnt/file >sum
	umount mnt
	mount dev/ploop0p1 mnt
	md5sum -c --quiet sum
	umount mnt
	run -0 ploop umount -d /dev/ploop0
	is_free /dev/nbd0
	run -0 ploop check disk.hds
	nothing_left
}

@test "an nbd device that is disconnected by hand, or lost its ploopd, is cleared away" {
	local pid
	ploop init -s 64m disk.hds
	on_nbd disk.hds
	pid=$(daemon_pid)
	qemu-nbd -d /dev/nbd0 >/dev/null
	wait_for is_dead "$pid"
	wait_for is_free /dev/nbd0
	nothing_left
	on_nbd -m mnt disk.hds
	pid=$(daemon_pid)
	echo hello >mnt/file
	kill -9 "$pid"
	wait_for is_dead "$pid"
	run -0 ploop umount -d /dev/ploop0
	is_free /dev/nbd0
	nothing_left
	on_nbd -r disk.hds
	run dd if=/dev/zero of=dev/ploop0 bs=4k count=1 oflag=direct conv=notrunc
	[ "$status" -ne 0 ]
	run -0 ploop umount -d /dev/ploop0
	nothing_left
}

has_said() {
	[ "$(wc -l <"$1")" -ge 2 ]
}

@test "the next engine on nbd goes on where one was killed, or left: a writer sees a pause and no error" {
	require fio
	local serve=$PLOOP_BUILD/tests/vm/serve signal=USR1 pid fio node kept changes=0
	new_image a.hds 128M
	"$serve" nbd a.hds >said &
	pid=$!
	wait_for has_said said
	node=$(head -n 1 said) kept=$(tail -n 1 said)
	fio --name=a --filename="$node" --rw=randwrite --bs=4k --size=32m --iodepth=16 --ioengine=libaio --direct=1 --fsync=64 \
		--verify=crc32c --time_based --runtime="${PLOOP_KILL_SECONDS:-15}" --verify_backlog=128 --verify_fatal=1 >fio.out 2>&1 3>&- &
	fio=$!
	while sleep 2; kill -0 $fio 2>/dev/null; do
		if [ $signal = KILL ]; then signal=USR1; else signal=KILL; fi
		kill -$signal $pid
		wait $pid || true
		changes=$((changes + 1))
		"$serve" nbd a.hds "$kept" >said &
		pid=$!
	done
	wait $fio || { cat fio.out; false; }
	echo "$changes changes"
	[ $changes -ge 2 ]
	wait_for has_said said
	kill $pid
	wait $pid
	run -0 ploop check a.hds
	is_free "$node"
}
