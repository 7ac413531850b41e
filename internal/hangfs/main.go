//go:build linux

// Hangfs shows the files of a directory through a file system (FUSE) that hangs
// when it is told to, for tests of those who must bear that. It needs root, or
// CAP_SYS_ADMIN, and /dev/fuse.
//
//	hangfs DIRECTORY MOUNTPOINT
//
// It shows the regular files that lie in the directory itself. It says "ok" once
// it is mounted, and to each line of its standard input:
//
//	hang OPERATION NAME   from now on such requests for the file get no answer
//	fail OPERATION NAME   or EIO for one
//	wait NUMBER           says ok once as many requests have no answer
//	held                  says how many those are
//	wake                  forgets all of that, and answers what is open
//
// The operations are lookup, getattr, open, read, statfs, flush, fsync and
// release; "*" stands for any operation, or any name. It unmounts and ends with
// its standard input. It is a process of its own since one that waits for its
// own file system cannot even be killed.
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: hangfs DIRECTORY MOUNTPOINT")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "hangfs:", err)
		os.Exit(1)
	}
}

func run(dir, at string, in io.Reader, out io.Writer) error {
	device, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open /dev/fuse: %w", err)
	}
	options := fmt.Sprintf("fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other", device)
	if err := unix.Mount("hangfs", at, "fuse", unix.MS_NOSUID|unix.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	defer unix.Unmount(at, unix.MNT_DETACH)
	g := newGate()
	go newServer(device, dir, g).serve()
	fmt.Fprintln(out, "ok")
	for lines := bufio.NewScanner(in); lines.Scan(); {
		answer, err := obey(g, strings.Fields(lines.Text()))
		if err != nil {
			return err
		}
		fmt.Fprintln(out, answer)
	}
	g.wake()
	return nil
}

func obey(g *gate, words []string) (string, error) {
	switch {
	case len(words) == 3 && words[0] == "hang":
		g.add(rule{operation: words[1], name: words[2]})
	case len(words) == 3 && words[0] == "fail":
		g.add(rule{operation: words[1], name: words[2], fails: true})
	case len(words) == 2 && words[0] == "wait":
		n, err := strconv.Atoi(words[1])
		if err != nil {
			return "", err
		}
		g.await(n)
	case len(words) == 1 && words[0] == "held":
		return strconv.Itoa(g.count()), nil
	case len(words) == 1 && words[0] == "wake":
		g.wake()
	default:
		return "", fmt.Errorf("no such command: %q", words)
	}
	return "ok", nil
}
