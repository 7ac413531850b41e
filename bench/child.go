//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds how long a child may take to say that it is ready, and
// stopTimeout how long to end once it was asked to: longer than the daemon's
// own drain.
const (
	startTimeout = 20 * time.Second
	stopTimeout  = 40 * time.Second
)

// A server is a child process that serves until it is stopped: the daemon, or
// the listener of the legacy protocol. What it logs is read all the time, as
// a service manager would read it, and only its end is kept.
type server struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has ended and its output is read

	mu   sync.Mutex // guards tail
	tail []byte
}

// startServer starts cmd. ready is called with each line that it logs, until
// it returns true; startServer returns then.
func startServer(ctx context.Context, name string, cmd *exec.Cmd, ready func(line string) bool) (*server, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	tieToParent(cmd)
	err = cmd.Start()
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &server{name: name, cmd: cmd, ended: make(chan struct{})}
	isReady := make(chan struct{})
	go s.read(out, ready, isReady)

	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-isReady:
		return s, nil
	case <-s.ended:
		return nil, fmt.Errorf("start %s: it ended at once (%v)%s", name, cmd.ProcessState, s.lastWords())
	case <-ctx.Done():
		s.kill()
		return nil, fmt.Errorf("start %s: it never became ready: %w%s", name, ctx.Err(), s.lastWords())
	}
}

// read follows the child's output to its end, then reaps it.
func (s *server) read(out *os.File, ready func(string) bool, isReady chan<- struct{}) {
	defer close(s.ended)
	defer s.cmd.Wait() //nolint:errcheck // stop looks at ProcessState
	defer out.Close()
	br := bufio.NewReaderSize(out, 64<<10)
	for waiting := true; waiting; {
		line, err := br.ReadString('\n')
		s.keep([]byte(line))
		if err != nil {
			return
		}
		if ready(strings.TrimSpace(line)) {
			close(isReady)
			waiting = false
		}
	}
	buf := make([]byte, 64<<10)
	for {
		n, err := br.Read(buf)
		s.keep(buf[:n])
		if err != nil {
			return
		}
	}
}

// keep remembers the end of what the child has written.
func (s *server) keep(b []byte) {
	const most = 2 << 10
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, b[max(0, len(b)-most):]...)
	s.tail = s.tail[max(0, len(s.tail)-most):]
}

func (s *server) lastWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail) == 0 {
		return ""
	}
	return "; it wrote last:\n" + string(s.tail)
}

// stop ends the child as a service manager would, and reports one that does
// not end well.
func (s *server) stop() error {
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		s.kill()
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	select {
	case <-s.ended:
	case <-time.After(stopTimeout):
		s.kill()
		return fmt.Errorf("stop %s: it did not end on SIGTERM%s", s.name, s.lastWords())
	}
	if !s.cmd.ProcessState.Success() {
		return fmt.Errorf("stop %s: %v%s", s.name, s.cmd.ProcessState, s.lastWords())
	}
	return nil
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// daemonReady returns a function that recognises the line with which the
// daemon says that it accepts connections, and puts its address in *address.
func daemonReady(address *string) func(line string) bool {
	return func(line string) bool {
		var entry struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "listening" || entry.Address == "" {
			return false
		}
		*address = entry.Address
		return true
	}
}

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
	tieToParent(cmd)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start the store: %w", err)
	}
	if err := cmd.Start(); err != nil {
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
