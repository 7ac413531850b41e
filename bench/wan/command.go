//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A command is what a user pushes with today: a process for each file, and
// maybe one that runs all the time.
type command struct {
	bed    *bed
	text   string    // for sh, with {file}, {bucket}, {key} and {endpoint} in it
	server *exec.Cmd // or nil
	began  bool      // something was pushed: the server answers
}

// serverTimeout bounds how long the server of a command may take until the
// command succeeds.
const serverTimeout = 30 * time.Second

// startCommand starts the server, if there is one.
func startCommand(b *bed, text, server string) (*command, error) {
	c := &command{bed: b, text: text}
	if server != "" {
		c.server = c.process(server, "", 0)
		c.server.Stdout, c.server.Stderr = os.Stderr, os.Stderr
		if err := b.link.Near.Start(c.server); err != nil {
			return nil, fmt.Errorf("start the peer's daemon: %w", err)
		}
	}
	return c, nil
}

// process returns a command of the user, with what is in braces put in. It is
// the leader of a group of processes.
func (c *command) process(text, file string, i int) *exec.Cmd {
	text = strings.NewReplacer("{file}", file, "{bucket}", bucket, "{key}", key(i), "{endpoint}", c.bed.endpoint).Replace(text)
	cmd := exec.Command("sh", "-c", text)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), credentials()...)
	cmd.Env = append(cmd.Env, "AWS_ENDPOINT_URL="+c.bed.endpoint, "S3_ENDPOINT_URL="+c.bed.endpoint)
	if c.bed.ca != "" {
		cmd.Env = append(cmd.Env, "AWS_CA_BUNDLE="+c.bed.ca)
	}
	return cmd
}

// push runs a process for each file, all at once, and waits for the last.
func (c *command) push(ctx context.Context, file string, _ int64, n int) error {
	if c.server != nil && !c.began {
		starting, cancel := context.WithTimeout(ctx, serverTimeout)
		defer cancel()
		if err := retry(starting, func() error { return c.run(ctx, file, 0) }); err != nil {
			return err
		}
	}
	c.began = true
	return atOnce(ctx, n, func(ctx context.Context, i int) error { return c.run(ctx, file, i) })
}

func (c *command) run(ctx context.Context, file string, i int) error {
	cmd := c.process(c.text, file, i)
	// A file, not a pipe, of whose end a process that goes on would keep us waiting.
	out, err := os.CreateTemp(c.bed.dir, "peer-")
	if err != nil {
		return err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	if err := c.bed.link.Near.Start(cmd); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { killGroup(cmd) })()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%s: %w: %s", cmd.Args[2], errors.Join(context.Cause(ctx), err), lastWords(out))
	}
	return nil
}

// lastWords returns the end of what a file has.
func lastWords(f *os.File) []byte {
	const most = 2 << 10
	words := make([]byte, most)
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil
	}
	n, _ := f.ReadAt(words, max(0, size-most)) // what there is will do
	return bytes.TrimSpace(words[:n])
}

func (c *command) stop() error {
	if c.server == nil {
		return nil
	}
	killGroup(c.server)
	if err := c.server.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		return err
	}
	return nil
}

// killGroup kills a process that leads a group, and all in it.
func killGroup(cmd *exec.Cmd) { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
