package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// owner is whom directories are given to.
type owner struct{ uid, gid int }

// prepare makes directories, and gives them to a user and a group: what a
// container does as root before the daemon starts as somebody else, where the
// directories are the node's.
func prepare(args []string) error {
	set := flag.NewFlagSet("prepare", flag.ContinueOnError)
	set.SetOutput(io.Discard)
	modeText := set.String("mode", "", "")
	err := set.Parse(args)
	mode, mistake := parseDirectoryMode(*modeText)
	if err = errors.Join(err, mistake); err == nil {
		err = checkPrepare(set.Args())
	}
	if err != nil {
		return usageError{fmt.Errorf("s3daemon prepare: %w (s3daemon -help has the usage)", err)}
	}
	to, err := parseOwner(set.Arg(0))
	if err != nil {
		return usageError{fmt.Errorf("s3daemon prepare: %w", err)}
	}
	var failed []error
	for _, dir := range set.Args()[1:] {
		if err := prepareDirectory(dir, to, mode); err != nil {
			failed = append(failed, fmt.Errorf("prepare: %w", err))
		}
	}
	return errors.Join(failed...)
}

// checkPrepare checks what stands behind the options. What looks like one there is no
// directory that anybody wants: who does writes ./-x.
func checkPrepare(args []string) error {
	for _, arg := range args {
		if strings.HasPrefix(arg, "-") {
			return fmt.Errorf("%q is no UID:GID or DIR, and options stand before these", arg)
		}
	}
	switch {
	case len(args) == 0:
		return errors.New("UID:GID and a DIR at least are missing")
	case len(args) == 1 && !strings.Contains(args[0], ":"):
		return fmt.Errorf("UID:GID is missing before %q", args[0])
	case len(args) == 1:
		return fmt.Errorf("a DIR at least is missing after %q", args[0])
	}
	return nil
}

// asItIs is the mode of which nothing was said.
const asItIs = -1

// parseDirectoryMode reads the octal bits of chmod, of which the set-group-ID bit
// has what is made in a directory belong to the directory's group.
func parseDirectoryMode(text string) (int, error) {
	if text == "" {
		return asItIs, nil
	}
	mode, err := strconv.ParseUint(text, 8, 32)
	if err != nil || mode > 0o7777 {
		return 0, fmt.Errorf("-mode is %q, which is not an octal mode such as 0755 or 2775", text)
	}
	return int(mode), nil
}

// parseOwner reads numbers: an image from scratch has no names.
func parseOwner(text string) (owner, error) {
	user, group, _ := strings.Cut(text, ":")
	uid, err := strconv.ParseUint(user, 10, 31)
	gid, groupErr := strconv.ParseUint(group, 10, 31)
	if err != nil || groupErr != nil {
		return owner{}, fmt.Errorf("%q is not UID:GID, two numbers such as 65532:65532", text)
	}
	return owner{int(uid), int(gid)}, nil
}

// prepareDirectory makes one, with what is missing above it, and gives that one
// to the owner, with the files directly in it that were the owner's before him.
// One that is there already keeps its mode unless one was named. A link is
// refused as the last element, since who may put one there could have any
// directory given away; and so is, where a link above is followed or a name is
// wrong, what has not been made for a daemon: see takes.
func prepareDirectory(dir string, to owner, mode int) error {
	if dir == "" {
		return errors.New("a DIR is empty")
	}
	dir = filepath.Clean(dir) // a slash at the end would have a link followed
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	switch err := os.Mkdir(dir, 0o755); {
	case err == nil && mode == asItIs:
		mode = 0o755 // whatever the umask says
	case err != nil && !errors.Is(err, os.ErrExist):
		return err
	}
	if is, err := os.Lstat(dir); err == nil && is.Mode()&os.ModeSymlink != 0 {
		return fmt.Errorf("%s is a link: name the directory that it leads to", dir)
	}
	return giveDirectory(dir, to, mode)
}
