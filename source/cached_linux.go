package source

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// readCached reads what the page cache has, without waiting for a disk. Less
// than p without an error means that the rest has to be waited for.
func (f *File) readCached(p []byte, off int64) (n int, err error) {
	if f.uncached.Load() {
		return 0, nil
	}
	refused := f.raw.Control(func(fd uintptr) {
		for n < len(p) && err == nil {
			var k int
			k, err = unix.Preadv2(int(fd), [][]byte{p[n:]}, off+int64(n), unix.RWF_NOWAIT)
			switch {
			case err == unix.EINTR:
				err = nil
			case k > 0:
				n += k
			case err == nil && off+int64(n) >= f.identity.Size:
				err = io.EOF
			case err == nil: // no end can be there: a call that may wait decides
				return
			}
		}
	})
	switch {
	case refused != nil:
		return n, os.ErrClosed
	case err == unix.EAGAIN:
		return n, nil
	case err == unix.EOPNOTSUPP, err == unix.ENOSYS, err == unix.EINVAL:
		f.uncached.Store(true)
		return n, nil
	}
	return n, err
}

// resolveCached is openat2's RESOLVE_CACHED: find the path without waiting, or
// not at all.
const resolveCached = 0x20

// keepsName reports whether the file's path is known, without waiting, to lead
// to the file still. Where it is not, it has to be asked for.
func (f *File) keepsName() bool {
	fd, err := unix.Openat2(unix.AT_FDCWD, f.line.path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: resolveCached | unix.RESOLVE_NO_MAGICLINKS,
	})
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
