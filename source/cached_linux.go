package source

import (
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// readCached reads what the page cache has, without waiting for a disk. Less
// than p without an error means that the rest has to be waited for.
func (f *File) readCached(p []byte, off int64) (n int, err error) {
	if f.uncached.Load() {
		return 0, nil
	}
	f.closing.RLock() // for as long as such a read takes, which does not wait
	defer f.closing.RUnlock()
	if f.fd < 0 {
		return 0, os.ErrClosed
	}
	for n < len(p) {
		k, err := unix.Preadv2(f.fd, [][]byte{p[n:]}, off+int64(n), unix.RWF_NOWAIT)
		switch {
		case err == unix.EINTR:
		case err == unix.EAGAIN:
			return n, nil
		case err == unix.EOPNOTSUPP, err == unix.ENOSYS, err == unix.EINVAL:
			f.uncached.Store(true)
			return n, nil
		case err != nil:
			return n, err
		case k > 0:
			n += k
		case off+int64(n) >= f.identity.Size:
			return n, io.EOF
		default: // no end can be there: a call that may wait decides
			return n, nil
		}
	}
	return n, nil
}

// resolveCached is openat2's RESOLVE_CACHED: find the path without waiting, or
// not at all.
const resolveCached = 0x20

// holdCached takes hold of what the path leads to as hold does, but without
// waiting. With RESOLVE_BENEATH the kernel keeps to a root as os.Root does.
func (o *Opener) holdCached(path string) (int, error) {
	if len(o.roots) == 0 {
		return openCachedAt(unix.AT_FDCWD, path, 0)
	}
	for _, dir := range o.roots {
		names, ok := beneath(dir, path)
		if !ok || !plain(names) {
			continue
		}
		at, err := openCachedAt(unix.AT_FDCWD, dir, 0)
		if err != nil {
			return -1, err
		}
		defer unix.Close(at)
		return openCachedAt(at, strings.Join(names, "/"), unix.RESOLVE_BENEATH)
	}
	return -1, errOutside
}

func openCachedAt(dir int, path string, resolve uint64) (int, error) {
	return unix.Openat2(dir, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached | unix.RESOLVE_NO_MAGICLINKS | resolve,
	})
}

// keepsName reports whether the file's path is known, without waiting, to lead
// to the file still. Where it is not, it has to be asked for.
func (f *File) keepsName() bool {
	fd, err := f.opener.holdCached(f.line.path)
	if err != nil {
		return false
	}
	defer unix.Close(fd) // of O_PATH, which no file system hears of
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_INO, &st); err != nil {
		return false
	}
	return st.Ino == f.identity.Inode && unix.Mkdev(st.Dev_major, st.Dev_minor) == f.identity.Device
}

// openCached opens a file as open does, but without waiting, where the kernel
// has the path in memory and the file is on a disk that is known. Whatever else
// it meets it leaves to open, and all files where there are roots, which os.Root
// opens in one way only; what it has found has the device then, if that is in
// memory.
func (o *Opener) openCached(path string) (found, bool) {
	fd, err := o.holdCached(path)
	if err != nil {
		return found{}, false
	}
	defer unix.Close(fd)
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_BASIC_STATS, &st); err != nil {
		return found{}, false
	}
	device := unix.Mkdev(st.Dev_major, st.Dev_minor)
	left := found{identity: Identity{Device: device}}
	if len(o.roots) > 0 || !o.guards().isFresh() || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > MaxSize || !disks.has(device) {
		return left, false
	}
	self, leadsTo, err := whereabouts(fd)
	if err != nil || o.never(path, leadsTo) != nil || o.guards().of(fileID{device, st.Ino}) != nil {
		return left, false
	}
	// With O_NONBLOCK it does not wait for the holder of a lease either.
	reading, err := unix.Open(self, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return left, false
	}
	// From here on that would only have the runtime take it for a socket.
	if _, err := unix.FcntlInt(uintptr(reading), unix.F_SETFL, 0); err != nil {
		unix.Close(reading)
		return left, false
	}
	return found{file: os.NewFile(uintptr(reading), path), on: disk, identity: Identity{
		Size: int64(st.Size), ModTime: time.Unix(st.Mtime.Sec, int64(st.Mtime.Nsec)), Device: device, Inode: st.Ino,
		ChangedAt: time.Unix(st.Ctime.Sec, int64(st.Ctime.Nsec)),
	}}, true
}

// devices are those block devices of which it is known that a file system of the
// kind disk is on them. Others have numbers that the next mount may get, of a
// server's file system.
type devices struct{ known sync.Map } // of uint64

var disks devices

func (d *devices) learn(device uint64, on kind) {
	switch _, known := d.known.Load(device); {
	case on == disk && !known && unix.Major(device) != 0:
		d.known.Store(device, nil)
	case on != disk && known:
		d.known.Delete(device)
	}
}

func (d *devices) has(device uint64) bool {
	_, known := d.known.Load(device)
	return known
}

// kindOf tells the file systems apart by the numbers of statfs(2).
func kindOf(magic int64) kind {
	switch magic {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return memory
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		return disk
	}
	return remote
}
