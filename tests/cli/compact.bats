#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Compaction: a disk takes no more room than its content, in use or not; what a dry run says is true; limits and interrupts.
load common
load devices

# disk [OPTIONS]: a disk, mounted at mnt.
disk() {
	mkdir d
	ploop -v-1 init -s 512m "$@" d/root.hds
	ploop -v-1 mount -m mnt d
}

# fragment FILES: files of some 20 to 200 KiB, two of three deleted, so that nearly every cluster is partly used.
fragment() {
	python3 - "$1" <<-'EOF'
		import os, random, sys
		rng, count = random.Random(1), int(sys.argv[1])
		for i in range(count):
		    with open(f"mnt/f{i}", "wb") as file:
		        file.write(os.urandom(rng.randint(20000, 200000)))
		os.sync()
		for i in range(count):
		    if rng.random() < 0.66:
		        os.unlink(f"mnt/f{i}")
	EOF
	sync -f mnt
	find mnt -name 'f*' -type f -exec sha256sum {} + >sums
}

same() {
	sha256sum --quiet -c sums
}

# used, length: KiB that the image holds on the host; and how long it is.
used() {
	echo $(($(stat -c %b d/root.hds) / 2))
}

length() {
	echo $(($(stat -c %s d/root.hds) / 1024))
}

# inside: KiB that the file system uses, with its own tables.
inside() {
	local overhead
	overhead=$(dumpe2fs -h dev/ploop0p1 2>/dev/null | awk -F: '/^Overhead clusters/ { print $2 * 4 }')
	echo $((overhead + $(df -k --output=used mnt | tail -1)))
}

# close_to BYTES BYTES: what goes on inside, and zeros that are not stored again, make a little difference.
close_to() {
	local difference=$(($1 > $2 ? $1 - $2 : $2 - $1))
	[ "$difference" -lt $((4 << 20)) ] || { echo "$1 is not $2" >&2; return 1; }
}

# is_moving: the image is being made shorter.
is_moving() {
	[ "$(ploop balloon status d)" = "Current state of in-kernel maintenance: RELOC" ]
}

# sound: not mounted any more, and without any fault.
sound() {
	ploop -v-1 umount d
	qemu-img check -q -f parallels d/root.hds
	ploop -v-1 check d
	ploop -v-1 mount -d dev/ploop9 d
	e2fsck -fn dev/ploop9p1 >fsck.log 2>&1 || { cat fsck.log >&2; return 1; }
	ploop -v-1 umount d
}

@test "a fragmented disk in use: what the dry run says goes back, and no more is held than inside" {
	require jq python3
	disk
	fragment 1200
	said=$(ploop compact --dry-run --json -m mnt | jq .freed)
	before=$(used)
	ploop compact --json -m mnt >result
	freed=$(((before - $(used)) * 1024))
	close_to "$(jq .freed result)" "$freed"
	[ "$freed" -gt $((60 << 20)) ]
	close_to "$said" "$freed"
	sync -f mnt
	[ "$(used)" -le $(($(inside) * 105 / 100)) ]
	clusters=$(ploop info --json d | jq .mapped)
	[ "$(length)" -le $((clusters * 110 / 102400 + 1024)) ]
	same
	[ "$(ploop compact --json d | jq .freed)" -le $((2 << 20)) ]
	sound
}

@test "the same, not mounted" {
	require jq python3
	disk
	fragment 600
	dd if=/dev/zero of=mnt/hole bs=1M count=60 status=none conv=fsync
	rm mnt/hole
	ploop -v-1 umount d
	said=$(ploop compact --dry-run --json d | jq .freed)
	before=$(used)
	ploop -v-1 compact d >out
	close_to "$said" $(((before - $(used)) * 1024))
	[ "$said" -gt $((20 << 20)) ]
	run ploop compact --json d/root.hds
	status_is 0
	[ "$(jq .freed <<<"$output")" = 0 ]
	ploop -v-1 mount -m mnt d
	same
	sound
}

@test "a file system that was left mounted is not believed" {
	require jq python3
	disk
	fragment 100
	ploop snapshot -u 11111111-2222-3333-4444-555555555555 --no-freeze d >/dev/null
	cp --sparse=always d/root.hds left.hds
	before=$(sha256sum <left.hds)
	ploop -v-1 umount d
	run ploop compact --json left.hds
	status_is 0
	output_has '"trimmed":false'
	output_has "not unmounted cleanly"
	ploop -v-1 mount -m mnt left.hds
	same
	ploop -v-1 umount left.hds
}

@test "XFS: in use, and mounted for the time" {
	require mkfs.xfs xfs_repair jq
	disk -t xfs
	dd if=/dev/urandom of=mnt/gone bs=1M count=60 status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count=20 status=none
	sum=$(sha256sum <mnt/kept)
	rm mnt/gone
	sync -f mnt
	ploop -v-1 compact d >out
	[ "$(used)" -le 71680 ]
	[ "$(length)" -le 81920 ]
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	dd if=/dev/urandom of=mnt/gone bs=1M count=30 status=none conv=fsync
	rm mnt/gone
	ploop -v-1 umount d
	run ploop compact d
	status_is 0
	output_has "--automount"
	ploop -v-1 compact --automount d
	[ "$(used)" -le 71680 ]
	nothing_left
	qemu-img check -q -f parallels d/root.hds
	ploop -v-1 mount -m mnt d
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
}

@test "snapshots stay what they are, and the top gives back what is its own" {
	require jq
	disk
	dd if=/dev/urandom of=mnt/old bs=1M count=20 status=none
	sync -f mnt
	ploop -v-1 snapshot -u 11111111-2222-3333-4444-555555555555 d
	before=$(sha256sum <d/root.hds)
	dd if=/dev/urandom of=mnt/gone bs=1M count=40 status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count=10 status=none
	sync -f mnt
	rm mnt/gone
	sum=$(cat mnt/old mnt/kept | sha256sum)
	[ "$(ploop compact --json d | jq .freed)" -ge $((30 << 20)) ]
	[ "$(sha256sum <d/root.hds)" = "$before" ]
	[ "$(cat mnt/old mnt/kept | sha256sum)" = "$sum" ]
	ploop -v-1 umount d
	ploop -v-1 mount -m mnt d
	[ "$(cat mnt/old mnt/kept | sha256sum)" = "$sum" ]
}

@test "--to-free, --timeout, --rate and ^C: less is done, and the next run does the rest" {
	require jq python3
	disk
	dd if=/dev/urandom of=mnt/gone bs=1M count=60 status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count=50 status=none
	sync -f mnt
	rm mnt/gone
	sum=$(sha256sum <mnt/kept)
	ploop compact --json --to-free 1m -m mnt >result
	[ "$(jq .enough result)" = true ]
	[ "$(jq .freed result)" -ge 1048576 ]
	long=$(length)
	ploop compact --json --rate 2m --timeout 1 d >result
	[ "$(jq .enough result)" = true ]
	ploop compact --rate 1m d >out 2>&1 &
	pid=$!
	wait_for is_moving
	run ploop snapshot d
	status_is 17
	kill -TERM $pid
	status=0
	wait $pid || status=$?
	status_is 29
	[ "$(ploop balloon status d)" = "Current state of in-kernel maintenance: OFF" ]
	ploop -v-1 compact d
	[ "$(length)" -lt $((long - 30000)) ]
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	sound
}

@test "who asked is killed: the device goes on, and complete waits for it" {
	disk
	dd if=/dev/urandom of=mnt/gone bs=1M count=50 status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count=40 status=none
	sync -f mnt
	rm mnt/gone
	ploop compact --rate 20m d >out 2>&1 &
	pid=$!
	wait_for is_moving
	kill -9 $pid
	wait $pid || true
	run ploop balloon clear d
	status_is 17
	output_has "because kernel is in \"RELOC\" state now"
	run ploop balloon change -s 10m d
	status_is 17
	output_has 'before previous balloon operation (RELOC) is completed. Use "ploop-balloon complete".'
	run ploop balloon complete d
	status_is 0
	output_has "TRUNCATED: "
	[ "$(ploop balloon clear d)" = "Current state of in-kernel maintenance is OFF now" ]
	[ "$(length)" -le 90000 ]
	sound
}

@test "umount does not wait for a slow compaction: it stops, and the next one does the rest" {
	local begin
	disk
	dd if=/dev/urandom of=mnt/gone bs=1M count=60 status=none
	dd if=/dev/urandom of=mnt/kept bs=1M count=50 status=none
	sync -f mnt
	rm mnt/gone
	sum=$(sha256sum <mnt/kept)
	ploop compact --rate 100k d >out 2>&1 &
	pid=$!
	wait_for is_moving
	begin=$SECONDS
	ploop umount d
	[ $((SECONDS - begin)) -lt 40 ] # all of it would take eight minutes
	! wait $pid || return 1
	ploop mount -m mnt d
	ploop compact d
	[ "$(length)" -le 90000 ]
	[ "$(sha256sum <mnt/kept)" = "$sum" ]
	sound
}

@test "balloon discard: the words of the original" {
	disk
	dd if=/dev/urandom of=mnt/gone bs=1M count=40 status=none
	sync -f mnt
	rm mnt/gone
	run ploop balloon discard --stat -m mnt
	status_is 0
	[[ ${lines[0]} =~ ^Balloon\ size:\ +0MB$ ]]
	[[ ${lines[1]} =~ ^Data\ size:\ +[0-9]+MB$ ]]
	[[ ${lines[2]} =~ ^Ploop\ size:\ +512MB$ ]]
	[[ ${lines[3]} =~ ^Image\ size:\ +[0-9]+MB$ ]]
	run ploop balloon discard --to-free 1 d
	status_is 38
	output_has "Can't shrink by less than 1048576 bytes"
	run ploop -v-1 balloon discard --defrag d
	status_is 0
	[[ $output =~ ^[0-9]+\ clusters\ have\ been\ relocated$ ]]
	[ "$(used)" -le 30000 ]
	run ploop balloon discard --no-such-option d
	status_is 1
	ploop -v-1 umount d
	run ploop balloon discard d
	status_is 38
	output_has "Unable to discard: image is not mounted"
	ploop -v-1 balloon discard --automount d
	nothing_left
}

@test "a raw image gives back its blocks; errors of the call" {
	disk -f raw
	dd if=/dev/urandom of=mnt/gone bs=1M count=40 status=none
	sync -f mnt
	before=$(used)
	rm mnt/gone
	ploop -v-1 compact d
	[ "$(used)" -le $((before - 35000)) ]
	run ploop compact
	status_is 38
	run ploop compact -d dev/ploop0 d
	status_is 38
	run ploop compact nothing
	[ "$status" -ne 0 ]
}
