package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// preparedMark is a file in each directory that was prepared, with the number of
// the user it was given to. It is ours, whoever has the directory, so that nobody
// can have a directory given away by putting one there.
const preparedMark = ".s3daemon-prepared"

// held is a directory that is taken hold of, by its name and no link, for which
// no permission is needed.
type held struct {
	*os.File
	path string
	is   unix.Stat_t // as it was found
}

// giveDirectory gives the directory to the owner. It needs the right to give
// things away (CAP_CHOWN) and no other: so it takes the directory to itself first,
// and gives it away when all else is done.
func giveDirectory(dir string, to owner, mode int) error {
	d, err := hold(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if mode == asItIs {
		mode = int(d.is.Mode) & 0o7777
	}
	if int(d.is.Uid) == to.uid && int(d.is.Gid) == to.gid && int(d.is.Mode)&0o7777 == mode {
		return nil // for which no rights are needed: so at the second start
	}
	before, marked := d.readMark()
	if err := d.takes(to, marked); err != nil {
		return err
	}
	if err := d.chown(owner{os.Geteuid(), to.gid}); err != nil {
		return err
	}
	// By the directory's new group, without which the set-group-ID bit would be lost.
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(int(d.Fd())), uint32(mode)); err != nil {
		return &os.PathError{Op: "chmod", Path: dir, Err: err}
	}
	if marked && before != to.uid {
		if err := d.giveFiles(before, to.uid); err != nil {
			return err
		}
	}
	if err := d.mark(to.uid); err != nil {
		return err
	}
	return d.chown(to)
}

func hold(dir string) (*held, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: dir, Err: err}
	}
	d := &held{File: os.NewFile(uintptr(fd), dir), path: dir}
	if err := unix.Fstat(fd, &d.is); err != nil {
		d.Close()
		return nil, &os.PathError{Op: "stat", Path: dir, Err: err}
	}
	return d, nil
}

// takes says why the directory is not one to give away, if it is not: it is that
// user's already, or was given to another before, or nothing is in it. What holds
// something else may be a directory of the host that was named by mistake, or
// that a link leads to.
func (d *held) takes(to owner, marked bool) error {
	if int(d.is.Uid) == to.uid || marked {
		return nil
	}
	names, err := d.names()
	if err == nil && (len(names) == 0 || len(names) == 1 && names[0] == "lost+found") {
		return nil
	}
	why := "something is in it"
	if err != nil {
		why = err.Error()
	}
	return fmt.Errorf("%s is the user %d's, and not known to be empty (%s), so it is not given away: name another directory, or, if it is this one, say so by chown %d:%d",
		d.path, d.is.Uid, why, to.uid, to.gid)
}

// names returns those in the directory.
func (d *held) names() ([]string, error) {
	fd, err := unix.Openat(int(d.Fd()), ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	readable := os.NewFile(uintptr(fd), d.path)
	defer readable.Close()
	return readable.Readdirnames(-1)
}

func (d *held) chown(to owner) error {
	if err := unix.Fchownat(int(d.Fd()), "", to.uid, to.gid, unix.AT_EMPTY_PATH); err != nil {
		return &os.PathError{Op: "chown", Path: d.path, Err: err}
	}
	return nil
}

// readMark returns the user to whom the directory was given before, -1 if that is
// not known, and whether it was prepared.
func (d *held) readMark() (uid int, marked bool) {
	f, err := d.openMark(unix.O_RDONLY)
	if err != nil {
		return -1, false
	}
	defer f.Close()
	if _, err := fmt.Fscan(io.LimitReader(f, 20), &uid); err != nil {
		return -1, true // it ended while it wrote
	}
	return uid, true
}

// mark leaves word of whose the directory is.
func (d *held) mark(uid int) error {
	f, err := d.openMark(unix.O_WRONLY | unix.O_CREAT)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, uid)
	return err
}

// openMark opens the mark, if it is ours and has no other name.
func (d *held) openMark(flags int) (*os.File, error) {
	path := filepath.Join(d.path, preparedMark)
	fd, err := unix.Openat(int(d.Fd()), preparedMark, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil || int(is.Uid) != os.Geteuid() || !single(is) {
		f.Close()
		return nil, fmt.Errorf("%s is not what prepare made: remove it", path)
	}
	return f, nil
}

// giveFiles gives the regular files directly in the directory that are the one
// user's to the other: the journal, which nobody else may read.
func (d *held) giveFiles(from, to int) error {
	names, err := d.names()
	if err != nil {
		return &os.PathError{Op: "read", Path: d.path, Err: err}
	}
	for _, name := range names {
		if err := d.giveFile(name, from, to); err != nil {
			return &os.PathError{Op: "chown", Path: filepath.Join(d.path, name), Err: err}
		}
	}
	return nil
}

// giveFile leaves a file as it is that has another name somewhere else, or is not
// that user's.
func (d *held) giveFile(name string, from, to int) error {
	fd, err := unix.Openat(int(d.Fd()), name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var is unix.Stat_t
	if err := unix.Fstat(fd, &is); err != nil {
		return err
	}
	if name == preparedMark || int(is.Uid) != from || !single(is) {
		return nil
	}
	return unix.Fchownat(fd, "", to, -1, unix.AT_EMPTY_PATH)
}

// single reports whether it is a regular file with one name.
func single(is unix.Stat_t) bool {
	return is.Mode&unix.S_IFMT == unix.S_IFREG && is.Nlink == 1
}
