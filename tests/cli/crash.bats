# SPDX-License-Identifier: LGPL-2.1-or-later
# What is promised when ploopd dies, and when the host has no room: docs/durability.md.
# PLOOP_TEST_KILLS: how often ploopd is killed in the first test.
load common

own_setup() {
	export PLOOP_RUN_DIR="$BATS_TEST_TMPDIR/run" PLOOP_DEV_DIR="$BATS_TEST_TMPDIR/dev"
	mkdir dev
	writer=
}

own_teardown() {
	[ -z "$writer" ] || kill "$writer" 2>/dev/null || :
	umount host/disk 2>/dev/null || :
	ploop umount --all >/dev/null 2>&1 || :
	if mountpoint -q host; then umount host; fi
}

# Sizes of fio's requests: anything that is a number of sectors.
mixed=(--bssplit=512/10:4k/40:16k/30:64k/10:256k/10 --blockalign=512)

# device_of IMAGE: mounts it and says where.
device_of() {
	ploop mount "$@" | sed -n 's/^Adding delta dev=\([^ ]*\) .*(rw)$/\1/p'
}

# SIGKILL to everything; what happens when only the engine dies is in survive.bats.
export PLOOPD_ALONE=1

pid_of() {
	cut -d' ' -f1 "$PLOOP_RUN_DIR/${1##*/}/pid"
}

@test "kill -9 of ploopd: everything that was flushed is there" {
	require_root
	local device line i
	ploop init -s 512m -t none disk.hds
	device=$(device_of disk.hds)
	mkfifo in out
	"$PLOOP_BUILD/tests/torture/flushed" -j 32 -t 60 -z "$device" <in >out 3>&- &
	writer=$!
	exec 8>in 9<out
	read -r -t 30 line <&9
	for ((i = 0; i < ${PLOOP_TEST_KILLS:-4}; i++)); do
		sleep "0.$((RANDOM % 9 + 1))"
		kill -9 "$(pid_of "$device")"
		read -r -t 30 line <&9
		[[ "$line" == stopped* ]]
		run ploop list
		output_has "(dead)"
		ploop umount -d "$device"
		device=$(device_of disk.hds)
		echo "$device" >&8
		read -r -t 60 line <&9
		[ "$line" = verified ] || { echo "$line" >&2; false; }
	done
	exec 8>&- 9<&-
	kill "$writer"
	wait "$writer" || :
	writer=
	ploop umount -d "$device"
	run qemu-img check -f parallels disk.hds
	status_is 0
}

@test "a full host: the writer waits, and goes on when there is room" {
	require_root
	require fio mkfs.ext4
	local device fio
	truncate -s 160M host.img
	mkfs.ext4 -q -m 0 host.img
	mkdir host
	mount -o loop host.img host
	ploop init -s 256m -t none host/disk.hds
	fallocate -l 80M host/ballast
	device=$(device_of host/disk.hds)
	fio --name=fill --filename="$device" --rw=randwrite "${mixed[@]}" --size=96m --io_size=96m --direct=1 --ioengine=libaio \
		--iodepth=32 --end_fsync=1 --verify=crc32c --do_verify=0 --randseed=7 --output=fio.log 3>&- &
	fio=$!
	for ((i = 0; i < 100; i++)); do
		ploop stat -d "$device" | grep -q '^bio_full.*[1-9]' && break
		sleep 0.1
	done
	ploop stat -d "$device" | grep '^bio_full.*[1-9]'
	kill -0 "$fio"
	rm host/ballast
	wait "$fio"
	fio --name=fill --filename="$device" --rw=randwrite "${mixed[@]}" --size=96m --io_size=96m --direct=1 --ioengine=libaio \
		--iodepth=32 --verify=crc32c --verify_only --randseed=7 --output=fio.log
	ploop umount -d "$device"
	run qemu-img check -f parallels host/disk.hds
	status_is 0
}

@test "fio verifies random sizes at depth 32, with trims beside it" {
	require_root
	require fio
	local device
	ploop init -s 512m -t none disk.hds
	device=$(device_of disk.hds)
	fio --filename="$device" --direct=1 --ioengine=libaio --iodepth=32 --size=256m --io_size=256m --output=fio.log \
		--name=mix --rw=randwrite "${mixed[@]}" --verify=crc32c \
		--name=trim --offset=256m --rw=randtrim --bs=256k
	ploop umount -d "$device"
	run qemu-img check -f parallels disk.hds
	status_is 0
}

@test "space comes back: fstrim after deleting half leaves what the file system uses" {
	require_root
	require fstrim mkfs.ext4
	local device used blocks
	ploop init -s 1g -t none disk.hds
	device=$(device_of disk.hds)
	mkfs.ext4 -q -O ^has_journal "$device"
	mkdir fs
	mount "$device" fs
	for ((i = 0; i < 400; i++)); do head -c 2M /dev/urandom >fs/$i || break; done
	sync -f fs
	rm -f fs/*[02468]
	sync -f fs
	fstrim fs
	used=$(df -B1 --output=used fs | tail -n 1)
	umount fs
	ploop umount -d "$device"
	blocks=$(($(stat -c %b disk.hds) * 512))
	echo "used inside: $used, blocks on the host: $blocks"
	[ "$blocks" -le $((used * 105 / 100)) ]
}
