//go:build linux

// Package child starts the processes of a benchmark, and stops them as a
// service manager would.
package child

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// A Server is a child process that serves until it is stopped. What it logs is
// read all the time, as a service manager would read it, and only its end is
// kept.
type Server struct {
	name  string
	cmd   *exec.Cmd
	ended chan struct{} // closed once it has ended and its output is read

	mu   sync.Mutex // guards tail
	tail []byte
}

// Start has start, such as Tied, start cmd. ready is called with each line that
// it logs, until it returns true; Start returns then. The name is for errors.
func Start(ctx context.Context, name string, cmd *exec.Cmd, start func(*exec.Cmd) error, ready func(line string) bool) (*Server, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	cmd.Stdout, cmd.Stderr = in, in
	err = start(cmd)
	in.Close()
	if err != nil {
		out.Close()
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &Server{name: name, cmd: cmd, ended: make(chan struct{})}
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
func (s *Server) read(out *os.File, ready func(string) bool, isReady chan<- struct{}) {
	defer close(s.ended)
	defer s.cmd.Wait() //nolint:errcheck // Stop looks at ProcessState
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
func (s *Server) keep(b []byte) {
	const most = 2 << 10
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tail = append(s.tail, b[max(0, len(b)-most):]...)
	s.tail = s.tail[max(0, len(s.tail)-most):]
}

func (s *Server) lastWords() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.tail) == 0 {
		return ""
	}
	return "; it wrote last:\n" + string(s.tail)
}

// Stop ends the child as a service manager would, and reports one that does
// not end well.
func (s *Server) Stop() error {
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

// Pid is the number of the process.
func (s *Server) Pid() int { return s.cmd.Process.Pid }

func (s *Server) kill() {
	_ = s.cmd.Process.Kill()
	<-s.ended
}

// Listening returns a function that recognises the line with which the daemon,
// or send -listen, says that it accepts connections, and puts its address in
// *address.
func Listening(address *string) func(line string) bool {
	return func(line string) bool {
		var entry struct{ Msg, Address string }
		if json.Unmarshal([]byte(line), &entry) != nil || entry.Msg != "listening" || entry.Address == "" {
			return false
		}
		*address = entry.Address
		return true
	}
}

// Tied starts cmd such that the kernel ends it when this process dies without
// a chance to: a benchmark that is killed leaves nothing behind.
func Tied(cmd *exec.Cmd) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd.Start()
}

// Env is the environment of a child before its own variables: none of the
// user's, so that a run depends on nothing that is not seen, but with Go's own
// (GOGC, GODEBUG), for who wants to try them.
func Env() []string {
	env := []string{"PATH=" + os.Getenv("PATH"), "HOME=/nonexistent"}
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "GO") {
			env = append(env, v)
		}
	}
	return env
}
