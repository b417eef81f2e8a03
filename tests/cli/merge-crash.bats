#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Merges while others write to the device, and ploopd killed in the middle of them.
load common
load devices

writer=

own_teardown_writer() {
	[ -z "$writer" ] || kill "$writer" 2>/dev/null || :
}

teardown() {
	own_teardown_writer
	own_teardown
}

random() {
	dd if=/dev/urandom of=dev/ploop0 bs=1M seek="$1" count="$2" conv=notrunc oflag=direct status=none
}

# One disk of three levels, each with data.
stack() {
	ploop -v-1 init -s 64m -t none ploop.image
	ploop -v-1 mount -d dev/ploop0 ploop.image
	random 0 20
	ploop -v-1 snapshot -d dev/ploop0 delta
	random 7 20
	ploop -v-1 snapshot -d dev/ploop0 delta1
	random 14 20
}

@test "fio verifies what it writes while levels are merged" {
	require fio
	local i
	stack
	fio --name=mix --filename=dev/ploop0 --rw=randwrite --bssplit=512/10:4k/40:64k/40:256k/10 --blockalign=512 --direct=1 \
		--ioengine=libaio --iodepth=16 --size=48m --io_size=200m --verify=crc32c --verify_backlog=512 \
		--time_based --runtime=3 --output=fio.log 3>&- &
	writer=$!
	ploop -v-1 merge -d dev/ploop0 -l 0..2
	for ((i = 0; i < 2; i++)); do
		ploop -v-1 snapshot -d dev/ploop0 "again$i"
		ploop -v-1 snapshot -d dev/ploop0 "more$i"
		sleep 0.2
		ploop -v-1 merge -d dev/ploop0 -l 0..$((i % 2 + 1))
		ploop -v-1 merge -d dev/ploop0 || true
	done
	wait "$writer" || { cat fio.log >&2; false; }
	writer=
	ploop -v-1 umount -d dev/ploop0
	qemu-img check -q -f parallels ploop.image
}

# At least three levels, each with data of the writer.
grow_stack() {
	local n
	for ((n = $(ploop list --json | jq '.devices[0].images | length'); n < 3; n++)); do
		sleep 0.3
		ploop -v-1 snapshot -d dev/ploop0 "delta.$1.$n"
	done
	sleep 0.3
}

@test "kill -9 of ploopd in the middle of merges: everything that was flushed is there" {
	require jq
	local line i device=$PWD/dev/ploop0 merge
	ploop -v-1 init -s 64m -t none ploop.image
	ploop -v-1 mount -d dev/ploop0 ploop.image
	mkfifo in out
	"$PLOOP_BUILD/tests/torture/flushed" -j 8 -t 60 -z "$device" <in >out 3>&- &
	writer=$!
	exec 8>in 9<out
	read -r -t 30 line <&9
	for ((i = 0; i < ${PLOOP_TEST_KILLS:-3}; i++)); do
		grow_stack "$i"
		# So slow that the kill comes before the end.
		ploop merge -d dev/ploop0 --rate 40m >merge.log 2>&1 3>&- 8>&- 9<&- &
		merge=$!
		wait_for sh -c 'ploop merge -d dev/ploop0 --status | grep -q "^running\|^done"'
		sleep "0.$((RANDOM % 9))"
		ploop merge -d dev/ploop0 --status >>states
		kill_daemon
		wait "$merge" || :
		read -r -t 30 line <&9
		[[ "$line" == stopped* ]]
		ploop -v-1 umount -d dev/ploop0
		ploop -v-1 mount -d dev/ploop0 .
		echo "$device" >&8
		read -r -t 60 line <&9
		[ "$line" = verified ] || { echo "$line" >&2; false; }
	done
	cat states
	exec 8>&- 9<&-
	kill "$writer"
	wait "$writer" || :
	writer=
	grep -q '^running' states
	if [ "$(ploop list --json | jq '.devices[0].images | length')" -gt 1 ]; then ploop -v-1 merge -d dev/ploop0; fi
	ploop -v-1 umount -d dev/ploop0
	run qemu-img check -f parallels ploop.image
	status_is 0
}

@test "kill -9 of ploop: the merge goes on, and the disk is right afterwards" {
	require jq
	local before
	stack
	before=$(sha256sum <dev/ploop0)
	ploop -v-1 merge -d dev/ploop0 -l 0..2 --rate 12m 3>&- &
	wait_for sh -c 'ploop merge -d dev/ploop0 --status --json | jq -e ".done > 0"'
	kill -9 $!
	wait_for sh -c 'ploop merge -d dev/ploop0 --status --json | jq -e ".state == \"done\""'
	[ "$(sha256sum <dev/ploop0)" = "$before" ]
	random 5 30
	before=$(sha256sum <dev/ploop0)
	ploop -v-1 umount -d dev/ploop0
	# What the merge has left marked as temporary goes.
	ploop -v-1 mount -d dev/ploop0 .
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 1 ]
	[ "$(sha256sum <dev/ploop0)" = "$before" ]
	ploop -v-1 umount -d dev/ploop0
}

@test "kill -9 of ploop while it merges images: they are the same disk, and merging again ends it" {
	local before i
	stack
	before=$(sha256sum <dev/ploop0)
	ploop -v-1 umount -d dev/ploop0
	for i in 1 3; do
		ploop -v-1 merge --rate 50m delta1 delta ploop.image 3>&- &
		sleep "0.$i"
		kill -9 $!
		wait $! || :
		ploop -v-1 mount -r -d dev/ploop0 .
		[ "$(sha256sum <dev/ploop0)" = "$before" ]
		ploop -v-1 umount -d dev/ploop0
	done
	ploop -v-1 merge delta1 delta ploop.image
	ploop -v-1 mount -r -d dev/ploop0 ploop.image
	[ "$(sha256sum <dev/ploop0)" = "$before" ]
	ploop -v-1 umount -d dev/ploop0
	qemu-img check -q -f parallels ploop.image
}
