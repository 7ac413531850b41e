package source

import (
	"context"
	"errors"
	"io/fs"
	"syscall"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// Check reports, as a *push.Error, what has become of the file since it was
// opened; the package comment has the table. Call it after the last byte was
// read. When the context ends it has a second left.
func (f *File) Check(ctx context.Context) error {
	if p := f.readErr.Load(); p != nil {
		return explain(f.line.path, *p)
	}
	if f.on == remote {
		return f.checkSlowly(ctx, f.compare)
	}
	if err := f.compareSelf(); err != nil || f.keepsName() {
		return err
	}
	return f.checkSlowly(ctx, f.compareName)
}

// checkSlowly calls the function where it may wait.
func (f *File) checkSlowly(ctx context.Context, compare func() error) error {
	ctx, cancel := outlast(ctx, parting)
	defer cancel()
	err, hung := do(ctx, f.line, openPatience, compare, func(error) {})
	if hung != nil {
		return hangs(f.line.path, hung)
	}
	return err
}

// outlast returns a context that ends that much later.
func outlast(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	later, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return later, func() {
		stop()
		cancel()
	}
}

func (f *File) compare() error {
	if err := f.compareSelf(); err != nil {
		return err
	}
	return f.compareName()
}

// compareSelf compares the open file with what it was.
func (f *File) compareSelf() error {
	info, err := f.file.Stat()
	if err != nil {
		return explain(f.line.path, err)
	}
	if info.Size() != f.identity.Size || !info.ModTime().Equal(f.identity.ModTime) {
		return push.Errorf(push.FileChanged, "file %s changed while it was sent (%d bytes before, %d now): push it once its writer has closed it",
			push.Quote(f.line.path), f.identity.Size, info.Size())
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Nlink == 0 {
		f.unlinked.Store(true)
	}
	return nil
}

// compareName looks whether the path leads to the file still. One that leads
// nowhere will do: nothing is there that somebody could lose. While the file is
// open its mount stays, so that what has another device is another file. One
// that leads where nothing may be read leads to another file, whether there is
// one or not.
func (f *File) compareName() error {
	info, err := f.opener.stat(f.line.path)
	known, _ := errors.AsType[*push.Error](err)
	refused := errors.Is(err, errOutside) || known != nil && known.Code == push.FileNotAllowed
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil
	case err != nil && !refused && !errors.Is(err, errMoved) && !errors.Is(err, syscall.ELOOP):
		return explain(f.line.path, err)
	case err != nil || !sameInode(identityOf(info), f.identity) || !identityOf(info).Same(f.identity):
		return push.Errorf(push.FileChanged, "another file took the name %s while it was sent: push it once its writer has renamed it to that", push.Quote(f.line.path))
	}
	return nil
}

func sameInode(a, b Identity) bool { return a.Device == b.Device && a.Inode == b.Inode }
