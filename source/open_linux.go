package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lsst-dm/s3daemon/push"
)

// open looks before it opens. O_PATH takes hold of whatever the path leads to
// without opening it, so that neither a FIFO blocks nor a device stirs; once it
// is known to be a regular file in an allowed place, that very inode is opened
// for reading through /proc/self/fd. Nothing can be swapped in between.
func (o *Opener) open(path string) (*os.File, kind, error) {
	o.guards().refresh()
	held, err := o.hold(path)
	if err != nil {
		return nil, remote, err
	}
	defer held.Close()
	fd := int(held.Fd())

	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, remote, err
	}
	self, leadsTo, err := whereabouts(fd)
	switch {
	case err == unix.ENAMETOOLONG:
		return nil, remote, err
	case err != nil:
		return nil, remote, &push.Error{Code: push.Internal, Err: err,
			Detail: "the daemon needs /proc to open files safely, and it is not mounted here"}
	}
	if err := o.refuse(path, leadsTo, fileID{st.Dev, st.Ino}); err != nil {
		return nil, remote, err
	}
	var mounted unix.Statfs_t
	if err := unix.Fstatfs(fd, &mounted); err != nil {
		return nil, remote, err
	}
	if kind := views[int64(mounted.Type)]; kind != "" {
		return nil, remote, notAllowed(path, "a file system of the kind "+kind)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, remote, notRegular(path, fileMode(st.Mode))
	}
	// Without O_NONBLOCK: a regular file's open waits for nothing but the holder
	// of a lease (a file server), who gives it back when asked.
	reading, err := openRetry(self, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, remote, err
	}
	on := kindOf(int64(mounted.Type))
	disks.learn(st.Dev, on)
	return os.NewFile(uintptr(reading), path), on, nil
}

// refuse returns the error of a path that leads to a place that is never read,
// or to a file of one by another name: a hard link, or a mount.
func (o *Opener) refuse(path, leadsTo string, id fileID) error {
	if err := o.never(path, leadsTo); err != nil {
		return err
	}
	if p := o.guards().of(id); p != nil && p.isStill(id) {
		return kept(path, p.path)
	}
	return nil
}

// stat looks at what the path leads to, by the rules.
func (o *Opener) stat(path string) (fs.FileInfo, error) {
	held, err := o.hold(path)
	if err != nil {
		return nil, err
	}
	defer held.Close()
	return held.Stat()
}

// hold takes hold of what the path leads to without opening it: beneath the
// roots, where there are any.
func (o *Opener) hold(path string) (*os.File, error) {
	if len(o.roots) == 0 {
		fd, err := hold(path)
		if err != nil {
			return nil, err
		}
		return os.NewFile(uintptr(fd), path), nil
	}
	v := o.view(path)
	defer v.close()
	return v.take(holdIn)
}

// holdIn takes hold of a name below a root that is no link.
func holdIn(r *os.Root, name string) (*os.File, error) {
	f, err := r.OpenFile(name, unix.O_PATH|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.Mode().Type() == fs.ModeSymlink {
		err = errMoved
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// realpath returns the path without links.
func realpath(path string) (string, error) {
	fd, err := openRetry(path, unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	_, leadsTo, err := whereabouts(fd)
	return leadsTo, err
}

// whereabouts returns the name that a descriptor has in /proc, and the path that
// it leads to.
func whereabouts(fd int) (self, leadsTo string, err error) {
	self = "/proc/self/fd/" + strconv.Itoa(fd)
	var buf [unix.PathMax]byte
	n, err := unix.Readlink(self, buf[:])
	if err != nil {
		return "", "", err
	}
	return self, filepath.Clean(string(buf[:n])), nil
}

// views are the file systems that show the kernel's and the processes' state,
// by the numbers of statfs(2), wherever they are mounted.
var views = map[int64]string{
	unix.PROC_SUPER_MAGIC:    "proc",
	unix.SYSFS_MAGIC:         "sysfs",
	unix.DEBUGFS_MAGIC:       "debugfs",
	unix.TRACEFS_MAGIC:       "tracefs",
	unix.SECURITYFS_MAGIC:    "securityfs",
	unix.CGROUP_SUPER_MAGIC:  "cgroup",
	unix.CGROUP2_SUPER_MAGIC: "cgroup2",
}

// hold takes hold of what the path leads to without opening it. The links of
// /proc that lead into a process (its descriptors, its root) are not followed:
// their end may be anything that the daemon itself has open.
func hold(path string) (int, error) {
	for {
		fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
			Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_MAGICLINKS,
		})
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR, unix.EAGAIN:
			continue
		case unix.ENOSYS, unix.EPERM: // before Linux 5.6, or forbidden by a seccomp filter that does not know it
			return openRetry(path, unix.O_PATH|unix.O_CLOEXEC)
		case unix.ELOOP:
			// Too many links, or one of those; only the first fails again.
			if fd, err := openRetry(path, unix.O_PATH|unix.O_CLOEXEC); err == nil {
				unix.Close(fd)
				return -1, notAllowed(path, "/proc")
			}
		}
		return -1, err
	}
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

// changedAt returns when the inode was changed last.
func changedAt(st *syscall.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }

func uid() string { return strconv.Itoa(unix.Geteuid()) }
