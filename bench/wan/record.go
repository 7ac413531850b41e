//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// recordPath is the record of all runs on a host. Only root writes there, and
// it is emptied when the host starts, which resets the variables too.
const recordPath = "/run/s3daemon-wan"

// A record is a file that has what a run has changed on the host, a line for
// each change, until that is undone. Where the run was killed the next one
// does it. The file is locked as long as the run lasts: there is one at a time.
type record struct{ file *os.File }

// A change is a variable that was set, or a directory that was made.
type change struct {
	Variable string `json:"variable,omitempty"` // its file
	Before   string `json:"before,omitempty"`
	Dir      string `json:"dir,omitempty"`
}

// openRecord opens the record at path and undoes what is in it. It is an error
// while another run has it.
func openRecord(path string, progress io.Writer) (*record, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	r := &record{f}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("another run has %s locked: two at once would change each other's host", path)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	n, err := r.undo()
	if err != nil {
		f.Close()
		return nil, err
	}
	if n > 0 {
		fmt.Fprintln(progress, "the run before this one was killed: what it had changed on the host is undone")
	}
	return r, nil
}

// set gives a variable a value.
func (r *record) set(variable, value string) error {
	before, err := os.ReadFile(variable)
	if err == nil {
		err = r.add(change{Variable: variable, Before: string(before)})
	}
	if err == nil {
		err = os.WriteFile(variable, []byte(value), 0)
	}
	if err != nil {
		return fmt.Errorf("set a variable of the host: %w", err)
	}
	return nil
}

// makeDir makes a directory of this run, which the daemon, that has no
// privileges, can read.
func (r *record) makeDir(in string) (string, error) {
	dir, err := os.MkdirTemp(in, "s3daemon-wan-")
	if err != nil {
		return "", fmt.Errorf("make a directory: %w", err)
	}
	if err := r.add(change{Dir: dir}); err != nil {
		return "", errors.Join(err, os.Remove(dir))
	}
	return dir, os.Chmod(dir, 0o755)
}

// add writes a change down in one piece.
func (r *record) add(c change) error {
	line, err := json.Marshal(c)
	if err == nil {
		_, err = r.file.Write(append(line, '\n'))
	}
	return err
}

// undo undoes all changes, the last one first, and returns how many there
// were. What was not undone stays in the record.
func (r *record) undo() (int, error) {
	changes, err := r.changes()
	for _, c := range slices.Backward(changes) {
		if c.Variable != "" {
			err = errors.Join(err, os.WriteFile(c.Variable, []byte(c.Before), 0))
		} else {
			err = errors.Join(err, os.RemoveAll(c.Dir))
		}
	}
	if err == nil {
		err = r.file.Truncate(0)
	}
	if err != nil {
		return 0, fmt.Errorf("undo what %s says (remove that file once it is done): %w", r.file.Name(), err)
	}
	return len(changes), nil
}

func (r *record) changes() ([]change, error) {
	if _, err := r.file.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	var all []change
	for lines := json.NewDecoder(r.file); ; {
		var c change
		if err := lines.Decode(&c); err == io.EOF {
			return all, nil
		} else if err != nil {
			return all, err
		}
		all = append(all, c)
	}
}

// close undoes all changes and lets the next run have the record.
func (r *record) close() error {
	_, err := r.undo()
	return errors.Join(err, r.file.Close())
}
