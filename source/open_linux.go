package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// open looks before it opens. O_PATH takes hold of whatever the path leads to
// without opening it, so that neither a FIFO blocks nor a device stirs; once it
// is known to be a regular file in an allowed place, that very inode is opened
// for reading through /proc/self/fd. Nothing can be swapped in between.
func open(path string) (*os.File, error) {
	fd, err := openRetry(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	self := "/proc/self/fd/" + strconv.Itoa(fd)
	var buf [unix.PathMax]byte
	n, err := unix.Readlink(self, buf[:])
	if err != nil {
		return nil, err
	}
	if dir := forbidden(filepath.Clean(string(buf[:n]))); dir != "" {
		return nil, notAllowed(path, dir)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, notRegular(path, fileMode(st.Mode))
	}
	reading, err := openRetry(self, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(reading), path), nil
}

// openRetry is open(2), again where a signal interrupted it, which happens on
// network file systems.
func openRetry(path string, flags int) (int, error) {
	for {
		fd, err := unix.Open(path, flags, 0)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// fileMode translates the type bits of st_mode.
func fileMode(mode uint32) fs.FileMode {
	switch mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return fs.ModeDir
	case unix.S_IFIFO:
		return fs.ModeNamedPipe
	case unix.S_IFSOCK:
		return fs.ModeSocket
	case unix.S_IFBLK:
		return fs.ModeDevice
	case unix.S_IFCHR:
		return fs.ModeDevice | fs.ModeCharDevice
	}
	return fs.ModeIrregular
}

func uid() string { return strconv.Itoa(unix.Geteuid()) }
