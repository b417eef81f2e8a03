#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# The engine dies, or gives its place to another one, and nobody notices. (That all die at once is dead.bats'.)
load common
load devices

setup_file() {
	export PLOOPD_CRASHES=100
}

is_served_by_another() {
	local now
	now=$(engine_pid)
	[ "$now" != "$1" ] && [ -e run/ploop0/control ] && ! is_dead "$now"
}

kill_engine() {
	local pid
	pid=$(engine_pid)
	kill -9 "$pid"
	wait_for is_served_by_another "$pid"
}

# The kernel must give requests again that a dead server took (Linux 6.9).
require_resend() {
	local have
	have=$(uname -r | cut -d. -f1-2)
	[ "$(printf '%s\n' 6.9 "$have" | sort -V | head -n 1)" = 6.9 ] || skip "Linux $have does not give requests again"
}

@test "an engine that is killed is replaced: what was written is there, flushed or not" {
	require_resend
	new_disk a.hds
	ploop mount -m mnt a.hds
	keeper=$(daemon_pid)
	dd if=/dev/urandom of=data bs=1M count=8 status=none
	for i in 1 2 3; do
		dd if=data of="mnt/$i" bs=256k oflag=direct status=none
		kill_engine
	done
	[ "$(daemon_pid)" = "$keeper" ]
	echo 3 >/proc/sys/vm/drop_caches
	for i in 1 2 3; do cmp data "mnt/$i"; done
	run ploop list -a
	output_has "$PWD/mnt"
	[[ "$output" != *dead* ]]
	[ "$(ploop list --json | jq '.devices[0].engine')" = "$(engine_pid)" ]
	ploop umount -m mnt
	qemu-img check -q -f parallels a.hds
	nothing_left
}

@test "a keeper that is killed is replaced, and the new one does its work" {
	require_resend
	new_disk a.hds
	ploop mount -m mnt a.hds
	engine=$(engine_pid)
	keeper=$(daemon_pid)
	kill -9 "$keeper"
	has_another_keeper() { [ "$(daemon_pid)" != "$keeper" ]; }
	wait_for has_another_keeper
	[ "$(engine_pid)" = "$engine" ]
	echo more >mnt/file
	kill_engine
	[ "$(cat mnt/file)" = more ]
	ploop umount -m mnt
	nothing_left
}

@test "between two engines nobody else gets the image" {
	require_resend
	new_disk a.hds
	ploop mount -m mnt a.hds
	engine=$(engine_pid)
	kill -STOP "$(daemon_pid)"
	kill -9 "$engine"
	wait_for is_dead "$engine"
	run timeout 20 qemu-io -f parallels -c 'write 0 4k' a.hds
	status_is 1
	output_has "lock"
	kill -CONT "$(daemon_pid)"
	wait_for is_served_by_another "$engine"
	echo more >mnt/file
	ploop umount -m mnt
	nothing_left
}

@test "what the device has become stays: snapshots, another size, names" {
	require_resend
	require jq
	mkdir d
	ploop -v-1 init -s 64m d/root.hds
	ploop -v-1 mount -m mnt d/DiskDescriptor.xml
	echo one >mnt/one
	ploop -v-1 snapshot d/DiskDescriptor.xml
	echo two >mnt/two
	kill_engine
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 2 ]
	ploop -v-1 grow -s 128m -d dev/ploop0
	kill_engine
	[ "$(blockdev --getsize64 dev/ploop0)" -ge $((128 << 20)) ]
	ploop -v-1 snapshot d/DiskDescriptor.xml
	echo three >mnt/three
	kill_engine
	ploop -v-1 merge -d dev/ploop0
	kill_engine
	[ "$(cat mnt/one mnt/two mnt/three | xargs)" = "one two three" ]
	[ -b dev/ploop0p1 ]
	ploop -v-1 umount d/DiskDescriptor.xml
	ploop -v-1 mount -m mnt d/DiskDescriptor.xml
	[ "$(cat mnt/one mnt/two mnt/three | xargs)" = "one two three" ]
	ploop -v-1 umount d/DiskDescriptor.xml
	nothing_left
}

@test "one that dies again and again is given up: list says so, umount clears" {
	require_resend
	new_disk a.hds
	PLOOPD_CRASHES=3 ploop mount -m mnt a.hds
	kill_engine
	kill_engine
	kill -9 "$(engine_pid)"
	wait_for test -e run/ploop0/failed
	wait_for is_dead "$(daemon_pid)"
	run ploop list
	output_has "(dead: its ploopd died 3 times within 60 seconds"
	[ "$(ploop list --json | jq -r '.devices[0].state')" = failed ]
	ploop umount -m mnt
	nothing_left
	ploop mount -m mnt a.hds
	ploop umount -m mnt
}

@test "upgrade: another program serves, and nobody notices" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	cp "$PLOOP_BUILD/ploopd" other
	before=$(engine_pid)
	echo one >mnt/file
	ploop upgrade -d ploop0 --program other
	[ "$(engine_pid)" != "$before" ]
	[ "$(readlink "/proc/$(engine_pid)/exe")" = "$PWD/other" ]
	[ "$(readlink "/proc/$(daemon_pid)/exe")" = "$PWD/other" ]
	[ "$(cat mnt/file)" = one ]
	ploop upgrade --all
	[ "$(readlink "/proc/$(engine_pid)/exe")" != "$PWD/other" ]
	run ploop upgrade -d ploop0 --program /nonexistent
	[ "$status" -ne 0 ]
	# A program that cannot be run: the one that was there goes on.
	printf '#!/nonexistent\n' >broken
	chmod +x broken
	ploop upgrade -d ploop0 --program broken
	echo two >>mnt/file
	[ "$(xargs <mnt/file)" = "one two" ]
	ploop umount -m mnt
	qemu-img check -q -f parallels a.hds
	nothing_left
}

@test "a long operation keeps its engine: upgrade is refused" {
	require jq
	new_disk a.hds
	PLOOPD_ALONE=1 ploop mount -d ploop3 a.hds
	run ploop upgrade -d ploop3
	status_is 38
	output_has "runs alone"
	ploop umount -d ploop3
}
