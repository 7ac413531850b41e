package journal

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"go.etcd.io/bbolt"
)

// hasName reports whether the open file is still the one at path.
func hasName(file *os.File, path string) (bool, error) {
	open, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(open, named), err
}

// create makes an empty journal in dir, unless there is one. It gets its name
// only when it is whole and on disk, so that no loss of power leaves half of
// one.
func create(l *locker, dir string) error {
	file, err := l.openLocked(filepath.Join(dir, newName), os.O_CREATE)
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	db, err := createDatabase(file)
	if err == nil {
		err = file.Sync()
	}
	if err == nil {
		err = publish(dir)
	}
	if err == nil {
		err = syncDir(dir)
	}
	if db != nil {
		err = errors.Join(err, db.Close())
	} else {
		_ = file.Close() // it may be closed already
	}
	if err != nil {
		return fmt.Errorf("make it: %w", err)
	}
	return nil
}

// publish gives the new file its name, unless another process was faster. The
// lock on the new file sees to it that none can be from here on.
func publish(dir string) error {
	from, to := filepath.Join(dir, newName), filepath.Join(dir, fileName)
	if _, err := os.Stat(to); err == nil { // a link that leads nowhere is in nobody's way
		return os.Remove(from)
	}
	return os.Rename(from, to)
}

// createDatabase makes the file an empty database with our buckets, whatever
// an earlier attempt has left in it.
func createDatabase(file *os.File) (*bbolt.DB, error) {
	if err := file.Truncate(0); err != nil {
		return nil, err
	}
	db, err := openDatabase(file)
	if err != nil {
		return nil, err
	}
	return db, db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{nameQueue, nameHistory, nameKeys, nameUploads, nameParts, nameMeta} {
			if _, err := tx.CreateBucket(name); err != nil {
				return err
			}
		}
		return errors.Join(
			putNumbers(tx.Bucket(nameMeta), metaVersion, version),
			putTotals(tx.Bucket(nameMeta), totals{}))
	})
}

// How bbolt gets memory and disk space.
const (
	// mapSize is what of the file is mapped from the start. bbolt maps anew when
	// the file outgrows that, and has to wait for all readers then. It is
	// address space, not memory.
	mapSize = 1 << 30
	// growSize is what the file grows by.
	growSize = 4 << 20
)

// openDatabase opens a locked file as a database, which closes it in the end.
// The file must have passed check, or be empty.
//
// The list of free pages is not written: after a large queue has been worked
// off it is long, and would be part of each transaction. bbolt makes it anew
// when it opens the file.
func openDatabase(file *os.File) (db *bbolt.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, damaged("bbolt: %v", p) // in spite of the check
		}
	}()
	options := &bbolt.Options{
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		NoStatistics:   true,
		OpenFile:       func(string, int, os.FileMode) (*os.File, error) { return file, nil },
	}
	if strconv.IntSize > 32 {
		options.InitialMmapSize = mapSize
	}
	db, err = bbolt.Open(file.Name(), 0o600, options)
	if err != nil {
		return nil, err
	}
	db.AllocSize = growSize
	return db, nil
}

// moveAside gives the unreadable file another name.
func (j *Journal) moveAside(why error) error {
	to := j.path() + ".unreadable-" + j.cfg.now().UTC().Format("20060102T150405Z")
	for name, i := to, 2; ; i++ {
		if _, err := os.Lstat(to); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return err
		}
		to = name + "-" + strconv.Itoa(i)
	}
	if err := os.Rename(j.path(), to); err != nil {
		return fmt.Errorf("move it aside, since it cannot be read (%w): %w", why, err)
	}
	j.movedAside = to
	j.cfg.Log.Error("the journal cannot be read; it was moved aside and a new one begun, so pushes accepted before may not be delivered",
		"file", j.path(), "moved_to", to, "error", why)
	return syncDir(j.cfg.Dir)
}

// makeDir makes a directory that others cannot read, with its parents, and
// puts their names on disk.
func makeDir(dir string) error {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return err
	}
	parent := filepath.Dir(dir)
	err = os.Mkdir(dir, 0o700)
	if errors.Is(err, fs.ErrNotExist) && parent != dir {
		if err := makeDir(parent); err != nil {
			return err
		}
		err = os.Mkdir(dir, 0o700)
	}
	switch info, statErr := os.Stat(dir); {
	case err == nil:
		return syncDir(parent)
	case statErr == nil && info.IsDir():
		// It may be from a start that did not get as far as to sync it. A parent
		// that we may not open is somebody else's, and so is its sync.
		_ = syncDir(parent)
		return nil
	case statErr == nil:
		return &fs.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
	}
	return err
}

// syncDir puts the names in a directory on disk.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) {
		err = nil // a file system that has no such thing
	}
	return errors.Join(err, d.Close())
}
