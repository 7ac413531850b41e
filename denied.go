package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// denied adds to an error that says no more than "permission denied" who the
// daemon is, whose the directory is, and what to do. Other errors it returns.
func denied(dir string, err error) error {
	if !errors.Is(err, fs.ErrPermission) {
		return err
	}
	var at *fs.PathError
	if errors.As(err, &at) {
		dir = filepath.Dir(at.Path)
	}
	return fmt.Errorf("%w: the daemon is the user and group %d:%d, %s: give the directory, and what is in it, to the daemon's user (chown; in a container `s3daemon prepare`; in a pod podSecurityContext.fsGroup), or choose another by S3DAEMON_DATA_DIR",
		err, os.Geteuid(), os.Getegid(), whoHas(dir, at))
}

// whoHas says whose the directory is, or, where it is not there, the next one
// above it; and whose the file in it is that could not be opened.
func whoHas(dir string, at *fs.PathError) string {
	info, err := os.Lstat(dir)
	for ; err != nil && dir != filepath.Dir(dir); info, err = os.Lstat(dir) {
		dir = filepath.Dir(dir)
	}
	said := owned(dir, info)
	if at != nil {
		if info, err := os.Lstat(at.Path); err == nil {
			said += ", " + owned(at.Path, info)
		}
	}
	return said
}

// owned says whose a file is, and who may do what with it.
func owned(path string, info fs.FileInfo) string {
	if info == nil {
		return path + " cannot be seen"
	}
	is, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return fmt.Sprintf("%s has mode %v", path, info.Mode())
	}
	return fmt.Sprintf("%s is %d:%d with mode %v", path, is.Uid, is.Gid, info.Mode())
}
