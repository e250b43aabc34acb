#!/bin/busybox sh
# The first and only program of a virtual machine: mounts its disk and runs the broker, whose settings are variables on
# the kernel's command line. When the broker ends, so does the machine.
busybox mount -t proc proc /proc
busybox mount -t sysfs sys /sys
busybox mount -t devtmpfs dev /dev
# What is no module is built into the kernel.
for module in virtio_pci virtio_blk virtio_net ext4; do
    busybox modprobe "$module" 2>/dev/null
done
busybox ip link set lo up
busybox ip addr add 10.0.2.15/24 dev eth0
busybox ip link set eth0 up
if busybox mount -t ext4 /dev/vda /disk; then
    highwater serve --data /disk/data --listen 0.0.0.0:9092 --insecure-allow-remote
    echo "the broker ended with $?"
fi
busybox poweroff -f
