// Package secret reads secrets that are in files, and reads them again once the
// files change: whoever changes a password need not restart anything.
//
//	tokens, err := secret.Open("/run/secrets/token", parseTokens, func(err error) { log.Warn(err.Error()) })
//	...
//	tokens.Get() // as the file has them now
//
// A file is looked at when its value is asked for, and at most once a second.
// What a link leads to counts, so a directory that Kubernetes switches is seen.
// A content that is none, since the file is just being written, or is gone,
// changes nothing but the log: the last good one goes on to count.
//
// No error has anything of a content in it, as long as what parse returns has
// not; nor the name of what is no file, which may be a secret in its place.
package secret

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// maxBytes is how long a file may be.
const maxBytes = 64 << 10

const (
	// lookEvery is between two looks at a file.
	lookEvery = time.Second
	// settledAfter is how old a change must be for the next to have another time:
	// file systems count in steps, the coarsest of two seconds.
	settledAfter = 2 * time.Second
)

// File is a file with a secret, of which parse makes a T. Its methods may be
// called by many goroutines at once.
type File[T any] struct {
	path  string
	parse func([]byte) (T, error)
	bad   func(error)
	value atomic.Pointer[T]

	looking sync.Mutex  // guards all below; who does not get it takes the value as it is
	looked  time.Time   // when the file was looked at
	read    time.Time   // when it was read
	info    fs.FileInfo // of what was read
	failure string      // why the last look came to nothing, told already; empty: it did not
}

// Open reads the file. From then on bad is told, once, of each content that
// cannot be read or parsed. It may be nil.
func Open[T any](path string, parse func([]byte) (T, error), bad func(error)) (*File[T], error) {
	f := &File[T]{path: path, parse: parse, bad: bad}
	f.looked = time.Now()
	if err := f.readAgain(); err != nil {
		return nil, err
	}
	return f, nil
}

// Get returns the secret as the file has it, or had it last.
func (f *File[T]) Get() T {
	if f.looking.TryLock() {
		f.look()
		f.looking.Unlock()
	}
	return *f.value.Load()
}

// Path returns where the file is.
func (f *File[T]) Path() string { return f.path }

// Exposed reports whether users may read or write the file, or could when it was
// read, who are neither its owner nor of its group.
func (f *File[T]) Exposed() bool {
	f.looking.Lock()
	defer f.looking.Unlock()
	return f.info.Mode().Perm()&0o006 != 0
}

// look reads the file anew if it has changed and it is time to look.
func (f *File[T]) look() {
	now := time.Now()
	if now.Sub(f.looked) < lookEvery {
		return
	}
	f.looked = now
	info, err := os.Stat(f.path)
	if err == nil && f.failure == "" && os.SameFile(info, f.info) && info.Size() == f.info.Size() && info.ModTime().Equal(f.info.ModTime()) &&
		f.read.Sub(info.ModTime()) > settledAfter {
		return
	}
	if err == nil {
		err = f.readAgain()
	}
	switch {
	case err == nil:
		f.failure = ""
	case err.Error() != f.failure:
		f.failure = err.Error()
		if f.bad != nil {
			f.bad(fmt.Errorf("what was read of it before goes on to count: %w", err))
		}
	}
}

// readAgain takes over what the file has now.
func (f *File[T]) readAgain() error {
	info, content, err := Read(f.path, maxBytes)
	if err != nil {
		return err
	}
	value, err := f.parse(content)
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, err)
	}
	f.value.Store(&value)
	f.info, f.read = info, f.looked
	return nil
}

// Read reads a regular file of that many bytes at most. Any other is left alone,
// also one that takes its place just then: a FIFO would be waited for, and what
// is read of it is gone. The info is of what was read.
func Read(path string, most int64) (fs.FileInfo, []byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, nil, unseen(err)
	}
	if err = wantRegular(path, info); err != nil {
		return nil, nil, err
	}
	file, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	defer file.Close()
	if info, err = file.Stat(); err == nil {
		err = wantRegular(path, info)
	}
	if err != nil {
		return nil, nil, err
	}
	content, err := io.ReadAll(io.LimitReader(file, most+1))
	if err == nil && int64(len(content)) > most {
		err = fmt.Errorf("%s has more than %d bytes", path, most)
	}
	return info, content, err
}

// unseen says why a file cannot be looked at, and not what it is called: somebody may
// have given the secret itself for its name.
func unseen(err error) error {
	if named, ok := errors.AsType[*fs.PathError](err); ok {
		err = named.Err
	}
	return fmt.Errorf("the file that it names cannot be looked at: %w", err)
}

func wantRegular(path string, info fs.FileInfo) error {
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is not a regular file", path)
	}
	return nil
}
