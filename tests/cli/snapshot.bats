#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Snapshots: taken, listed, gone back to, deleted; what is interrupted; what is left over.
load common
load devices

A=11111111-aaaa-4bbb-8ccc-000000000001
B=11111111-aaaa-4bbb-8ccc-000000000002
C=11111111-aaaa-4bbb-8ccc-000000000003
TOP=5fbaabe3-6958-40ff-92a7-860e329aab41

new_ploop() {
	mkdir "${1:-d}"
	ploop -v-1 init -s "${2:-32m}" -t "${3:-none}" "${1:-d}/root.hds"
}

# chain DISK: the names from base to top, short.
uuids() {
	ploop snapshot-list -H -o uuid "$1" | tr -d '{}'
}

write_mark() {
	printf '%-512s' "$2" | dd of="$1" bs=512 seek="${3:-0}" conv=notrunc oflag=direct status=none
}

read_mark() {
	dd if="$1" bs=512 count=1 skip="${2:-0}" iflag=direct status=none | tr -d ' \0'
}

@test "snapshot of a disk that is not mounted: message, table, tree" {
	new_ploop
	run ploop -v0 snapshot -u "$A" d/DiskDescriptor.xml
	status_is 0
	[ "$output" = "ploop snapshot {$A} has been successfully created" ]
	run ploop snapshot-list d
	status_is 0
	[ "${lines[0]}" = "$(printf '%-38s %1s %-38s %s' PARENT_UUID C UUID FNAME)" ]
	[ "${lines[1]}" = "{00000000-0000-0000-0000-000000000000}   {$A} $PWD/d/root.hds" ]
	[[ "${lines[2]}" == "{$A} * {$TOP} $PWD/d/root.hds.{"* ]]
	run ploop snapshot-list -s -H -o current,uuid d
	[ "$output" = "* {$A}" ]
	run ploop snapshot-list -u "$A" -Ho uuid d
	[ "$output" = "{$A}" ]
	ploop snapshot-list --tree d | grep -q "^{$TOP} \*"
	[ "$(ploop snapshot-list --json d | jq -r '.snapshots[0].children')" = 1 ]
	qemu-img check -q -f parallels d/root.hds
	run ploop snapshot -u "{$A}" d
	status_is 38
	[ "$output" = "The snapshot {$A} already exist" ]
	run ploop snapshot -u "$TOP" d
	status_is 38
	output_has "Incorrect guid"
	run ploop snapshot -u xyz d
	status_is 38
	output_has "Incorrect uuid specified: xyz"
	[ ! -e d/DiskDescriptor.xml.journal ]
}

@test "without root: a disk of one's own" {
	require setpriv
	mkdir own
	ploop -v-1 init -s 32m -t none own/root.hds
	chown -R nobody own
	chmod 700 run
	chmod 711 "$BATS_RUN_TMPDIR" "$BATS_RUN_TMPDIR/test" .
	cp "$(command -v ploop)" anybodys
	as_nobody() { setpriv --reuid=nobody --clear-groups "$PWD/anybodys" "$@"; }
	as_nobody snapshot -u "$A" "$PWD/own"
	as_nobody snapshot-switch -u "$A" "$PWD/own"
	as_nobody snapshot-delete -u "$TOP" "$PWD/own"
	[ "$(uuids own)" = "$TOP" ]
	# One that root has mounted is seen by its locks.
	ploop mount own
	run as_nobody snapshot "$PWD/own"
	status_is 37
	[ "$(uuids own)" = "$TOP" ]
}

@test "snapshot-list: errors are 1" {
	new_ploop
	run ploop snapshot-list -o nonsense d
	status_is 1
	[ "$output" = "Unknown field: nonsense" ]
	run ploop snapshot-list -u "$A" d
	status_is 1
	[ "$output" = "Can't find snapshot by uuid {$A}" ]
	run ploop snapshot-list nowhere.xml
	status_is 1
}

@test "of a mounted disk: list, info and stat know the new stack, and the old top does not change" {
	new_ploop
	ploop mount d
	write_mark dev/ploop0 first
	ploop snapshot -u "$A" d
	before=$(sha256sum <d/root.hds)
	write_mark dev/ploop0 second
	ploop snapshot -u "$B" d
	write_mark dev/ploop0 third
	[ "$(sha256sum <d/root.hds)" = "$before" ]
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 3 ]
	[ "$(ploop info --json d | jq '.images | length')" = 3 ]
	ploop mount -r -u "$A" -c a d
	ploop mount -r -u "$B" -c b d
	[ "$(read_mark dev/ploop0)" = third ]
	[ "$(read_mark dev/ploop1)" = first ]
	[ "$(read_mark dev/ploop2)" = second ]
	ploop umount --all
	nothing_left
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
	ploop snapshot-switch -u "$A" d
	ploop mount d
	[ "$(read_mark dev/ploop0)" = first ]
}

@test "the file system in a snapshot is clean, and it is not frozen afterwards" {
	new_ploop d 64m ext4
	ploop mount -m mnt d
	echo before >mnt/file
	ploop snapshot -u "$A" d
	echo after >mnt/file
	ploop mount -r -u "$A" -c backup d
	run tune2fs -l dev/ploop1p1
	[[ "$output" != *needs_recovery* ]]
	mkdir old
	mount -o ro dev/ploop1p1 old
	[ "$(cat old/file)" = before ]
	umount old
	[ "$(cat mnt/file)" = after ]
}

@test "a file system that is mounted in another namespace only is frozen too" {
	require unshare
	new_ploop d 64m ext4
	ploop mount d
	mkfifo go
	unshare -m sh -c "mount $PWD/dev/ploop0p1 mnt && echo inside >mnt/file && echo ready >go && read -r _ <go" 3>&- &
	read -r _ <go
	is_not_mounted mnt
	ploop snapshot -u "$A" d
	ploop mount -r -u "$A" -c backup d
	run tune2fs -l dev/ploop1p1
	[[ "$output" != *needs_recovery* ]]
	echo >go
	wait
}

@test "a file system that somebody else froze: 17, nothing has changed, and it stays frozen" {
	require fsfreeze
	new_ploop d 64m ext4
	ploop mount -m mnt d
	fsfreeze -f mnt
	run ploop snapshot d
	frozen=0
	fsfreeze -u mnt || frozen=$?
	status_is 17
	output_has "frozen by somebody else"
	[ "$frozen" = 0 ]
	[ "$(uuids d)" = "$TOP" ]
	[ "$(find d -type f | wc -l)" = 3 ]
	ploop snapshot d
}

@test "snapshots under load: fio verifies, and requests wait for a moment only" {
	require fio
	new_ploop d 64m
	ploop mount d
	fio --name=load --filename=dev/ploop0 --rw=randwrite --bs=4k --size=48m --io_size=200m --direct=1 --ioengine=libaio \
		--iodepth=8 --verify=crc32c --verify_backlog=128 --verify_fatal=1 --time_based --runtime=9 --output=fio.log 3>&- &
	fio=$!
	for ((i = 0; i < 8; i++)); do
		ploop -v-1 snapshot d
		sleep 0.2
	done
	kill -0 "$fio"
	wait "$fio"
	read -r closed ns < <(ploop stat -d dev/ploop0 | awk '/^gate_closed/ { n = $NF } /^gate_ns/ { print n, $NF }')
	echo "$closed times, $((ns / closed / 1000)) us each"
	[ "$closed" = 8 ]
	[ $((ns / closed)) -lt 100000000 ]
	ploop umount d
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
}

@test "snapshot -d: repeated, without a descriptor, levels from the base up" {
	new_ploop
	rm d/DiskDescriptor.xml
	ploop mount d/root.hds
	write_mark dev/ploop0 0
	run ploop -v0 snapshot -d dev/ploop0 delta1
	status_is 0
	[ "$output" = "Creating snapshot dev=$PWD/dev/ploop0 img=delta1" ]
	write_mark dev/ploop0 1 2048
	ploop snapshot -F -d dev/ploop0 delta2
	[ "$(ploop list --json | jq -c '.devices[0].images')" = "[\"$PWD/d/root.hds\",\"$PWD/delta1\",\"$PWD/delta2\"]" ]
	run ploop snapshot -d dev/ploop0 delta1
	status_is 38
	ploop umount -d dev/ploop0
	ploop mount d/root.hds delta1 delta2
	[ "$(read_mark dev/ploop0)$(read_mark dev/ploop0 2048)" = 01 ]
}

@test "snapshot -d beside a descriptor keeps the two in step, or refuses" {
	new_ploop
	ploop mount d/root.hds
	run ploop snapshot -d dev/ploop0 elsewhere
	status_is 38
	output_has "must lie beside it"
	[ ! -e elsewhere ]
	ploop snapshot -d dev/ploop0 d/delta
	[ "$(ploop snapshot-list --json d | jq -r '.snapshots[] | select(.current).file')" = "$PWD/d/delta" ]
	ploop umount -d dev/ploop0
	ploop mount d
	[ "$(ploop list --json | jq -r '.devices[0].images[1]')" = "$PWD/d/delta" ]
	ploop umount -d dev/ploop0
	# A base that the descriptor knows as a snapshot is not the disk's top.
	ploop mount d/root.hds
	run ploop snapshot -d dev/ploop0 d/delta2
	status_is 39
	output_has "do not agree on the images"
	[ ! -e d/delta2 ]
}

@test "the device must not lie on itself" {
	new_ploop d 64m ext4
	ploop mount -m mnt d
	run ploop snapshot -d dev/ploop0 mnt/delta
	status_is 38
	output_has "must lie elsewhere"
}

@test "127 images are the limit" {
	# In memory, where hundreds of syncs cost nothing.
	mkdir d
	mount -t tmpfs tmpfs d
	ploop -v-1 init -s 32m -t none d/root.hds
	ploop -v-1 snapshot d
	for ((i = 0; i < 125; i++)); do
		ploop -v-1 snapshot d
	done
	run ploop snapshot d
	status_is 38
	[ "$output" = "Unable to create a snapshot. The maximum number of snapshots (126) has been reached" ]
	ploop mount d
	run ploop snapshot d
	status_is 38
}

@test "snapshot-switch: messages, and -D loses nothing" {
	new_ploop
	ploop snapshot -u "$A" d
	run ploop snapshot-switch -u "$TOP" d
	status_is 38
	[ "$output" = "Nothing to do, already on {$TOP} snapshot" ]
	run ploop snapshot-switch -u "$B" d
	status_is 38
	[ "$output" = "Can't find snapshot by uuid {$B}" ]
	ploop mount d
	run ploop snapshot-switch -u "$A" d
	status_is 38
	[ "$output" = "Unable to perform switch to snapshot operation on running device ($PWD/dev/ploop0)" ]
	write_mark dev/ploop0 precious
	ploop umount d
	ploop snapshot-switch -D -u "$A" d
	kept=$(uuids d | grep -v -e "$A" -e "$TOP")
	ploop mount -r -u "$kept" d
	[ "$(read_mark dev/ploop0)" = precious ]
	ploop umount d
	count=$(find d -name 'root.hds*' | wc -l)
	ploop snapshot-switch -u "$A" d
	[ "$(find d -name 'root.hds*' | wc -l)" = "$count" ]
	run ploop gc d
	[ -z "$output" ]
}

@test "snapshot-delete: a leaf, the top, the base, several children" {
	new_ploop
	ploop snapshot -u "$A" d
	run ploop snapshot-delete -u "$B" d
	status_is 43
	ploop mount d
	run ploop snapshot-delete -u "$TOP" d
	status_is 38
	[ "$output" = "Unable to delete active snapshot {$TOP}" ]
	write_mark dev/ploop0 gone
	ploop umount d
	run ploop -v0 snapshot-delete -u "$TOP" d
	status_is 0
	[ "$output" = "ploop snapshot {$TOP} has been successfully deleted" ]
	[ "$(uuids d)" = "$TOP" ]
	[ "$(find d -name 'root.hds*')" = d/root.hds ]
	run ploop snapshot-delete -u "$TOP" d
	status_is 38
	[ "$output" = "Unable to delete base image" ]
	ploop snapshot -u "$A" d
	ploop snapshot-switch -D -u "$A" d
	ploop mount d
	run ploop snapshot-delete -u "$A" d
	ploop umount d
	status_is 0
	output_has "as there are 2 references to it; marking it as temporary instead"
	[ "$(ploop snapshot-list --json d | jq '.snapshots[0].temporary')" = true ]
	run ploop snapshot-delete -u "$TOP" d
	status_is 38
	output_has "temporary"
}

@test "tsnapshot: mounted beside the disk, owned, busy while it is" {
	new_ploop d 64m ext4
	mkdir m2
	ploop mount -m mnt d
	echo one >mnt/file
	ploop tsnapshot -u "$A" -c backup -m m2 d
	echo two >mnt/file
	[ "$(cat m2/file)" = one ]
	[ "$(ploop snapshot-list -H -o temporary,owner -u "$A" d)" = "t backup" ]
	ploop umount -c backup d
	[ "$(ploop snapshot-list -H -o temporary,owner -u "$A" d)" = "t -" ]
	run ploop snapshot-switch -u "$A" d
	status_is 38
	run ploop tsnapshot -u "$B" d
	status_is 38
}

# temporary: takes A as a temporary snapshot that `backup` owns.
temporary() {
	ploop -v-1 tsnapshot -u "$A" -c backup d
}

@test "a temporary snapshot goes when nobody owns it: at the next snapshot, delete, mount" {
	new_ploop
	ploop mount d
	write_mark dev/ploop0 one
	temporary
	ploop -v-1 snapshot -u "$B" d
	[ "$(uuids d | xargs)" = "$A $B $TOP" ]
	write_mark dev/ploop0 two 4096
	ploop umount -c backup d
	ploop -v-1 snapshot -u "$C" d
	[ "$(uuids d | xargs)" = "$B $C $TOP" ]
	# Its owner dies.
	temporary
	kill_daemon ploop1
	ploop -v-1 snapshot-delete -u "$B" d
	[ "$(uuids d | xargs)" = "$C $TOP" ]
	ploop gc --devices --remove
	temporary
	ploop umount -c backup d
	ploop umount d
	[ "$(uuids d | xargs)" = "$C $A $TOP" ]
	ploop mount d
	[ "$(uuids d | xargs)" = "$C $TOP" ]
	[ "$(read_mark dev/ploop0)$(read_mark dev/ploop0 4096)" = onetwo ]
	[ "$(find d -name 'root.hds*' | wc -l)" = 2 ]
}

@test "a temporary snapshot that cannot be mounted is merged again" {
	new_ploop
	ploop mount d
	run ploop tsnapshot -u "$A" -c backup -m mnt d
	[ "$status" -ne 0 ]
	[ "$(uuids d)" = "$TOP" ]
	[ "$(find d -name 'root.hds*')" = d/root.hds ]
}

@test "two devices write to two branches of one base" {
	new_ploop
	ploop snapshot -u "$A" d
	ploop snapshot -u "$B" d
	ploop snapshot-switch -D -u "$A" d
	leaf=$(ploop snapshot-list --json d | jq -r '.snapshots[] | select(.children == 0 and (.current | not)).uuid')
	ploop mount d
	ploop mount -u "$leaf" -c other d
	write_mark dev/ploop0 disk
	write_mark dev/ploop1 other
	ploop snapshot -u "$C" d
	run ploop mount -u "$leaf" -c third d
	status_is 37
	run ploop snapshot-switch -u "$leaf" d
	status_is 38
	ploop umount -c other d
	ploop mount -r -u "$leaf" -c third d
	[ "$(read_mark dev/ploop0) $(read_mark dev/ploop1)" = "disk other" ]
}

@test "a device that refuses its new top: the descriptor is as it was, and nothing is left" {
	new_ploop
	ploop mount d
	cp d/DiskDescriptor.xml before.xml
	# The client takes something else for the top than the device does.
	cp run/ploop0/state.json state.json
	sed -i 's|/d/root.hds|/d/./root.hds|' run/ploop0/state.json
	run ploop snapshot d
	status_is 17
	output_has "the top of ploop0 is"
	cmp d/DiskDescriptor.xml before.xml
	[ "$(find d -name 'root.hds*')" = d/root.hds ]
	run ploop gc d
	[ -z "$output" ]
	cp state.json run/ploop0/state.json
	write_mark dev/ploop0 works
	ploop snapshot d
	[ "$(read_mark dev/ploop0)" = works ]
}

@test "snapshots that race: each is taken" {
	new_ploop
	ploop mount d
	for i in 1 2 3 4; do
		ploop -v0 snapshot d >$i.out 3>&- &
	done
	wait
	[ "$(cat ./*.out | grep -c 'successfully created')" = 4 ]
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 5 ]
	[ "$(uuids d | wc -l)" = 5 ]
}

@test "who died between the descriptor and the device: the next one lets the device catch up" {
	new_ploop
	ploop mount d
	write_mark dev/ploop0 one
	ploop snapshot -u "$A" d
	# As if the device had never heard of it: the descriptor of a later snapshot, with its delta, put there by hand.
	ploop umount d
	cp -a d e
	ploop mount e
	delta="root.hds.{99999999-dddd-4eee-8fff-0000000000f1}"
	ploop -v-1 init -s 32m -t none other.hds
	mv other.hds "e/$delta"
	python3 - e/DiskDescriptor.xml "$delta" "$B" "$TOP" <<-'EOF2'
		import re, sys
		path, delta, new, top = sys.argv[1:]
		text = open(path).read()
		head, tail = text.split("<TopGUID>")
		tail = tail.split("</TopGUID>", 1)
		body = (head + "\0" + tail[1]).replace("{%s}" % top, "{%s}" % new)
		head, rest = body.split("\0")
		image = "<Image><GUID>{%s}</GUID><Type>Compressed</Type><File>%s</File></Image></Storage>" % (top, delta)
		shot = "<Shot><GUID>{%s}</GUID><ParentGUID>{%s}</ParentGUID></Shot></Snapshots>" % (top, new)
		text = head.replace("</Storage>", image) + "<TopGUID>{%s}</TopGUID>" % top + rest.replace("</Snapshots>", shot)
		open(path, "w").write(text)
	EOF2
	run ploop snapshot -u "$C" e
	status_is 0
	output_has "is one snapshot behind its descriptor"
	[ "$(ploop list --json | jq '.devices[0].images | length')" = 4 ]
	[ "$(read_mark dev/ploop0)" = one ]
}

@test "a descriptor of the old format: its snapshots are listed, not changed: 38" {
	new_ploop
	sed -i "s/$TOP/$B/g" d/DiskDescriptor.xml
	before=$(sha256sum <d/DiskDescriptor.xml)
	[ "$(uuids d)" = "$B" ]
	for verb in "snapshot -u $A" "snapshot-delete -u $B"; do
		# shellcheck disable=SC2086
		run ploop $verb d
		status_is 38
		output_has "Snapshot is in old format"
		output_has "ploop repair-descriptor"
	done
	[ "$(sha256sum <d/DiskDescriptor.xml)" = "$before" ]
	ploop repair-descriptor d
	ploop snapshot -u "$A" d
}

@test "mount settles what was interrupted, unless it is to write nothing" {
	new_ploop
	orphan="root.hds.{99999999-dddd-4eee-8fff-0000000000f1}"
	cp d/root.hds "d/$orphan"
	printf 'ploop journal 1\noperation snapshot\nfile %s\nend\n' "$orphan" >d/DiskDescriptor.xml.journal
	ploop mount -r d
	ploop umount d
	[ -e "d/$orphan" ]
	ploop mount d
	[ ! -e "d/$orphan" ] && [ ! -e d/DiskDescriptor.xml.journal ]
}

@test "foreign elements, branches and order survive" {
	new_ploop
	sed -i 's|<Padding>|<LogicSectorSize>512</LogicSectorSize><Miscellaneous><x>1</x></Miscellaneous><Padding>|' d/DiskDescriptor.xml
	ploop snapshot -u "$A" d
	ploop snapshot-switch -D -u "$A" d
	ploop snapshot -u "$B" d
	grep -q "<LogicSectorSize>512</LogicSectorSize>" d/DiskDescriptor.xml
	grep -q "<Miscellaneous>" d/DiskDescriptor.xml
	[ "$(grep -c '<Shot>' d/DiskDescriptor.xml)" = 4 ]
	[ "$(uuids d | head -n 1)" = "$A" ]
	[ "$(uuids d | tail -n 1)" = "$TOP" ]
	ploop mount d
}

@test "gc names what was left, and removes only that" {
	new_ploop
	ploop snapshot -u "$A" d
	orphan="d/root.hds.{99999999-dddd-4eee-8fff-0000000000f1}"
	cp d/root.hds "$orphan"
	cp d/root.hds d/other.hds
	touch d/DiskDescriptor.xml.tmp
	printf 'ploop journal 1\noperation snapshot\nfile never.hds\nend\n' >d/DiskDescriptor.xml.journal
	run ploop gc d
	status_is 0
	[ "${#lines[@]}" = 3 ]
	output_has "delta    $PWD/$orphan"
	[ "$(ploop gc --json d | jq -r '.leftovers[] | select(.kind == "delta").parent')" != null ]
	[ -e d/DiskDescriptor.xml.journal ]
	ploop gc --remove d
	[ "$(ploop gc --json d | jq '.leftovers | length')" = 0 ]
	[ ! -e "$orphan" ] && [ ! -e d/DiskDescriptor.xml.tmp ] && [ ! -e d/DiskDescriptor.xml.journal ]
	[ -e d/other.hds ]
	ploop mount d
}

@test "gc --devices: dead ones and names that lead nowhere" {
	new_ploop
	ploop mount d
	kill_daemon
	ln -s /dev/loop-that-was dev/ploop7p1
	run ploop gc --devices
	status_is 0
	output_has "device   $PWD/dev/ploop0"
	output_has "node     $PWD/dev/ploop7p1"
	ploop gc --devices --remove
	nothing_left
}

@test "a raw base that ends inside a cluster: the refusal says what to do, and that works" {
	local grow
	mkdir d
	truncate -s $((20 * 1048576 - 512)) d/base
	ploop -v-1 restore-descriptor -f raw -b 2048 d d/base
	run ploop snapshot d
	status_is 38
	grow=$(grep -o "grow -s [0-9]* .*[.]xml" <<<"$output")
	[ ! -e d/DiskDescriptor.xml.journal ]
	# shellcheck disable=SC2086
	ploop $grow
	ploop snapshot d
	[ "$(ploop snapshot-list -H -o fname d | wc -l)" = 2 ]
	ploop mount d
	ploop umount d
}
