//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"github.com/lsst-dm/s3daemon/internal/child"
)

// A storeProcess is the store that discards, in a process of its own.
type storeProcess struct {
	url   string
	cmd   *exec.Cmd
	stdin io.Closer
	out   *bufio.Reader
}

// startStore runs this program once more, as the store.
func startStore(silent bool) (*storeProcess, error) {
	args := []string{"store"}
	if silent {
		args = append(args, "silent")
	}
	cmd, err := self(args...)
	if err != nil {
		return nil, err
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	if err := child.Tied(cmd); err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	s := &storeProcess{cmd: cmd, stdin: stdin, out: bufio.NewReader(stdout)}
	line, err := s.out.ReadString('\n')
	if err != nil {
		stdin.Close()
		return nil, errors.Join(fmt.Errorf("start the store: %w", err), cmd.Wait())
	}
	s.url = strings.TrimSpace(line)
	return s, nil
}

// stop ends the store and returns what it has seen.
func (s *storeProcess) stop() (storeStats, error) {
	s.stdin.Close()
	var stats storeStats
	err := json.NewDecoder(s.out).Decode(&stats)
	if err = errors.Join(err, s.cmd.Wait()); err != nil {
		return stats, fmt.Errorf("stop the store: %w", err)
	}
	return stats, nil
}

// self returns a command that runs this program with other arguments.
func self(args ...string) (*exec.Cmd, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	return exec.Command(exe, args...), nil
}
