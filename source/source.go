// Package source opens the files that pushes name. Opener is the only place in
// the daemon that opens a caller's path, so what holds there holds everywhere:
//
//   - where there are roots, nothing outside of them is opened, nor looked at,
//     whatever links lead there: an error tells nobody what there is elsewhere;
//   - only regular files are opened; a FIFO would block for ever, and opening
//     a device can move a tape or start a watchdog;
//   - nothing in /proc, /sys or /dev is, nor anything that is reached through
//     them, whatever links lead there, nor what is mounted of their kinds
//     elsewhere: those are views of this process and this host, not files
//     somebody wrote;
//   - nor is what is guarded, the daemon's own data and credentials, by any link,
//     nor by another name of a file (hard link) or of a directory (mount), as far
//     as the files are known by their inodes;
//   - the file that was checked is the file that is read;
//   - a file system that hangs holds one thread for each path and half of those
//     there are, and no caller for longer than a call may take. See line.
//
// What Check says once the file has been read:
//
//	grown, cut short, rewritten     FileChanged: the bytes are of no state that it
//	in place                        ever had
//	another file, a directory, a    FileChanged: done would be leave to delete what
//	link elsewhere under its name   nobody has sent
//	removed or renamed, with        nil: the bytes that were read are those that
//	nothing under its name          were accepted
//	other permissions, other names  nil
//	a read failed                   FileUnreadable, with the first error
//	the name cannot be looked at    FileUnreadable: what it leads to is not known
//	nothing answers                 FileHangs: it may pass
//
// A writer who keeps the size and sets the modification time back is not
// noticed by it; Identity.Untouched would.
//
// Errors are *push.Error values with a detail for the caller.
package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
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
	ChangedAt     time.Time // when its inode was changed last (ctime), which nobody can set; zero where that is not known
}

// Same reports whether the two are of one file that has not been written to
// between. Whoever keeps the size and sets the modification time back is not
// noticed. The inode counts on one device only: the numbers of devices, and on
// some network file systems those of inodes, change with each mount, which may
// have been between. Check, whose file is open, takes another device for another
// file.
func (i Identity) Same(other Identity) bool {
	return i.Size == other.Size && i.ModTime.Equal(other.ModTime) && (i.Inode == other.Inode || i.Device != other.Device)
}

// Untouched reports whether the two are the same, and the inode has not been
// changed between either. So whoever sets the modification time back is noticed,
// unless he writes within the tick of the kernel's clock in which the inode was
// changed before; and so is whoever does no harm: chmod, link and rename change
// the inode as well. Where one of the two does not know when that was, it does
// not count.
func (i Identity) Untouched(other Identity) bool {
	return i.Same(other) && (i.ChangedAt.Equal(other.ChangedAt) || i.ChangedAt.IsZero() || other.ChangedAt.IsZero())
}

// kind is what is known of the file system that a file is on.
type kind int

const (
	remote kind = iota // any call may wait for a server or a program; and what is not known
	disk               // attributes of open files are in memory
	memory             // nothing waits
)

// File is an open regular file, with its identity as it was when it was opened.
// It may be used by several goroutines at once.
type File struct {
	opener   *Opener
	file     *os.File
	on       kind
	line     *line
	identity Identity
	uncached atomic.Bool // the file system cannot read without waiting
	unlinked atomic.Bool // it has no name any more, so that closing it removes it
	readErr  atomic.Pointer[error]

	closing sync.RWMutex // guards what follows
	fd      int          // of file, for what package os cannot do; -1 once it is closed
	closed  bool
}

// all are the lines of this process: the files of all who open them hang
// together.
var all = newLines(mostCalls)

// Rules say which files may be read. Without any these are all regular files
// that the daemon's user may read, but for what no rule allows; see the package
// comment.
type Rules struct {
	// Roots are directories, clean absolute paths, beneath which files are read;
	// others are not. Empty: anywhere. Each is looked up anew for each file, so it
	// may be a link, or a mount that comes later. Files are reached through os.Root,
	// for which the daemon has to be allowed to read the directories on the way.
	Roots []string
	// Guarded are files and directories, absolute paths, that are never read,
	// whatever leads there. What they lead to, and which files are in them, is known
	// as it was a second ago; of each directory some 2000 files are known by their
	// inodes.
	Guarded []string
}

// Opener opens files by rules. It may be used by several goroutines at once.
type Opener struct {
	roots   []string // outer ones first
	guarded guard    // from the start

	adding sync.Mutex
	grown  atomic.Pointer[guard] // guarded and what was added; changed with adding held only; nil: nothing was
}

// New returns an Opener that goes by the rules.
func New(rules Rules) *Opener {
	roots := slices.Clone(rules.Roots)
	slices.SortStableFunc(roots, func(a, b string) int { return cmp.Compare(len(a), len(b)) })
	return &Opener{roots: roots, guarded: newGuard(rules.Guarded)}
}

// Guard has more files and directories, absolute paths, never read from now on, as
// those of Rules.Guarded.
func (o *Opener) Guard(paths ...string) {
	o.adding.Lock()
	defer o.adding.Unlock()
	all := o.guards()
	paths = slices.DeleteFunc(slices.Clone(paths), func(path string) bool {
		return slices.ContainsFunc(all, func(p *place) bool { return p.path == filepath.Clean(path) })
	})
	if len(paths) > 0 {
		all = slices.Concat(all, newGuard(paths))
		o.grown.Store(&all)
	}
}

// guards returns all that is guarded now.
func (o *Opener) guards() guard {
	if all := o.grown.Load(); all != nil {
		return *all
	}
	return o.guarded
}

// Open opens the file for reading. The error is a *push.Error with one of the
// codes InvalidFile, FileNotFound, FileUnreadable, FileNotRegular,
// FileNotAllowed, FileTooLarge and FileHangs, the last also where the context
// ended first.
func (o *Opener) Open(ctx context.Context, path string) (*File, error) {
	if err := push.CheckPath(path); err != nil {
		return nil, err
	}
	if !o.mayBe(path) {
		return nil, outside(path)
	}
	place := filepath.Clean(path)
	if dir := forbidden(place); dir != "" {
		return nil, notAllowed(path, dir)
	}
	if at := o.guards().given(place); at != "" {
		return nil, kept(path, at)
	}
	l := all.join(path)
	got, cached := o.openCached(path)
	if !cached {
		if on := got.identity.Device; on != 0 {
			l.isOn(on)
		}
		var err error
		if got, err = do(ctx, l, openPatience, func() found { return o.look(path) }, found.close); err != nil {
			got.err = hangs(path, err)
		}
	}
	if got.err != nil {
		l.leave()
		return nil, got.err
	}
	l.isOn(got.identity.Device)
	return newFile(o, got, l), nil
}

// mayBe reports whether the path, by its letters, is beneath a root.
func (o *Opener) mayBe(path string) bool {
	return len(o.roots) == 0 || slices.ContainsFunc(o.roots, func(dir string) bool {
		_, ok := beneath(dir, path)
		return ok
	})
}

// never returns the error of a path whose place, a clean path, is one that is
// never read. It goes by names, and asks nobody.
func (o *Opener) never(path, place string) error {
	if dir := forbidden(place); dir != "" {
		return notAllowed(path, dir)
	}
	if at := o.guards().named(place); at != "" {
		return kept(path, at)
	}
	return nil
}

func newFile(o *Opener, from found, l *line) *File {
	f := &File{opener: o, file: from.file, on: from.on, line: l, identity: from.identity, fd: -1}
	if raw, err := f.file.SyscallConn(); err == nil { // it fails for nil alone
		_ = raw.Control(func(fd uintptr) { f.fd = int(fd) })
	}
	return f
}

// found is what a path leads to.
type found struct {
	file     *os.File
	on       kind
	identity Identity
	err      error
}

func (f found) close() {
	if f.err == nil {
		f.file.Close()
	}
}

// look opens the file, however long that takes.
func (o *Opener) look(path string) found {
	f, on, err := o.open(path)
	if err != nil {
		return found{err: explain(path, err)}
	}
	info, err := f.Stat()
	if err == nil && info.Size() > MaxSize {
		err = push.Errorf(push.FileTooLarge, "file %s has %d bytes: an S3 object holds at most %d (5 TiB)",
			push.Quote(path), info.Size(), int64(MaxSize))
	}
	if err != nil {
		f.Close()
		return found{err: explain(path, err)}
	}
	return found{file: f, on: on, identity: identityOf(info)}
}

func identityOf(info fs.FileInfo) Identity {
	id := Identity{Size: info.Size(), ModTime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		id.Device, id.Inode, id.ChangedAt = uint64(st.Dev), uint64(st.Ino), changedAt(st)
	}
	return id
}

// Size returns the file's size in bytes when it was opened.
func (f *File) Size() int64 { return f.identity.Size }

// Identity returns the file's identity when it was opened.
func (f *File) Identity() Identity { return f.identity }

// Sync has the file's bytes put on disk, so that they survive a loss of power.
// The error is a *push.Error.
func (f *File) Sync(ctx context.Context) error {
	// The file is open for reading only, which fsync does not mind.
	err, hung := do(ctx, f.line, syncPatience, f.file.Sync, func(error) {})
	switch {
	case hung != nil:
		return hangs(f.line.path, hung)
	case err != nil:
		return &push.Error{Code: push.FileUnreadable, Err: err,
			Detail: "file " + push.Quote(f.line.path) + " could not be put on disk: " + reason(err) + ": see to the disk, and push it again"}
	}
	return nil
}

// Close closes the file. It does not wait where that may take its time. A second
// time it does nothing: the line has been left.
func (f *File) Close() error {
	f.closing.Lock()
	again := f.closed
	f.fd, f.closed = -1, true
	f.closing.Unlock()
	if again {
		return nil
	}
	if f.on == memory || f.on == disk && !f.unlinked.Load() {
		f.line.leave()
		return f.file.Close()
	}
	go func() {
		defer f.line.leave()
		f.line.close(f.file)
	}()
	return nil
}

// forbidden returns the directory of those never read that the clean absolute
// path lies in, or "".
func forbidden(path string) string {
	for _, dir := range []string{"/proc", "/sys", "/dev"} {
		if within(dir, path) {
			return dir
		}
	}
	return ""
}

func notAllowed(path, dir string) error {
	return push.Errorf(push.FileNotAllowed, "file %s is in %s, which the daemon never reads: copy it to a file of its own first", push.Quote(path), dir)
}

func kept(path, place string) error {
	return push.Errorf(push.FileNotAllowed, "file %s is %s, or in it, which the daemon keeps to itself: push another", push.Quote(path), push.Quote(place))
}

func outside(path string) error {
	return push.Errorf(push.FileNotAllowed, "file %s is not in the directories that S3DAEMON_ROOTS lists, or a link leads out of them: "+
		"put it there, without .. and links to elsewhere in its path", push.Quote(path))
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
	case errors.Is(err, errOutside):
		return outside(path)
	case errors.Is(err, errMoved):
		e.Detail = "what the path of file " + push.Quote(path) + " leads to changes faster than it can be opened: push it once that is over"
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		e.Code = push.FileNotFound
		e.Detail = "there is no file " + push.Quote(path) + " on the daemon's host (or it is a link that leads nowhere)"
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENAMETOOLONG):
		e.Code = push.InvalidFile
		e.Detail = "file " + push.Quote(path) + " cannot be: " + reason(err)
	case errors.Is(err, fs.ErrPermission):
		e.Detail = "the daemon, which runs as user " + uid() + ", may not read the file " + push.Quote(path) + ": change the permissions of the file or of a directory above it (which it must also be able to list beneath S3DAEMON_ROOTS)"
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

// hangs is the failure of a call that did not return in time, or that was not
// made because others did not.
func hangs(path string, err error) *push.Error {
	if crowd := (*crowdedError)(nil); errors.As(err, &crowd) {
		return &push.Error{Code: push.FileHangs, Err: err, RetryAfter: openPatience,
			Detail: fmt.Sprintf("file %s could not be looked at, since %s: see to the file systems of these, and push it again", push.Quote(path), crowd)}
	}
	return &push.Error{Code: push.FileHangs, Err: errHangs, RetryAfter: openPatience,
		Detail: "the file system of file " + push.Quote(path) + " does not answer: see to it (a network file system whose server is away?), and push the file again"}
}
