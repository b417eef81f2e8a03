# SPDX-License-Identifier: LGPL-2.1-or-later
# Small writes over a snapshot do not copy clusters before they are done: what crashes, other software and counters see of it.
load common
load devices

# SIGKILL to everything.
export PLOOPD_ALONE=1

# small_writes DEVICE PID: 4 KiB into each of 24 clusters, made durable; then the process gets SIGKILL. PID 0: nobody does.
small_writes() {
	python3 - "$@" <<'PYTHON'
import os, signal, sys
device = os.open(sys.argv[1], os.O_RDWR)
for i in range(24):
    os.pwrite(device, bytes([i + 1]) * 4096, (i << 20) + 8192 * i)
os.fsync(device)
if int(sys.argv[2]):
    os.kill(int(sys.argv[2]), signal.SIGKILL)
PYTHON
}

# What small_writes leaves, on a disk of pattern.
check_writes() {
	python3 - "$1" <<'PYTHON'
import os, sys
device = os.open(sys.argv[1], os.O_RDONLY)
for i in range(24):
    data = os.pread(device, 1 << 20, i << 20)
    want = bytearray(b"\xa5" * (1 << 20))
    want[8192 * i:8192 * i + 4096] = bytes([i + 1]) * 4096
    assert data == want, f"cluster {i}"
PYTHON
}

counter() {
	ploop stat -d dev/ploop0 | awk -v name="$1" '$1 ~ name { print $NF }'
}

new_snapshot() {
	ploop init -s 64m -t none d/root.hds
	ploop bench -w -c 64 -s 1M d
	ploop snapshot d
	ploop mount d
}

@test "small writes over a snapshot are not copies; umount leaves an ordinary image" {
	mkdir -p d
	new_snapshot
	small_writes dev/ploop0 0
	[ "$(counter bio_partial)" -ge 20 ]
	check_writes dev/ploop0
	ploop umount d
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
}

@test "kill -9 between flush and fill: what was flushed is there, other software refuses the image" {
	mkdir -p d
	new_snapshot
	small_writes dev/ploop0 "$(daemon_pid ploop0)"
	ploop umount -d dev/ploop0
	top=$(find d -name "root.hds.*" | head -n 1)
	run qemu-img check -f parallels "$top"
	[ "$status" -ne 0 ]
	run ploop check --repair=all "$top"
	output_has "not whole"
	ploop mount -r d
	check_writes dev/ploop0
	ploop umount d
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
}

@test "XFS: small writes are no copies, and what is filled in shares the blocks below" {
	require mkfs.xfs
	mkdir fs
	truncate -s 512m xfs.img
	mkfs.xfs -q xfs.img
	mount -o loop xfs.img fs
	mkdir fs/d
	ln -s fs/d d
	new_snapshot
	before=$(stat -f -c %f fs)
	small_writes dev/ploop0 0
	[ "$(counter bio_partial)" -ge 20 ]
	check_writes dev/ploop0
	ploop umount d
	# 24 clusters of 1 MiB are whole now.
	sync -f fs
	[ $(((before - $(stat -f -c %f fs)) * $(stat -f -c %S fs))) -lt $((4 << 20)) ]
	for file in fs/d/root.hds*; do qemu-img check -q -f parallels "$file"; done
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
	umount fs
}

# crashed: a disk of two levels whose ploopd was killed with partial clusters in the top.
crashed() {
	mkdir -p d
	new_snapshot
	small_writes dev/ploop0 "$(daemon_pid ploop0)"
	ploop umount -d dev/ploop0
	if ploop check --read-only d; then return 1; fi
	# What the top has of them is not forgotten.
	ploop map --extents d | grep -q "partly in the top"
	ploop map --extents --json d | jq -e '[.extents[] | select(.partial) | .length] | add >= 1048576'
}

@test "after a crash check --repair of the disk completes what a check of one image cannot" {
	crashed
	run ploop check --repair=safe d
	status_is 0
	output_has "completed"
	for file in d/root.hds*; do qemu-img check -q -f parallels "$file"; done
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
}

@test "after a crash a merge of the disk completes its images first; one by file names alone says what to do" {
	crashed
	top=$(find d -name "root.hds.*" | head -n 1)
	mkdir -p apart
	cp d/root.hds apart/base
	cp "$top" apart/top
	run ploop merge apart/top apart/base
	[ "$status" -ne 0 ]
	output_has "as the top of its disk"
	ploop snapshot-merge d
	[ "$(find d -name "root.hds*" | wc -l)" -eq 1 ]
	qemu-img check -q -f parallels d/root.hds
	ploop mount d
	check_writes dev/ploop0
	ploop umount d
}
