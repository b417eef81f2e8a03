#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Export: a disk by NBD, through the plugin of nbdkit, without root.
# The commands are for the shell that nbdkit starts, which finds $uri.
# shellcheck disable=SC2016
load common

U1=11111111-1111-4111-8111-111111111111

own_setup() {
	require nbdkit nbdinfo nbdcopy qemu-img qemu-io
	[ -f "$PLOOP_BUILD/nbdkit-ploop-plugin.so" ] || skip "the plugin was not built"
}

own_teardown() {
	local pid
	[ ! -d run ] || ploop -v-1 umount --all
	! mountpoint -q small || umount small
	[ -f pid ] || return 0
	pid=$(cat pid)
	kill "$pid" 2>/dev/null
	for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || return 0; sleep 0.05; done
	kill -9 "$pid"
}

new_disk() {
	ploop -v-1 init -s "${1:-16m}" -b 128 -t none root.hds
}

# with OPTIONS.. DISK COMMAND: runs it with the export in $uri.
with() {
	ploop export --run "${*: -1}" "${@:1:$#-1}"
}

random() {
	dd if=/dev/urandom bs=64k count="$1" status=none
}

@test "nbdinfo sees all that the plugin can" {
	new_disk
	run with . 'nbdinfo "$uri"'
	status_is 0
	for word in "export-size: 16777216" "is_read_only: false" "can_fast_zero: true" "can_flush: true" "can_fua: true" \
		"can_multi_conn: true" "can_trim: true" "can_zero: true" "block_size_minimum: 512" "base:allocation"; do
		output_has "$word"
	done
}

@test "nbdcopy both ways, and qemu-img compare" {
	new_disk
	random 100 >data.raw
	truncate -s 16m data.raw
	random 3 | dd of=data.raw bs=64k seek=150 conv=notrunc status=none
	with . 'nbdcopy --synchronous data.raw "$uri" && qemu-img compare -f raw -F raw data.raw "$uri"'
	with . 'nbdcopy data.raw "$uri"'
	qemu-img check -q -f parallels root.hds
	ploop check -s root.hds
	with -r . 'nbdcopy "$uri" back.raw && qemu-img convert -f raw -O raw "$uri" qemu.raw'
	cmp data.raw back.raw
	cmp data.raw qemu.raw
	# What was not there took no room, in the image either.
	[ "$(stat -c %b root.hds)" -lt $((110 * 128)) ]
}

@test "extents say where nothing is" {
	require jq
	new_disk
	qemu-io -f parallels -c "write -q 1M 64k" root.hds
	run with . 'nbdinfo --json --map "$uri"'
	status_is 0
	[ "$(jq -c '[.[] | [.offset, .length, .type]]' <<<"$output")" = "[[0,1048576,3],[1048576,65536,0],[1114112,15663104,3]]" ]
}

@test "trim and zero give room back, and what is zeroed reads as zeros" {
	new_disk
	random 256 >full.raw
	with . 'nbdcopy full.raw "$uri"'
	[ "$(stat -c %b root.hds)" -ge 32768 ]
	with . 'qemu-io -f raw -c "discard 0 4M" -c "write -q -z -u 8M 4M" -c "write -q -z 12M 100k" -c "write -q -f -z -u 4100k 3k" \
		-c "read -P 0 0 4M" -c "read -P 0 8M 4M" -c "read -P 0 12M 100k" -c "read -P 0 4100k 3k" "$uri"' | tee out
	run grep -c "Pattern verification failed" out
	[ "$output" = 0 ]
	[ "$(stat -c %b root.hds)" -le $((32768 - 2 * 8192 + 256)) ]
	dd if=/dev/zero of=full.raw bs=1M count=4 conv=notrunc status=none
	dd if=/dev/zero of=full.raw bs=1M seek=8 count=4 conv=notrunc status=none
	dd if=/dev/zero of=full.raw bs=1k seek=12288 count=100 conv=notrunc status=none
	dd if=/dev/zero of=full.raw bs=1k seek=4100 count=3 conv=notrunc status=none
	with -r . 'qemu-img compare -q -f raw -F raw full.raw "$uri"'
}

@test "several connections see one another's writes; fio verifies" {
	require fio
	new_disk 64m
	run with . 'fio --name=v --ioengine=nbd --uri="$uri" --rw=randrw --bsrange=512-64k --size=16m --numjobs=4 --offset_increment=16m \
		--iodepth=16 --io_size=16m --verify=crc32c --verify_fatal=1 --fsync=50 --group_reporting'
	status_is 0
	ploop check -s root.hds
}

@test "a snapshot beside the running disk, read-only" {
	require_root
	require jq
	[ -c /dev/fuse ] && [ -c /dev/loop-control ] || skip "no devices"
	export PLOOP_RUN_DIR=$PWD/run PLOOP_DEV_DIR=$PWD/dev
	mkdir run dev
	new_disk
	qemu-io -f parallels -c "write -q -P 7 0 1M" root.hds
	ploop -v-1 mount -d dev/ploop0 DiskDescriptor.xml
	ploop -v-1 snapshot -u "$U1" .
	dd if=/dev/zero of=dev/ploop0 bs=1M count=1 conv=notrunc oflag=direct status=none
	run with -u "$U1" . 'nbdinfo "$uri"; qemu-io -r -f raw -c "read -P 7 0 1M" "$uri"'
	# The disk itself is somebody else's.
	busy=0
	ploop export --run true . 2>err || busy=$?
	ploop -v-1 umount -d dev/ploop0
	status_is 0
	output_has "is_read_only: true"
	[[ "$output" != *"verification failed"* ]]
	[ "$busy" = 37 ]
	[ "$(wc -l <err)" = 1 ]
}

@test "export --nbd in the background: locks the disk, ends cleanly, and a stale socket is no hindrance" {
	new_disk
	ploop export --nbd sock --pid-file "$PWD/pid" .
	[ "$(nbdinfo --size "nbd+unix:///?socket=$PWD/sock")" = 16777216 ]
	run ploop export --nbd sock .
	status_is 17
	output_is_one_line
	run ploop export --nbd other .
	status_is 37
	run ploop check root.hds
	[ "$status" -ne 0 ]
	qemu-io -f raw -c "write -q -P 5 64k 64k" "nbd+unix:///?socket=$PWD/sock"
	own_teardown
	ploop check -s root.hds
	# Killed: recovered at the next opening, and what was flushed is there.
	rm -f sock
	ploop export --nbd sock --pid-file "$PWD/pid" .
	qemu-io -f raw -c "write -q -f -P 6 128k 64k" "nbd+unix:///?socket=$PWD/sock"
	kill -9 "$(cat pid)"
	for _ in $(seq 100); do kill -0 "$(cat pid)" 2>/dev/null || break; sleep 0.05; done
	rm pid
	[ -S sock ]
	ploop export --nbd sock --pid-file "$PWD/pid" .
	run qemu-io -r -f raw -c "read -P 5 64k 64k" -c "read -P 6 128k 64k" "nbd+unix:///?socket=$PWD/sock"
	[[ "$output" != *"verification failed"* ]]
}

@test "no root is needed" {
	require_root
	require setpriv
	new_disk
	chmod 711 "$BATS_TEST_TMPDIR" && chown -R 65534:65534 .
	chmod a+x .. ../..
	run setpriv --reuid=65534 --regid=65534 --clear-groups \
		"$(command -v ploop)" export --run 'qemu-io -f raw -c "write -P 3 0 64k" -c "read -P 3 0 64k" "$uri"' root.hds
	if [[ "$output" == *"Permission denied"* ]]; then skip "nobody cannot reach the build folder"; fi
	status_is 0
	output_has "read 65536/65536"
}

@test "errors are those of the disk: nothing there, no such snapshot, no room" {
	require_root
	require mkfs.ext4
	run ploop export --run true nowhere.xml
	status_is 4
	new_disk
	run ploop export --run true -u "$U1" .
	status_is 43
	run ploop export .
	status_is 38
	truncate -s 16M fs
	mkfs.ext4 -q fs
	mkdir small
	mount -o loop fs small || skip "no loop devices"
	ploop -v-1 init -s 64m -t none small/root.hds
	run with small 'qemu-io -f raw -c "write -q -P 1 0 32M" "$uri"'
	again=0
	ploop check -s small/root.hds || again=$?
	umount small
	output_has "No space left"
	[ "$again" = 0 ]
}
