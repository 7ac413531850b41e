package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// terminal is a pseudo-terminal for a process.
type terminal struct {
	master, slave *os.File
}

func openTerminal(t *testing.T, lines, columns uint16) *terminal {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Skip("no pseudo-terminals here: ", err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { slave.Close() })
	if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: lines, Col: columns}); err != nil {
		t.Fatal(err)
	}
	return &terminal{master, slave}
}

// run runs the command on the terminal and returns its exit status and what it
// showed. watch is called with each frame, which is what was on the screen
// before it was drawn anew.
func (term *terminal) run(t *testing.T, cmd *exec.Cmd, watch func(frame []string)) (status int, end []string) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	term.slave.Close() // so that the process has the last one, and its end ends the reading
	var s screen
	in := bufio.NewReader(term.master)
	for {
		c, _, err := in.ReadRune()
		if err != nil {
			if !errors.Is(err, io.EOF) && !errors.Is(err, syscall.EIO) {
				t.Error(err)
			}
			break
		}
		if c == 0x1b {
			s.escape(t, in, watch)
			continue
		}
		s.put(c)
	}
	err := cmd.Wait()
	if _, isExit := errors.AsType[*exec.ExitError](err); err != nil && !isExit {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), s.shown()
}

// screen is what a terminal does with what it is sent, as far as it is sent it
// here.
type screen struct {
	lines  []string
	row    int
	atLine bool // the cursor is at the line's beginning: what comes replaces the line
}

func (s *screen) put(c rune) {
	switch c {
	case '\r':
		s.atLine = true
	case '\n':
		s.row++
	default:
		for len(s.lines) <= s.row {
			s.lines = append(s.lines, "")
		}
		if s.atLine {
			s.lines[s.row], s.atLine = "", false
		}
		s.lines[s.row] += string(c)
	}
}

// escape carries out what follows an escape character: up some lines, or erase
// all that is below.
func (s *screen) escape(t *testing.T, in *bufio.Reader, watch func([]string)) {
	var n int
	var what rune
	if b, err := in.Peek(2); err == nil && string(b) == "[J" {
		in.Discard(2)
		s.lines = s.lines[:min(s.row, len(s.lines))]
		return
	}
	if _, err := fmt.Fscanf(in, "[%d%c", &n, &what); err != nil || what != 'A' {
		t.Errorf("escape sequence of %d and %q: %v", n, what, err)
		return
	}
	watch(s.shown())
	s.row = max(s.row-n, 0)
}

// shown is the lines without the empty ones at the end.
func (s *screen) shown() []string {
	return strings.Split(strings.TrimRight(strings.Join(s.lines, "\n"), "\n"), "\n")
}

// TestBars runs a batch on a terminal.
func TestBars(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	term := openTerminal(t, 24, 100)
	args := []string{"-progress", "-json", "/steps", "/waits", "/retries", "/quick", "/fails", "/missing", "/held"}
	cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, append(args, "s3://bkt/d/")...)
	cmd.Stdout, cmd.Stderr = term.slave, term.slave
	seen, interrupted := make(map[string]bool), false
	looks := map[string][]string{ // what is in one line
		"sending":  {"steps ", "[", "]", "MiB / 4.0 MiB", "/s"},
		"queued":   {"waits ", "[", "]", "queued"},
		"retrying": {"retries ", "[", "]", "retrying: no route to the store"},
		"total":    {"total ", "/7 files ", "[", "]", " / ", "/s 2 failed"},
		"all":      {"total ", "6/7 files"},
	}
	status, end := term.run(t, cmd, func(frame []string) {
		if last := frame[len(frame)-1]; !strings.HasPrefix(last, "total ") {
			t.Errorf("the last line is %q", last)
		}
		bars := 0
		for _, line := range frame {
			if n := len([]rune(line)); strings.Contains(line, " [") && n > 100 {
				t.Errorf("%d columns: %q", n, line)
			}
			if strings.Contains(line, " [") && !strings.HasPrefix(line, "{") {
				bars++
			}
			for look, parts := range looks {
				found := true
				for _, part := range parts {
					found = found && strings.Contains(line, part)
				}
				seen[look] = seen[look] || found
			}
		}
		if bars > 6 {
			t.Errorf("%d bars: %q", bars, frame)
		}
		if seen["all"] && !interrupted {
			interrupted = true // a second signal would end it at once
			cmd.Process.Signal(syscall.SIGINT)
		}
	})
	for look := range looks {
		if !seen[look] {
			t.Errorf("nobody saw it %s", look)
		}
	}
	text := strings.Join(end, "\n")
	if status != 1 || strings.Contains(text, " [") {
		t.Errorf("exit %d, and at the end\n%s", status, text)
	}
	for line, times := range map[string]int{
		`"state":"done"`:        4,
		`"code":"store_refused`: 1,
		"send: /fails: the store refused: no such bucket (store_refused":              1,
		`send: /missing: there is no file "/missing" (file_not_found)`:                1,
		"send: 4 of 7 files done, 16.0 MiB in ":                                       1,
		"send: interrupted: 4 done, 2 failed, 1 going on by themselves in the daemon": 1,
		"send: 4 of 7 files done, 16.0 MiB in 0.0 s":                                  0,
	} {
		if n := strings.Count(text, line); n != times {
			t.Errorf("%q is there %d times:\n%s", line, n, text)
		}
	}
}

// TestFewBars: however many files are under way, they fit the terminal.
func TestFewBars(t *testing.T) {
	q := newQueue(t, "127.0.0.1:0")
	term := openTerminal(t, 10, 80)
	args := []string{"-progress", "-j", "40"}
	for i := range 160 {
		kind := "quick"
		if i%4 == 0 {
			kind = "steps"
		}
		args = append(args, fmt.Sprintf("/d/%s.%d", kind, i))
	}
	cmd := command(t, []string{"S3DAEMON_URL=" + q.URL}, append(args, "s3://bkt/d/")...)
	cmd.Stderr = term.slave
	var stdout strings.Builder
	cmd.Stdout = &stdout
	most := 0
	status, end := term.run(t, cmd, func(frame []string) { most = max(most, len(frame)) })
	// Ten lines less one for the bar of all files and one for the cursor.
	if most != 8+1 {
		t.Errorf("up to %d lines", most)
	}
	if status != 0 || len(end) != 1 || !strings.HasPrefix(end[0], "send: 160 of 160 files done, 640.0 MiB in ") || stdout.Len() > 0 {
		t.Errorf("exit %d, %q, standard output %q", status, end, stdout.String())
	}
}
