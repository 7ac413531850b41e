// Package source opens the files that pushes name. Open is the only place in
// the daemon that opens a caller's path, so what holds there holds everywhere:
//
//   - only regular files are opened; a FIFO would block for ever, and opening
//     a device can move a tape or start a watchdog;
//   - nothing in /proc, /sys or /dev is, nor anything that is reached through
//     them, whatever links lead there, nor what is mounted of their kinds
//     elsewhere: those are views of this process and this host, not files
//     somebody wrote;
//   - the file that was checked is the file that is read.
//
// Errors are *push.Error values with a detail for the caller.
package source

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// MaxSize is the largest file that can become an object, in bytes: Amazon S3's
// limit of 5 TiB.
const MaxSize = 5 << 40

// Identity tells one state of a file from another without reading it.
type Identity struct {
	Size          int64 // bytes
	ModTime       time.Time
	Device, Inode uint64
}

// Same reports whether the two are of one file that has not been written to
// between. Whoever keeps the size and sets the modification time back is not
// noticed. The inode counts on one device only: the numbers of devices, and on
// some network file systems those of inodes, change with each mount.
func (i Identity) Same(other Identity) bool {
	return i.Size == other.Size && i.ModTime.Equal(other.ModTime) && (i.Inode == other.Inode || i.Device != other.Device)
}

// File is an open regular file, with its identity as it was when it was opened.
// It may be read by several goroutines at once.
type File struct {
	file     *os.File
	identity Identity
	readErr  atomic.Pointer[error]
}

// Open opens the file for reading. The error is a *push.Error with one of the
// codes InvalidFile, FileNotFound, FileUnreadable, FileNotRegular,
// FileNotAllowed and FileTooLarge.
func Open(path string) (*File, error) {
	if err := push.CheckPath(path); err != nil {
		return nil, err
	}
	if dir := forbidden(filepath.Clean(path)); dir != "" {
		return nil, notAllowed(path, dir)
	}
	f, err := open(path)
	if err != nil {
		return nil, explain(path, err)
	}
	info, err := f.Stat()
	if err == nil && info.Size() > MaxSize {
		err = push.Errorf(push.FileTooLarge, "file %s has %d bytes: an S3 object holds at most %d (5 TiB)",
			push.Quote(path), info.Size(), int64(MaxSize))
	}
	if err != nil {
		f.Close()
		return nil, explain(path, err)
	}
	return &File{file: f, identity: identityOf(info)}, nil
}

func identityOf(info fs.FileInfo) Identity {
	id := Identity{Size: info.Size(), ModTime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Device, id.Inode = uint64(st.Dev), uint64(st.Ino)
	}
	return id
}

// Size returns the file's size in bytes when it was opened.
func (f *File) Size() int64 { return f.identity.Size }

// Identity returns the file's identity when it was opened.
func (f *File) Identity() Identity { return f.identity }

// Sync has the file's bytes put on disk, so that they survive a loss of power.
// The error is a *push.Error.
func (f *File) Sync() error {
	// The file is open for reading only, which fsync does not mind.
	if err := f.file.Sync(); err != nil {
		return explain(f.file.Name(), err)
	}
	return nil
}

// ReadAt reads as io.ReaderAt does. The first error that is not the end of the
// file is kept for ReadErr, since those who read the file on our behalf report
// it in words of their own.
func (f *File) ReadAt(p []byte, off int64) (int, error) {
	n, err := f.file.ReadAt(p, off)
	if err != nil && err != io.EOF {
		first := err // its address escapes; that of err would on every call
		f.readErr.CompareAndSwap(nil, &first)
	}
	return n, err
}

// Check reports, as a *push.Error, that reading the file failed
// (FileUnreadable) or that its size or modification time has changed since it
// was opened (FileChanged). Call it after the last byte was read. A writer who
// keeps the size and sets the modification time back is not noticed; a new
// name, other permissions or a deletion are no change, since the bytes are the
// same.
func (f *File) Check() error {
	if p := f.readErr.Load(); p != nil {
		return explain(f.file.Name(), *p)
	}
	info, err := f.file.Stat()
	if err != nil {
		return explain(f.file.Name(), err)
	}
	if info.Size() != f.identity.Size || !info.ModTime().Equal(f.identity.ModTime) {
		return push.Errorf(push.FileChanged, "file %s changed while it was sent (%d bytes before, %d now): push it once its writer has closed it",
			push.Quote(f.file.Name()), f.identity.Size, info.Size())
	}
	return nil
}

// Close closes the file.
func (f *File) Close() error { return f.file.Close() }

// forbidden returns the directory of those never read that the clean absolute
// path lies in, or "".
func forbidden(path string) string {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if path == dir || strings.HasPrefix(path, dir+"/") {
			return dir
		}
	}
	return ""
}

func notAllowed(path, dir string) error {
	return push.Errorf(push.FileNotAllowed, "file %s is in %s, which the daemon never reads: copy it to a file of its own first", push.Quote(path), dir)
}

func notRegular(path string, mode fs.FileMode) error {
	kind := "a special file"
	switch mode.Type() {
	case fs.ModeDir:
		kind = "a directory"
	case fs.ModeNamedPipe:
		kind = "a FIFO"
	case fs.ModeSocket:
		kind = "a socket"
	case fs.ModeDevice, fs.ModeDevice | fs.ModeCharDevice:
		kind = "a device"
	}
	return push.Errorf(push.FileNotRegular, "file %s is %s: only regular files are pushed", push.Quote(path), kind)
}

// explain turns an error of the file system into one for the caller.
func explain(path string, err error) error {
	var known *push.Error
	if errors.As(err, &known) {
		return err
	}
	e := &push.Error{Code: push.FileUnreadable, Err: err}
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.Code = push.FileNotFound
		e.Detail = "there is no file " + push.Quote(path) + " on the daemon's host (or it is a link that leads nowhere)"
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		e.Code = push.InvalidFile
		e.Detail = "file " + push.Quote(path) + " cannot be: " + reason(err)
	case errors.Is(err, fs.ErrPermission):
		e.Detail = "the daemon, which runs as user " + uid() + ", may not read the file " + push.Quote(path) + ": change the permissions of the file or of a directory above it"
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		e.Code = push.Internal
		e.Detail = "the daemon has too many files open: raise its limit (ulimit -n)"
	default:
		e.Detail = "file " + push.Quote(path) + " cannot be read: " + reason(err)
	}
	return e
}

// reason returns the system's own words for the error, without the path.
func reason(err error) string {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno.Error()
	}
	return err.Error()
}
