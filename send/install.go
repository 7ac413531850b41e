package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
)

// install copies this program into the directory, as send: what an init container
// does for a writer whose image has none, by a directory that both mount. The name
// is there only once all of the file is, so that nobody ever runs half of it.
func install(dir string) error {
	if dir == "" {
		return errors.New("DIR is empty: give the directory to copy send into")
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	from, err := os.Open(self)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.CreateTemp(dir, ".send-*")
	if err != nil {
		return err
	}
	defer os.Remove(to.Name()) // there is none any more where all went well
	_, err = io.Copy(to, from)
	// Closed before it has its name: what is open for writing cannot be run.
	if err := errors.Join(err, to.Chmod(0o555), to.Sync(), to.Close()); err != nil {
		return err
	}
	return os.Rename(to.Name(), filepath.Join(dir, "send"))
}
