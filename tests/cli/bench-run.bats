#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# bench/run: that it measures everything and cleans up. What it finds out about speed is not judged here, except where the
# limit is far away.
load common

own_setup() {
	require_root
	require fio qemu-img qemu-storage-daemon nbdkit nbdfuse jq
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	[ -c /dev/loop-control ] || skip "no loop devices"
	mkdir scratch
}

own_teardown() {
	[ -z "${pid-}" ] || kill "$pid" 2>/dev/null || true
}

own_options() {
	options=(--build "$PLOOP_BUILD" --dir "$PWD/scratch" --quick --seconds 0.1 --size 64 --first 500 --merge 32 --levels 20)
}

measure() {
	own_options
	"$PLOOP_SOURCE/bench/run" "${options[@]}" "$@"
}

# No file, mount or loop device below the test's own folder.
nothing_left() {
	[ -z "$(ls -A scratch)" ]
	! grep -F "$PWD/scratch" /proc/self/mountinfo
	! losetup --list --noheadings --output BACK-FILE | grep -F "$PWD/scratch"
}

@test "large disks stay within their limits" {
	run measure --only large
	status_is 0
	output_has "4 passed, 0 failed, 0 skipped"
	nothing_left
}

@test "all cells are measured, by ours and by all peers" {
	# A target that is missed gives 1: that is no concern of this test.
	measure --only process,first,device --json >result.json 2>log || [ $? -eq 1 ]
	[ "$(jq '.results | length' result.json)" -eq 16 ]
	[ "$(jq '[.results[].subjects[] | select(.problem or .rate <= 0 or .cpu_us < 0)] | length' result.json)" -eq 0 ]
	[ "$(jq .skipped result.json)" -eq 0 ]
	nothing_left
}

@test "depth is measured" {
	measure --only depth --json >result.json 2>log || [ $? -eq 1 ]
	[ "$(jq '.results | length' result.json)" -eq 7 ]
	[ "$(jq '[.results[] | .subjects[]? | select(.problem or .rate <= 0)] | length' result.json)" -eq 0 ]
	[ "$(jq .skipped result.json)" -eq 0 ]
	nothing_left
}

@test "merges are measured" {
	require mkfs.xfs
	measure --only merge --json >result.json 2>log || [ $? -eq 1 ]
	[ "$(jq '.results | length' result.json)" -eq 8 ]
	[ "$(jq '[.results[] | .subjects[]? | select(.problem or .rate <= 0)] | length' result.json)" -eq 0 ]
	[ "$(jq .skipped result.json)" -eq 0 ]
	nothing_left
}

@test "interrupted in the middle it leaves nothing behind" {
	own_options
	"$PLOOP_SOURCE/bench/run" "${options[@]}" --only device --seconds 60 >out 2>log 3>&- &
	pid=$!
	for _ in $(seq 300); do
		! grep -q "depth 1$" log || break
		sleep 0.1
	done
	grep -q "depth 1$" log
	sleep 0.5
	kill -TERM "$pid"
	wait "$pid" || [ $? -eq 143 ]
	nothing_left
}

@test "a section that does not exist is a mistake in one line" {
	run --separate-stderr measure --only nothing
	status_is 2
	# shellcheck disable=SC2154
	[[ "$stderr" == *"no section is called nothing"* ]]
}
