#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Backups: full ones and increments, of disks in use and at rest, over crashes; restoring them; and the dirty bitmaps behind it.
# shellcheck disable=SC2030,SC2031
load common
load devices

# new_source [INIT OPTION..]: a mounted disk of 64 MiB with data in it, as $DEV.
new_source() {
	mkdir source
	ploop -v-1 init -s 64m -t none "$@" source/root.hds
	mount_source
	fill 0 10
	fill 30 7
}

mount_source() {
	ploop -v-1 mount source
	DEV=$PWD/dev/ploop0
	[ -b "$DEV" ]
}

# fill MIB COUNT: random data.
fill() {
	dd if=/dev/urandom of="$DEV" bs=1M seek="$1" count="$2" oflag=direct conv=notrunc status=none
}

# change N: some of all that can happen to a cluster, elsewhere for each N.
change() {
	dd if=/dev/urandom of="$DEV" bs=4k seek=$((700 + 300 * $1)) count=3 oflag=direct conv=notrunc status=none
	dd if=/dev/zero of="$DEV" bs=64k seek=$((40 + 8 * $1)) count=5 oflag=direct conv=notrunc status=none
	blkdiscard -o $(((30 + $1) * 1048576)) -l 1048576 "$DEV"
	fill $((50 + $1)) 1
}

# backup FILE [OPTION..]: a backup of the source, whose UUID is in $uuid.
backup() {
	local file=$1
	shift
	uuid=$(ploop backup --json -o "$file" "$@" source | jq -r .uuid)
	[ ${#uuid} = 38 ]
}

# same_disk BACKUP..: what these give is what is on the device.
same_disk() {
	rm -rf restored
	ploop -v-1 restore -d restored "$@"
	ploop -v-1 check restored
	ploop -v-1 mount -r restored
	cmp "$DEV" dev/ploop1
	ploop -v-1 umount -d dev/ploop1
}

dirty() {
	ploop cbt show --json source | jq ".bitmaps[] | select(.uuid == \"$1\") | .dirty"
}

nothing_unfinished() {
	! compgen -G '*.ploop-part' >&2
}

@test "full and increments: in use, at rest, over umount, crash and snapshot" {
	new_source
	backup full
	change 0
	backup one --since "$uuid"
	[ "$(stat -c %s one)" -lt 4000000 ]
	same_disk full one

	# At rest, and written by another device.
	change 1
	ploop umount source
	[ "$(dirty "$uuid")" -lt 4000000 ]
	backup two --since "$uuid" --compress
	[ "$(stat -c %s two)" -lt 4000000 ]
	mount_source
	change 2
	backup three --since "$uuid"
	[ "$(stat -c %s three)" -lt 4000000 ]
	same_disk full one two three

	# A crash: everything may have changed.
	change 3
	kill_daemon
	timeout 20 bash -c 'until ploop list | grep -q "(dead)"; do sleep 0.05; done'
	ploop umount -d "$DEV"
	[ "$(dirty "$uuid")" = 67108864 ]
	mount_source
	change 4
	backup four --since three
	same_disk full one two three four

	# The bitmap goes with the disk, whatever image is its top.
	change 5
	ploop snapshot source
	change 6
	backup five --since "$uuid"
	[ "$(stat -c %s five)" -lt 8000000 ]
	same_disk full one two three four five
	change 7
	ploop umount source
	ploop snapshot source
	mount_source
	change 8
	ploop snapshot-merge source
	backup six --since "$uuid"
	[ "$(stat -c %s six)" -lt 9000000 ]
	same_disk full one two three four five six
	nothing_unfinished
}

@test "nothing is lost between two increments while requests go on" {
	require fio
	local i files=(full)
	new_source -b 64
	fio --name=w --filename="$DEV" --rw=randwrite --bs=4k --direct=1 --ioengine=psync --time_based --runtime=60 \
		--rate_iops=2000 --output=/dev/null 3>&- &
	writer=$!
	backup full
	for i in 1 2 3; do
		backup "inc$i" --since "$uuid"
		files+=("inc$i")
	done
	kill "$writer"
	wait "$writer" || :
	backup last --since "$uuid"
	same_disk "${files[@]}" last
}

@test "a disk that grew and one that shrank" {
	new_source
	backup full
	ploop -v-1 resize -s 96m -d "$DEV" || ploop -v-1 grow -s 96m -d "$DEV"
	fill 80 2
	backup one --since "$uuid"
	same_disk full one
	ploop umount source
	mount_source
	change 0
	backup two --since "$uuid"
	[ "$(stat -c %s two)" -lt 4000000 ]
	same_disk full one two
}

@test "a wrong order, a missing link, and what is no backup" {
	new_source
	backup full
	change 0
	backup one --since "$uuid"
	change 1
	backup two --since "$uuid"
	run ploop restore -d x full two
	status_is 38
	output_has "one is missing, or the order is wrong"
	run ploop restore -d x one two
	status_is 38
	output_has "give that first"
	run ploop restore -d x full full
	status_is 38
	output_has "it comes first"
	ploop copy -s "$DEV" | cat >taken
	run ploop restore -d x taken
	status_is 38
	output_has "ploop copy -d"
	run bash -c "cat full | ploop copy -d x"
	status_is 38
	output_has "ploop restore"
	run ploop restore -d source full
	status_is 1
	[ ! -e x ]
	nothing_unfinished
}

@test "damaged files are refused, and nothing is left of them" {
	new_source
	backup full
	local size i
	size=$(stat -c %s full)
	for i in 50 100 200 $((size / 2)) $((size - 30)); do
		cp full bad
		printf '\x5a\xa5' | dd of=bad bs=1 seek="$i" conv=notrunc status=none
		run ploop restore -d x bad
		status_is 13
		[ ! -e x ]
	done
	head -c $((size - 100)) full >bad
	run ploop -v-1 restore -d x bad
	status_is 6
	output_is_one_line
	[ ! -e x ]
	nothing_unfinished
}

@test "a backup that breaks off leaves the bitmap of before" {
	new_source
	backup full
	change 0
	run ploop backup --since "$uuid" -o full source
	status_is 1
	ploop backup --since "$uuid" --rate 1m -o broken source 3>&- &
	local pid=$!
	timeout 20 bash -c 'until [ -s broken.ploop-part ]; do sleep 0.05; done'
	kill -9 "$pid"
	wait "$pid" || :
	rm -f broken.ploop-part
	timeout 20 bash -c "until ploop cbt show --json source | jq -e '.bitmaps | length == 1'; do sleep 0.1; done"
	backup one --since "$uuid"
	same_disk full one
	run ploop backup --since "{11111111-2222-3333-4444-555555555555}" -o y source
	status_is 44
	output_has "make a full backup"
	[ ! -e y ]
	nothing_unfinished
}

@test "to standard output, and of a raw disk, which has no place for a bitmap" {
	new_source -f raw
	ploop backup -o - source >full 2>messages
	grep -q "next backup is a full one" messages
	same_disk full
	[ "$(ploop cbt show --json source | jq '.bitmaps | length')" = 0 ]
	ploop umount source
	ploop backup -o rest source
	mount_source
	same_disk rest
}

@test "cbt: start, show, dump, diff, drop; mounted and not" {
	local one two
	new_source
	one=$(ploop cbt start source)
	fill 5 1
	ploop cbt dump -u "$one" --dst a source
	[ "$(jq -c .dirty a)" = '[{"offset":5242880,"length":1048576}]' ]
	two=$(ploop cbt start -u 99999999-8888-7777-6666-555555555555 source)
	[ "$two" = "{99999999-8888-7777-6666-555555555555}" ]
	fill 7 1
	ploop cbt dump -u "$two" --dst b "$DEV"
	ploop cbt dump -u "$one" --dst c source
	[ "$(ploop cbt diff a c)" = "+ 7340032 1048576" ]
	[ "$(ploop cbt diff c b)" = "- 5242880 1048576" ]
	[ "$(ploop cbt diff --json a a)" = '{"differences":[]}' ]
	ploop umount source
	ploop cbt dump -u "$one" --dst d --src source/root.hds
	cmp c d
	run ploop cbt show --image source/root.hds
	output_has "$one"
	output_has "1 MiB"
	run ploop cbt dump source
	status_is 38
	output_has "say which"
	ploop cbt drop -u "$one" source
	run ploop cbt drop -u "$one" source
	status_is 44
	ploop check source
	mount_source
	ploop cbt drop source
	[ "$(ploop cbt show --json source | jq -c .)" = '{"bitmaps":[],"size":67108864}' ]
	for _ in 1 2 3 4; do ploop cbt start source; done
	run ploop cbt start source
	status_is 38
	output_has "ploop cbt drop"
	ploop umount source
	ploop check source
}
