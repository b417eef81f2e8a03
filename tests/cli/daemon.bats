#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# ploopd itself: what it does to its process, its namespace, its socket; list and stat.
load common
load devices

# ask NAME LINE..: sends lines to the control socket, prints what comes back.
ask() {
	local name=$1
	shift
	python3 - "run/$name/control" "$@" <<-'EOF'
		import socket, sys
		s = socket.socket(socket.AF_UNIX)
		s.settimeout(5)
		s.connect(sys.argv[1])
		try:
		    for line in sys.argv[2:]:
		        s.sendall(line.encode() + b"\n")
		        if line.startswith("{"):
		            print(s.makefile().readline(), end="")
		except OSError:
		    pass  # it hung up, as it may
	EOF
}

hello='{"id":0,"verb":"hello","protocol":1}'

@test "the process: no terminal, no folder, no files of the caller, flags for I/O under memory pressure" {
	new_image a.hds
	exec 8<a.hds
	ploop mount --log "$PWD/log" a.hds
	exec 8<&-
	for pid in $(daemon_pid) $(engine_pid); do
		[ "$(readlink "/proc/$pid/cwd")" = / ]
		[ "$(readlink "/proc/$pid/fd/0")" = /dev/null ]
		[ "$(ps -o sid= -p "$pid" | tr -d ' ')" = "$(daemon_pid)" ]
		for fd in "/proc/$pid"/fd/*; do
			[[ "$(readlink "$fd")" != /dev/pts/* ]]
		done
	done
	open=0
	for fd in "/proc/$pid"/fd/*; do
		if [ "$fd" -ef a.hds ]; then open=$((open + 1)); fi
	done
	[ "$open" = 2 ] # the image, and its lock
	# Every thread: PF_MEMALLOC_NOIO is 0x80000 of the flags, the 9th field of stat; the process may lack the right to set it.
	if ! grep -q PR_SET_IO_FLUSHER log; then
		for stat in "/proc/$pid"/task/*/stat; do
			flags=$(sed 's/.*) //' "$stat" | cut -d' ' -f7)
			[ $((flags & 0x80000)) -ne 0 ]
		done
	fi
	locked=$(sed -n 's/^VmLck:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$pid/status")
	[ "$locked" -gt 0 ]
}

no_loop_on() {
	[ -z "$(losetup -j "$1")" ]
}

@test "the daemon keeps nobody's file system busy" {
	require unshare
	new_image a.hds
	mkdir other
	mount -t tmpfs none other
	ploop mount a.hds
	umount other
	[ ! -s "/proc/$(daemon_pid)/mountinfo" ] && [ ! -s "/proc/$(engine_pid)/mountinfo" ]
	# A block device says it best: it can be detached only when nobody has the file system any more.
	truncate -s 8M ext
	mkfs.ext4 -q ext
	mount -o loop ext other
	new_image b.hds
	ploop mount b.hds
	umount other
	wait_for no_loop_on ext # anybody's new namespace has it, for a moment
}

@test "a mount namespace that ends with our device in it: no hang, nothing lost" {
	require unshare
	new_disk a.hds
	timeout 20 unshare -m sh -c 'mount -t tmpfs none /run/mount && ploop mount -m mnt a.hds >/dev/null && echo inside >mnt/file'
	is_not_mounted mnt
	[ "$(ploop list | wc -l)" = 1 ]
	node=$(node_of ploop0)
	ploop umount a.hds
	is_detached "$node"
	ploop mount -m mnt a.hds
	[ "$(cat mnt/file)" = inside ]
}

@test "the run directory is closed to others" {
	new_image a.hds
	ploop mount a.hds
	[ "$(stat -c %a run/ploop0)" = 700 ]
	mkdir -p deep
	new_image b.hds
	PLOOP_RUN_DIR=$PWD/deep/run ploop mount b.hds -d ploop5
	[ "$(stat -c %a deep/run)" = 755 ]
	PLOOP_RUN_DIR=$PWD/deep/run ploop umount --all
	[ "$(stat -c %a run/ploop0/control)" = 600 ]
}

@test "the socket: hello first, right version, known verbs" {
	new_image a.hds
	ploop mount a.hds
	run ask ploop0 "$hello" '{"id":1,"verb":"status"}'
	output_has '"device":"ploop0"'
	output_has "\"images\":[\"$PWD/a.hds\"]"
	run ask ploop0 '{"id":1,"verb":"status"}'
	output_has '"ok":false'
	run ask ploop0 '{"id":0,"verb":"hello","protocol":99}' '{"id":1,"verb":"status"}'
	output_has '"status":13'
	[ "$(grep -c '"ok":false' <<<"$output")" = 2 ]
	run ask ploop0 "$hello" '{"id":1,"verb":"frobnicate"}'
	output_has 'does not know'
	run ask ploop0 "$hello" '{"id":1,"verb":"stop","force":"yes"}'
	output_has '"ok":false'
	run ask ploop0 "$hello" 'nonsense' '{"id":1,"verb":"status"}'
	[[ "$output" != *images* ]]
	[ -b dev/ploop0 ]
}

@test "the socket answers nobody but its owner and root, even when it can be reached" {
	new_image a.hds
	ploop mount a.hds
	run ask ploop0 "$hello"
	output_has '"ok":true'
	chmod 755 run/ploop0
	chmod 666 run/ploop0/control
	# Whether the folders above let it through is not asked: it is there already.
	run python3 - "$hello" <<-'EOF'
		import os, socket, sys
		os.chdir("run/ploop0")
		os.setgroups([])
		os.setuid(65534)
		s = socket.socket(socket.AF_UNIX)
		s.settimeout(5)
		s.connect("control")
		try:
		    s.sendall(sys.argv[1].encode() + b"\n")
		    print("answer:", s.makefile().readline())
		except OSError:
		    print("answer:")
	EOF
	status_is 0
	[ "$output" = "answer: " ] || [ "$output" = "answer:" ]
}

@test "a flood of requests, and clients that go away, do it no harm" {
	new_image a.hds
	ploop mount a.hds
	python3 - <<-'EOF'
		import socket
		hello = b'{"id":0,"verb":"hello","protocol":1}\n'
		clients = []
		for i in range(40):
		    s = socket.socket(socket.AF_UNIX)
		    s.connect("run/ploop0/control")
		    s.sendall(hello + b'{"id":1,"verb":"stat"}\n' * 200)
		    clients.append(s)
		for s in clients:
		    s.close()
		s = socket.socket(socket.AF_UNIX)
		s.connect("run/ploop0/control")
		s.settimeout(20)
		s.sendall(hello + b'{"id":1,"verb":"stat"}\n' * 2000)
		s.shutdown(socket.SHUT_WR)
		assert len(s.makefile().readlines()) == 2001
	EOF
	run ploop stat -d ploop0
	status_is 0
	ploop umount a.hds
	nothing_left
}

@test "stat: the counters, cleared and loaded" {
	new_image a.hds
	ploop mount a.hds
	dd if=/dev/urandom of=dev/ploop0 bs=1M count=2 oflag=direct status=none
	run ploop stat -d ploop0
	status_is 0
	[[ "$output" =~ bio_in\ +$'\t'[1-9] ]]
	[ "$(ploop stat -d ploop0 --json | jq .write_bytes)" = $((2 << 20)) ]
	ploop stat -c -d "$PWD/dev/ploop0"
	[ "$(ploop stat -d ploop0 --json | jq .write_bytes)" = 0 ]
	printf 'bio_in 7\nbio_out 8\n' | ploop stat -l -d ploop0
	[ "$(ploop stat -d ploop0 --json | jq .bio_out)" = 8 ]
	run ploop stat -l -d ploop0 <<<"no_such 1"
	[ "$status" -ne 0 ]
	output_has 'Variable "no_such" is missing'
	run ploop stat -d ploop9
	status_is 9
	output_is_one_line
}

@test "list: nothing, one, and as JSON" {
	run ploop list
	status_is 0
	[ -z "$output" ]
	new_disk a.hds
	ploop mount -m mnt -c name a.hds
	run ploop list
	[ "$output" = "ploop0       $PWD/a.hds name" ]
	run ploop list -a
	[ "$output" = "ploop0       $PWD/a.hds $PWD/mnt name" ]
	ploop list --json >json
	[ "$(jq -r '.devices[0].device' json)" = "$PWD/dev/ploop0" ]
	[ "$(jq -r '.devices[0].mount_points[0]' json)" = "$PWD/mnt" ]
	[ "$(jq -r '.devices[0].size' json)" = $((64 << 20)) ]
}

@test "getdev, start, stop, clear, delete" {
	run ploop getdev
	status_is 0
	[ "$output" = "Next unused minor: 0" ]
	new_image a.hds
	ploop mount a.hds
	[ "$(ploop getdev)" = "Next unused minor: 1" ]
	ploop start -d ploop0
	run ploop clear -d ploop0
	status_is 3
	run ploop delete -d ploop0 -l 0
	status_is 3
	ploop stop -d ploop0
	nothing_left
	ploop clear -d ploop0
	run ploop start -d ploop0
	status_is 2
	run ploop stop -d ploop0
	status_is 2
	new_disk b.hds
	ploop mount -m mnt b.hds
	run ploop stop -d ploop0
	status_is 3
	mountpoint -q mnt
}

@test "where systemd runs: a scope of its own; without its help, as elsewhere" {
	require unshare
	new_image a.hds
	mkdir bin
	cat >bin/systemd-run <<-'EOF'
		#!/bin/bash
		echo "$*" >>systemd-run.log
		[ ! -e broken ] || exit 1
		while [[ $1 == --* ]]; do shift; done
		exec "$@"
	EOF
	chmod +x bin/systemd-run
	# shellcheck disable=SC2016
	as_with_systemd='[ -d /run/systemd ] || { mount -t tmpfs none /run && mkdir /run/systemd; }
		mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && PATH=$PWD/bin:$PATH ploop -v-1 mount a.hds'
	unshare -m bash -ec "$as_with_systemd"
	grep -q -- "--scope .*--slice=system.slice .*/ploopd $PWD/a.hds$" systemd-run.log
	ploop umount a.hds
	touch broken
	unshare -m bash -ec "$as_with_systemd"
	[ "$(wc -l <systemd-run.log)" = 2 ]
	ploop umount a.hds
	PLOOP_NO_SYSTEMD=1 unshare -m bash -ec "$as_with_systemd"
	[ "$(wc -l <systemd-run.log)" = 2 ]
	ploop umount a.hds
	nothing_left
}

@test "ploopd without a request, and its version" {
	run ploopd --foreground </dev/null
	[ "$status" -ne 0 ]
	output_has "no request on standard input"
	run ploopd --version
	status_is 0
	output_has "ploopd "
}
