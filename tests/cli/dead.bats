#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Daemons that are killed, callers that are killed, and the names and devices that stay.
load common
load devices

@test "a killed daemon: list shows it as dead, umount clears it" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	node=$(node_of ploop0)
	kill_daemon ploop0
	run ploop list -a
	status_is 0
	output_has "ploop0       $PWD/a.hds $PWD/mnt (dead)"
	run ploop list --json
	output_has '"state":"dead"'
	run ploop umount -m mnt
	status_is 0
	nothing_left
	is_detached "$node"
}

@test "a killed daemon: gc --devices names the device and where it is mounted, and removes both" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	kill_daemon ploop0
	run ploop gc --devices
	status_is 0
	output_has "device   $PWD/dev/ploop0"
	output_has "mount    $PWD/mnt"
	[ "$(ploop gc --devices --json | jq -c '[.leftovers[] | .kind, .removed]')" = '["device",false,"mount",false]' ]
	run ploop gc --devices --remove
	status_is 0
	output_has "mount    $PWD/mnt  removed"
	nothing_left
}

@test "a killed daemon: umount of its disk, its device, or all" {
	new_disk a.hds
	for how in a.hds "-d ploop0" --all; do
		ploop mount -m mnt a.hds
		kill_daemon ploop0
		# shellcheck disable=SC2086
		run ploop umount $how
		status_is 0
		nothing_left
	done
}

@test "a killed daemon under a busy file system is cleared too" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	node=$(node_of ploop0)
	exec 7>mnt/open
	kill_daemon ploop0
	run ploop umount -m mnt
	status_is 0
	nothing_left
	exec 7>&-
	wait_for is_detached "$node"
}

@test "the next mount clears the dead device and recovers the image" {
	new_disk a.hds
	ploop mount -m mnt a.hds
	echo flushed >mnt/file
	sync -f mnt/file
	kill_daemon ploop0
	run ploop mount -m mnt a.hds
	status_is 0
	output_has "Clearing"
	[ "$(ploop list | wc -l)" = 1 ]
	[ "$(cat mnt/file)" = flushed ]
	ploop umount -m mnt
	qemu-img check -q -f parallels a.hds
	nothing_left
}

@test "-d of a dead device says how to clear it" {
	new_image a.hds
	new_image b.hds
	ploop mount -d ploop4 a.hds
	kill_daemon ploop4
	run ploop mount -d ploop4 b.hds
	status_is 17
	output_has "ploop umount -d $PWD/dev/ploop4"
	ploop umount -d ploop4
	ploop mount -d ploop4 b.hds
}

@test "clearing a dead device leaves a loop device alone that somebody else uses by now" {
	new_image a.hds
	ploop mount --front-end fuse a.hds
	node=$(node_of ploop0)
	kill_daemon ploop0
	losetup -d "$node"
	wait_for is_detached "$node"
	truncate -s 8M other
	losetup "$node" other
	run ploop umount a.hds
	status_is 0
	run losetup "$node"
	status_is 0
	output_has other
	losetup -d "$node"
	nothing_left
}

@test "a caller that dies before it says keep takes the device along" {
	require jq
	new_image a.hds
	mkfifo in
	PLOOPD_REQUEST=$(jq -cn --arg image "$PWD/a.hds" '{protocol: 1, operands: [$image]}')
	# nc and socat are not everywhere: python speaks for the caller.
	python3 - "$PLOOPD_REQUEST" <<-'EOF'
		import os, socket, subprocess, sys
		ours, theirs = socket.socketpair()
		subprocess.run([os.environ["PLOOP_BUILD"] + "/ploopd"], stdin=theirs, check=True)
		theirs.close()
		ours.sendall(sys.argv[1].encode() + b"\n")
		answer = ours.makefile().readline()
		assert '"ok":true' in answer, answer
		assert os.path.exists("run/ploop0/control")
	EOF
	wait_for is_gone run/ploop0
	nothing_left
}

@test "requests that are none: an answer, and no daemon stays" {
	for request in '{}' 'nonsense' '{"protocol":99,"operands":["/x"]}' '{"protocol":1,"operands":["relative"]}'; do
		run python3 - "$request" <<-'EOF'
			import os, socket, subprocess, sys
			ours, theirs = socket.socketpair()
			subprocess.run([os.environ["PLOOP_BUILD"] + "/ploopd"], stdin=theirs, check=True)
			theirs.close()
			ours.sendall(sys.argv[1].encode() + b"\n")
			print(ours.makefile().read())
		EOF
		status_is 0
		output_has '"ok":false'
	done
	nothing_left
}

@test "mount killed at any moment leaves a usable device or nothing" {
	new_disk a.hds
	for delay in 0.001 0.005 0.01 0.015 0.02 0.03 0.04; do
		timeout -s KILL "$delay" ploop mount -m mnt a.hds 3>&- || true
		# It may take a moment until the daemon has seen it.
		sleep 0.3
		run ploop list
		[[ "$output" != *dead* ]]
		if mountpoint -q mnt; then
			ploop umount -m mnt
		else
			wait_for nothing_left
		fi
	done
	nothing_left
}
