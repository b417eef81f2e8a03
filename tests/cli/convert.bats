#!/usr/bin/env bats
# SPDX-License-Identifier: LGPL-2.1-or-later
# Convert: the images of a disk in another form where they are, and to and from files of others.
load common

own_teardown() {
	! mountpoint -q "$BATS_TEST_TMPDIR/small" || umount "$BATS_TEST_TMPDIR/small"
}

U1=11111111-1111-4111-8111-111111111111
U2=22222222-2222-4222-8222-222222222222

# put PATTERN OFFSET LENGTH: into the top of the disk in this folder.
put() {
	qemu-io -f parallels -c "write -q -P $1 $2 $3" "$(top)"
}

top() {
	ploop snapshot-list --json . | jq -r '.snapshots[] | select(.current) | .file'
}

# chain: three images with data of their own, holes that hide data below, and clusters that lie in all.
chain() {
	require qemu-io jq
	ploop -v-1 init -s 16m -b 128 -t none root.hds
	put 1 0 1M
	put 2 4M 100k
	ploop -v-1 snapshot -u "$U1" .
	put 3 512k 1M
	put 0 64k 64k
	ploop -v-1 snapshot -u "$U2" .
	put 4 768k 4k
	put 0 4M 64k
}

# sums: of the disk and each of its snapshots.
sums() {
	local uuid
	for uuid in "" "$U1" "$U2"; do
		rm -f sum.raw
		ploop -v-1 convert ${uuid:+-u "$uuid"} -o sum.raw . || return 1
		sha256sum <sum.raw
	done
	rm -f sum.raw
}

# versions: of the images, base first; 0 is raw.
versions() {
	ploop info --json . | jq -c '[.images[].version]'
}

# nothing_else IMAGES: the folder holds so many images and the descriptor, and nothing is left over.
nothing_else() {
	local images=(root.hds*) all=(*)
	[ "${#images[@]}" = "$1" ]
	[ "${#all[@]}" = $(($1 + 2)) ]
	[ "$(ploop gc --json . | jq '.leftovers | length')" = 0 ]
}

clean() {
	for file; do
		qemu-img check -q -f parallels "$file"
		ploop -v-1 check "$file"
	done
}

@test "convert -v takes all snapshots to the other version, and keeps names and contents" {
	local before names
	chain
	before=$(sums) names=$(ls)
	chmod 0640 root.hds
	run ploop convert -v 1 .
	status_is 0
	[ "$(versions)" = "[1,1,1]" ]
	[ "$(sums)" = "$before" ]
	[ "$(ls)" = "$names" ]
	[ "$(stat -c %a root.hds)" = 640 ]
	clean root.hds*
	ploop -v-1 convert -v 2 DiskDescriptor.xml
	[ "$(versions)" = "[2,2,2]" ]
	[ "$(sums)" = "$before" ]
	clean root.hds*
	nothing_else 3
}

@test "convert that has nothing to do changes nothing" {
	chain
	local before
	before=$(stat -c '%i %Y' root.hds* DiskDescriptor.xml)
	run ploop convert -v 2 .
	status_is 0
	output_has "Nothing to convert"
	ploop -v-1 convert -f expanded .
	[ "$(stat -c '%i %Y' root.hds* DiskDescriptor.xml)" = "$before" ]
}

@test "convert -f raw and back: the base, with the snapshots on it" {
	local before
	chain
	before=$(sums)
	ploop -v-1 convert -f raw .
	[ "$(versions)" = "[0,2,2]" ]
	grep -q '<Type>Plain</Type>' DiskDescriptor.xml
	[ "$(stat -c %s root.hds)" = $((16 << 20)) ]
	[ "$(sums)" = "$before" ]
	ploop -v-1 convert -v 1 .
	[ "$(versions)" = "[0,1,1]" ]
	ploop -v-1 convert -f expanded .
	[ "$(versions)" = "[1,1,1]" ]
	[ "$(sums)" = "$before" ]
	clean root.hds*
	nothing_else 3
}

@test "convert -f preallocated takes all the room there is, expanded gives it back" {
	local before
	require jq qemu-img
	ploop -v-1 init -s 64m root.hds
	before=$(ploop -v-1 convert -o ../a.raw . && sha256sum <../a.raw)
	ploop -v-1 convert -f preallocated .
	[ "$(stat -c %b root.hds)" -ge $((64 * 2048)) ]
	grep -q '<Preallocated>1' DiskDescriptor.xml
	clean root.hds
	[ "$(ploop check --json root.hds | jq '.images[0].mapped_clusters // .images[0].mapped')" = 64 ]
	ploop -v-1 convert -f expanded .
	[ "$(stat -c %b root.hds)" -lt $((16 * 2048)) ]
	run grep -q '<Preallocated>' DiskDescriptor.xml
	status_is 1
	clean root.hds
	[ "$(ploop -v-1 convert -o ../b.raw . && sha256sum <../b.raw)" = "$before" ]
	rm ../a.raw ../b.raw
}

@test "convert refuses what would lose snapshots, or is no format" {
	chain
	run ploop convert -f preallocated .
	status_is 38
	output_is_one_line
	output_has "would hide"
	run ploop convert -f qcow2 .
	status_is 38
	run ploop convert -f vdi .
	status_is 38
	run ploop convert -v 3 .
	status_is 38
	run ploop convert .
	status_is 38
	run ploop convert --all -v 1 .
	status_is 38
	nothing_else 3
}

@test "convert -v 1 refuses a disk that version 1 cannot have" {
	ploop -v-1 init -s 3t -t none root.hds
	run ploop convert -v 1 .
	status_is 38
	output_has "The maximum allowed size is"
	ploop check -s root.hds
}

@test "convert refuses when there is no room, and says how much it needs" {
	require_root
	require mkfs.ext4 jq
	truncate -s 64M fs
	mkfs.ext4 -q fs
	mkdir small
	mount -o loop fs small || skip "no loop devices"
	local names
	ploop -v-1 init -s 128m -t none small/root.hds
	run ploop convert -f preallocated small
	names=$(ls small)
	umount small
	status_is 7
	output_has "the new image needs 128 MiB"
	[ "$(echo "$names" | grep root)" = root.hds ]
}

@test "convert --output writes qcow2 that qemu reads, with the snapshots below it" {
	local uuid
	chain
	ploop -v-1 convert -o ../flat.qcow2 .
	qemu-img check -q ../flat.qcow2
	ploop -v-1 convert --all -o ../disk.qcow2 .
	for file in ../disk.qcow2*; do qemu-img check -q "$file"; done
	ploop -v-1 convert -o ../top.raw .
	qemu-img compare -q -F raw -f qcow2 ../flat.qcow2 ../top.raw
	qemu-img compare -q -F raw -f qcow2 ../disk.qcow2 ../top.raw
	for uuid in "$U1" "$U2"; do
		ploop -v-1 convert -u "$uuid" -o "../$uuid.raw" .
		qemu-img compare -q -F raw -f qcow2 "../disk.qcow2.{$uuid}" "../$uuid.raw"
	done
	rm ../*.raw ../*.qcow2*
}

@test "convert --output makes a disk of qcow2 and raw files" {
	require qemu-img qemu-io
	qemu-img create -q -f qcow2 in.qcow2 10000k
	qemu-io -c "write -q -P 7 1M 70k" -c "write -q -P 8 9999k 1k" in.qcow2
	mkdir one two
	ploop -v-1 convert -o one/root.hds in.qcow2
	[ "$(ls one)" = "$(printf 'DiskDescriptor.xml\nroot.hds')" ]
	ploop check -s one/root.hds
	[ "$(stat -c %b one/root.hds)" -lt 2048 ]
	qemu-img convert -O raw in.qcow2 in.raw
	ploop -v-1 convert -o two/root.hds -b 64 -v 1 --from raw in.raw
	qemu-img check -q -f parallels two/root.hds
	ploop -v-1 convert -o one.raw one
	ploop -v-1 convert -o two.raw two
	cmp -n $((10000 * 1024)) one.raw in.raw
	cmp -n $((10000 * 1024)) two.raw in.raw
}

@test "convert --output overwrites nothing and leaves nothing behind" {
	chain
	echo mine >../there.raw
	run ploop convert -o ../there.raw .
	status_is 38
	output_has "File exists"
	[ "$(cat ../there.raw)" = mine ]
	run ploop convert -o ../x.qcow2 nowhere.xml
	[ "$status" -ne 0 ]
	run ploop convert --all -o ../x.raw .
	status_is 38
	[ ! -e ../x.raw ] && [ ! -e ../x.qcow2 ]
	rm ../there.raw
}
