#!/usr/bin/env bash
# Build a Debian 12 box for Vagrant's libvirt provider from Debian's packages alone, for when no box registry can be asked.
#
#   sudo scripts/make-box.sh [FILE.box]            default daitn-debian12.box; takes 1-3 minutes, 2 GB in $TMPDIR
#   vagrant box add --name daitn/debian12 daitn-debian12.box
#   DAITN_BOX=daitn/debian12 vagrant up --provider=libvirt
#
# Needs root, mmdebstrap, fdisk, e2fsprogs, qemu-utils.  The apt sources are this machine's (MIRROR=... to name another).
set -euo pipefail
BOX=$(realpath -m "${1:-daitn-debian12.box}")
die() { printf 'make-box: %s\n' "$*" >&2; exit 2; }
[ "$(id -u)" = 0 ] || die "not root: sudo scripts/make-box.sh"
for tool in mmdebstrap sfdisk mkfs.ext4 qemu-img losetup; do
  command -v "$tool" >/dev/null || die "$tool is not installed: apt-get install mmdebstrap fdisk e2fsprogs qemu-utils mount"
done
SOURCES=${MIRROR:-}
[ -n "$SOURCES" ] || for file in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
  [ -z "$SOURCES" ] && grep -qs bookworm "$file" && SOURCES=$file
done
[ -n "$SOURCES" ] || die "no Debian 12 sources on this machine; name a mirror: MIRROR='deb http://HOST/debian bookworm main'"

WORK=$(mktemp -d) DISK= PART=
cleanup() {
  mountpoint -q "$WORK/mnt/dev" 2>/dev/null && umount "$WORK/mnt/dev"
  mountpoint -q "$WORK/mnt" 2>/dev/null && umount "$WORK/mnt"
  [ -z "$PART" ] || losetup -d "$PART"
  [ -z "$DISK" ] || losetup -d "$DISK"
  rm -rf "$WORK"
}
trap cleanup EXIT

echo "== installing Debian 12 into a folder"
PACKAGES=linux-image-amd64,systemd-sysv,dbus,udev,grub-pc-bin,grub2-common,openssh-server,sudo,rsync,ifupdown,isc-dhcp-client
PACKAGES+=,iproute2,iputils-ping,kmod,ca-certificates,python3-minimal,make,git
mmdebstrap --quiet --variant=important --include="$PACKAGES" --aptopt='APT::Install-Recommends "false"' bookworm "$WORK/root" "$SOURCES"

echo "== user vagrant, network, boot"
R=$WORK/root
echo debian12 >"$R/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 debian12\n' >"$R/etc/hosts"
printf 'auto lo\niface lo inet loopback\nauto eth0\niface eth0 inet dhcp\n' >"$R/etc/network/interfaces"
echo 'LABEL=root / ext4 defaults,noatime 0 1' >"$R/etc/fstab"
: >"$R/etc/machine-id"
chroot "$R" useradd -m -s /bin/bash vagrant
echo 'vagrant ALL=(ALL) NOPASSWD:ALL' >"$R/etc/sudoers.d/vagrant"
chmod 440 "$R/etc/sudoers.d/vagrant"
KEY=$(find /usr/share/vagrant /usr/share/rubygems-integration /opt/vagrant -name vagrant.pub 2>/dev/null | head -n 1 || true)
[ -n "$KEY" ] || die "vagrant is not installed here (its public key goes into the box; 'vagrant up' replaces it by one of your own)"
install -D -m 600 "$KEY" "$R/home/vagrant/.ssh/authorized_keys"
chmod 700 "$R/home/vagrant/.ssh"
chroot "$R" chown -R vagrant:vagrant /home/vagrant
printf 'virtio_pci\nvirtio_blk\nvirtio_net\next4\n' >>"$R/etc/initramfs-tools/modules"
chroot "$R" update-initramfs -u >/dev/null 2>&1
KERNEL=$(basename "$(echo "$R"/boot/vmlinuz-*)")
KERNEL=${KERNEL#vmlinuz-}
ARGUMENTS="root=LABEL=root ro net.ifnames=0 biosdevname=0 console=tty0 console=ttyS0,115200"
mkdir -p "$R/boot/grub"
cat >"$R/boot/grub/grub.cfg" <<G
set timeout=0
menuentry debian {
  search --no-floppy --label root --set=root
  linux /boot/vmlinuz-$KERNEL $ARGUMENTS
  initrd /boot/initrd.img-$KERNEL
}
G

echo "== disk image"
truncate -s 20G "$WORK/disk.raw"
printf 'label: dos\nstart=2048, type=83, bootable\n' | sfdisk -q "$WORK/disk.raw"
DISK=$(losetup -f --show "$WORK/disk.raw")
PART=$(losetup -f --show --offset $((2048 * 512)) "$WORK/disk.raw")  # not ${DISK}p1: no udev makes it in a container
mkfs.ext4 -q -L root "$PART"
mkdir "$WORK/mnt"
mount "$PART" "$WORK/mnt"
cp -a "$R/." "$WORK/mnt/"
mount --bind /dev "$WORK/mnt/dev"
chroot "$WORK/mnt" grub-install --target=i386-pc --modules='part_msdos ext2 biosdisk search' --force --skip-fs-probe \
  "$DISK" >"$WORK/grub.log" 2>&1 ||
  die "grub-install: $(tail -n 1 "$WORK/grub.log")"
sync
umount "$WORK/mnt/dev"
umount "$WORK/mnt"
losetup -d "$PART" "$DISK"
PART='' DISK=''

echo "== box"
qemu-img convert -c -O qcow2 "$WORK/disk.raw" "$WORK/box.img"
echo '{"provider":"libvirt","format":"qcow2","virtual_size":20}' >"$WORK/metadata.json"
echo 'Vagrant.configure("2") { |config| config.ssh.username = "vagrant" }' >"$WORK/Vagrantfile"
tar -C "$WORK" -cf "$BOX" metadata.json Vagrantfile box.img
echo "made $BOX ($(du -m "$BOX" | cut -f1) MB); next: vagrant box add --name daitn/debian12 $BOX"
