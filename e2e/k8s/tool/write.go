package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/e2e/k8s/content"
)

// writer makes files and has each of them pushed, as programs at an instrument
// do. It prints a line of JSON for each file (see line), one when SIGTERM has
// come ({"event":"sigterm","at":...}), and one at its end ({"event":"end",...}).
// On SIGTERM it begins no further file, lets those under way end, takes the time
// that it was told to, pushes a last one if it should, and exits: with 1 if a
// push failed.
type writer struct {
	dest   string
	dir    string
	name   string
	size   int64
	by     string
	label  string
	send   string
	line   string
	every  time.Duration
	keep   bool
	client *http.Client
	base   string

	mu     sync.Mutex // guards what follows
	out    *json.Encoder
	made   int
	failed int
}

// line is what became of one file.
type line struct {
	File    string    `json:"file"`
	Key     string    `json:"key"` // its name, which decides its bytes
	Size    int64     `json:"size"`
	Started time.Time `json:"started"` // when the push was asked for
	Seconds float64   `json:"seconds"` // until there was an answer
	OK      bool      `json:"ok"`
	Status  int       `json:"status,omitempty"` // of HTTP, or the exit status of send
	Answer  string    `json:"answer,omitempty"`
}

// The ways to have a file pushed.
var pushers = map[string]func(*writer, context.Context, string, string) (int, string, error){
	"post":       (*writer).post,
	"post-async": (*writer).post,
	"send":       (*writer).sendPlain,
	"send-flags": (*writer).sendFlags,
	"line":       (*writer).oldProtocol,
}

func write(ctx context.Context, args []string, out io.Writer) error {
	w := &writer{out: json.NewEncoder(out)}
	w.client, w.base = daemon()
	flags := flag.NewFlagSet("write", flag.ContinueOnError)
	flags.StringVar(&w.dir, "dir", ".", "directory to write to")
	flags.StringVar(&w.name, "name", "", "what the names of files begin with; else that of the host and the time")
	flags.Int64Var(&w.size, "size", 1<<20, "bytes of a file")
	flags.StringVar(&w.by, "by", "post", "post, post-async, send (FILE DEST), send-flags, or line, the old protocol")
	flags.StringVar(&w.label, "label", "", "of the pushes")
	flags.StringVar(&w.send, "send", "send", "the send command")
	flags.StringVar(&w.line, "line", "127.0.0.1:15555", "address of the old protocol")
	flags.DurationVar(&w.every, "every", 0, "pause between two files of one of those who push side by side")
	flags.BoolVar(&w.keep, "keep", false, "leave files where they are, though they have been pushed; as with post-async")
	files := flags.Int("files", 1, "how many; 0: until SIGTERM")
	workers := flags.Int("j", 1, "how many to push side by side")
	stay := flags.Bool("stay", false, "do not end before SIGTERM")
	linger := flags.Duration("linger", 0, "how long to go on after SIGTERM")
	wait := flags.Bool("wait", false, "have send wait at the end until nothing with the label is queued or running")
	last := flags.Bool("last", false, "push one more file after that")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if flags.NArg() != 1 || !strings.HasSuffix(flags.Arg(0), "/") || pushers[w.by] == nil {
		return errors.New("write [flags] s3://BUCKET/[PREFIX/]; -help has the flags")
	}
	w.dest = flags.Arg(0)
	if w.name == "" {
		host, err := os.Hostname()
		if err != nil {
			return err
		}
		w.name = fmt.Sprintf("%s-%x", host, time.Now().UnixMilli())
	}
	var err error
	if w.dir, err = filepath.Abs(w.dir); err != nil {
		return err
	}
	said := make(chan struct{})
	unless := context.AfterFunc(ctx, func() {
		w.event("sigterm")
		close(said)
	})
	w.run(ctx, *files, *workers)
	if *stay {
		<-ctx.Done()
	}
	if !unless() {
		<-said
		time.Sleep(*linger)
	}
	if *last {
		w.one(context.WithoutCancel(ctx), w.name+"-last")
	}
	if *wait {
		if _, said, err := w.command(context.WithoutCancel(ctx), "-wait", w.label); err != nil {
			return fmt.Errorf("send -wait: %w: %s", err, said)
		}
	}
	return w.end()
}

// run writes that many files, or goes on until the context ends. What is under
// way by then is not broken off.
func (w *writer) run(ctx context.Context, files, workers int) {
	var group sync.WaitGroup
	numbers := make(chan int)
	for range workers {
		group.Go(func() {
			for number := range numbers {
				w.one(context.WithoutCancel(ctx), fmt.Sprintf("%s-%06d", w.name, number))
				select {
				case <-ctx.Done():
				case <-time.After(w.every):
				}
			}
		})
	}
	for number := 0; (files == 0 || number < files) && ctx.Err() == nil; number++ {
		select {
		case numbers <- number:
		case <-ctx.Done():
		}
	}
	close(numbers)
	group.Wait()
}

// one makes a file, has it pushed, and says what became of it.
func (w *writer) one(ctx context.Context, name string) {
	l := line{File: filepath.Join(w.dir, name), Key: name, Size: w.size, Started: time.Now()}
	err := makeFile(l.File, name, w.size)
	if err == nil {
		l.Started = time.Now()
		l.Status, l.Answer, err = pushers[w.by](w, ctx, l.File, w.dest+name)
		l.Seconds = time.Since(l.Started).Seconds()
	}
	l.OK = err == nil
	if err != nil {
		l.Answer = cmp.Or(l.Answer, err.Error())
	} else if !w.keep && w.by != "post-async" {
		os.Remove(l.File)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.made++
	if !l.OK {
		w.failed++
	}
	w.out.Encode(l)
}

// makeFile writes the file under another name first, as careful writers do.
func makeFile(path, name string, size int64) error {
	file, err := os.OpenFile(path+".part", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o640)
	if err != nil {
		return err
	}
	_, err = io.Copy(file, content.Reader(name, size))
	return errors.Join(err, file.Close(), os.Rename(path+".part", path))
}

func (w *writer) event(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Encode(map[string]any{"event": name, "at": time.Now()})
}

func (w *writer) end() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.out.Encode(map[string]any{"event": "end", "at": time.Now(), "files": w.made, "failed": w.failed})
	if w.failed > 0 {
		return fmt.Errorf("%d of %d pushes failed", w.failed, w.made)
	}
	return nil
}

func (w *writer) post(ctx context.Context, file, dest string) (int, string, error) {
	form := url.Values{"file": {file}, "destination": {dest}}
	if w.label != "" {
		form.Set("label", w.label)
	}
	if w.by == "post-async" {
		form.Set("async", "true")
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, w.base+"/push", strings.NewReader(form.Encode()))
	if err != nil {
		return 0, "", err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, body, err := do(w.client, request)
	if err == nil && status != http.StatusOK && status != http.StatusAccepted {
		err = fmt.Errorf("HTTP status %d", status)
	}
	return status, string(body), err
}

func (w *writer) sendPlain(ctx context.Context, file, dest string) (int, string, error) {
	return w.command(ctx, file, dest)
}

func (w *writer) sendFlags(ctx context.Context, file, dest string) (int, string, error) {
	args := []string{"-json", "-j", "1"}
	if w.label != "" {
		args = append(args, "-label", w.label)
	}
	return w.command(ctx, append(args, file, dest)...)
}

func (w *writer) command(ctx context.Context, args ...string) (int, string, error) {
	command := exec.CommandContext(ctx, w.send, args...)
	var said bytes.Buffer
	command.Stdout, command.Stderr = &said, &said
	err := command.Run()
	return command.ProcessState.ExitCode(), said.String(), err
}

// oldProtocol is a line with the file and the destination, and an answer until
// the connection ends.
func (w *writer) oldProtocol(ctx context.Context, file, dest string) (int, string, error) {
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", w.line)
	if err != nil {
		return 0, "", err
	}
	defer conn.Close()
	if _, err := fmt.Fprintf(conn, "%s any/%s\n", file, strings.TrimPrefix(dest, "s3://")); err != nil {
		return 0, "", err
	}
	answer, err := io.ReadAll(bufio.NewReader(conn))
	if err == nil && !strings.HasPrefix(string(answer), "Success") {
		err = errors.New("no success")
	}
	return 0, string(answer), err
}
