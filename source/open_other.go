//go:build !linux

package source

import (
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// open is what can be had without O_PATH: enough to try the daemon on another
// system. Where there are no roots, a file swapped for a link between the look
// and the open is read; where there are, it is beneath them all the same.
func (o *Opener) open(path string) (*os.File, kind, error) {
	o.guards().refresh()
	resolved, err := filepath.EvalSymlinks(path)
	if err == nil {
		err = o.never(path, resolved)
	} else if len(o.roots) > 0 {
		err = nil // which tells what is outside; take knows what is not
	}
	if err != nil {
		return nil, remote, err
	}
	var f *os.File
	if len(o.roots) > 0 {
		v := o.view(path)
		defer v.close()
		f, err = v.take(openIn)
	} else {
		f, err = os.OpenFile(resolved, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	}
	if err != nil {
		return nil, remote, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = notRegular(path, info.Mode())
	}
	if err == nil {
		is := identityOf(info)
		id := fileID{is.Device, is.Inode}
		if p := o.guards().of(id); p != nil && p.isStill(id) {
			err = kept(path, p.path)
		}
	}
	if err != nil {
		f.Close()
		return nil, remote, err
	}
	return f, remote, nil
}

// openIn opens a name below a root.
func openIn(r *os.Root, name string) (*os.File, error) {
	return r.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
}

// stat looks at what the path leads to, by the rules.
func (o *Opener) stat(path string) (fs.FileInfo, error) {
	if len(o.roots) == 0 {
		return os.Stat(path)
	}
	v := o.view(path)
	defer v.close()
	f, err := v.take(openIn)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Stat()
}

func realpath(path string) (string, error) { return filepath.EvalSymlinks(path) }

// changedAt knows nothing: each system has another name for it.
func changedAt(*syscall.Stat_t) time.Time { return time.Time{} }

func uid() string { return strconv.Itoa(os.Geteuid()) }
