package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/lsst-dm/s3daemon/internal/store"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/legacy"
)

// demo shows the main job with nothing installed: a store in memory, the real
// daemon in front of it, one push, and what to type to make the next.
func demo(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := flag.NewFlagSet("s3daemon demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	once := flags.Bool("once", false, "exit after the push, or a burst of them, with status 1 if anything differs")
	trouble := flags.Bool("trouble", false, "have files pushed on and on to a slow store that fails, to see what that looks like")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return nil
		}
		return usageError{err}
	}
	if flags.NArg() > 0 {
		return usageError{fmt.Errorf("s3daemon demo takes no argument %q", flags.Arg(0))}
	}
	if *trouble {
		return demoTrouble(ctx, *once, stdout, stderr)
	}

	s, err := store.Start([]string{"demo"})
	if err != nil {
		return err
	}
	defer s.Close()
	fmt.Fprintf(stdout, "1. A store in memory listens on %s, with the bucket demo.\n", s.URL)
	if err := useStore(s); err != nil {
		return err
	}

	ctx, stop := context.WithCancel(ctx)
	defer stop()
	dir, err := os.MkdirTemp("", "s3daemon-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	address, ended, err := startDaemon(ctx, dir, stderr, func(*config) {})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "2. The daemon listens on http://%s, in front of that store: open that in a browser to see it at work.\n", address)

	legacyAddress, legacyEnded, err := startListener(ctx, address)
	if err != nil {
		stop()
		return errors.Join(err, <-ended)
	}
	fmt.Fprintf(stdout, "3. The listener of the old line protocol is on %s, in front of the daemon.\n", legacyAddress)

	err = demoPush(ctx, stdout, s, address)
	if err != nil && ctx.Err() != nil {
		err = interrupted(*once)
	} else if err == nil && !*once {
		host, port, _ := net.SplitHostPort(legacyAddress)
		fmt.Fprintf(stdout, `
Now you:

   curl -d file=/etc/hosts -d destination=s3://demo/hosts http://%s/push
   curl http://%[1]s/pushes
   curl http://%[1]s/metrics
   echo /etc/hosts any/demo/hosts | nc %s %s

Ctrl-C ends it. What was pushed is in memory only, and then gone.
`, address, host, port)
		<-ctx.Done()
	}
	stop()
	return errors.Join(err, <-legacyEnded, <-ended)
}

// interrupted is the end of a demo by Ctrl-C: an error for who relies on its having shown
// all.
func interrupted(once bool) error {
	if once {
		return errors.New("the demo was interrupted before it had shown all")
	}
	return nil
}

// startListener starts what send -listen is, in front of the daemon, on the
// protocol's port or on a free one where that is taken.
func startListener(ctx context.Context, daemon string) (string, <-chan error, error) {
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(legacy.DefaultPort)))
	if errors.Is(err, syscall.EADDRINUSE) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return "", nil, fmt.Errorf("start the listener of the old line protocol: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- legacy.Serve(ctx, l, legacy.Config{URL: "http://" + daemon}) }()
	return l.Addr().String(), ended, nil
}

// useStore makes the store the one that the environment describes, whatever
// the user's own environment and AWS files say.
func useStore(s *store.Store) error {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "AWS_") {
			os.Unsetenv(name)
		}
	}
	return errors.Join(
		os.Setenv("AWS_CONFIG_FILE", os.DevNull), os.Setenv("AWS_SHARED_CREDENTIALS_FILE", os.DevNull),
		os.Setenv("AWS_ACCESS_KEY_ID", s.AccessKey), os.Setenv("AWS_SECRET_ACCESS_KEY", s.SecretKey),
		os.Setenv("S3_ENDPOINT_URL", s.URL),
	)
}

// startDaemon starts the real daemon with what the environment says, but with a
// journal of its own, and on a free port where its usual one is taken. Adjust may change
// that. It returns the address, and a channel that has the daemon's end.
func startDaemon(ctx context.Context, dataDir string, stderr io.Writer, adjust func(*config)) (string, <-chan error, error) {
	cfg, _, err := loadConfig()
	if err != nil {
		return "", nil, usageError{err}
	}
	if cfg.logFormat == "auto" {
		cfg.logFormat = "text" // it is read by a person, even through a pipe
	}
	cfg.dataDir = dataDir
	adjust(&cfg)
	limit, err := newBandwidth(cfg)
	if err != nil {
		return "", nil, usageError{err}
	}
	start := func(cfg config) (string, <-chan error, error) {
		log, lines, err := openLog(cfg, stderr)
		if err != nil {
			return "", nil, usageError{err}
		}
		ready, ended := make(chan []string, 1), make(chan error, 1)
		go func() {
			err := serve(ctx, cfg, limit.Bandwidth, log, func(addrs []string) { ready <- addrs })
			lines.Close()
			ended <- err
		}()
		select {
		case addrs := <-ready:
			return addrs[0], ended, nil
		case err := <-ended:
			if err != nil {
				return "", nil, err
			}
			ended <- nil // it was ready, and told to stop at that moment
			return (<-ready)[0], ended, nil
		}
	}
	if cfg.listen = cfg.listen[:1]; !strings.HasPrefix(cfg.listen[0], "127.0.0.1:") {
		cfg.listen = []string{"127.0.0.1:15556"} // the demo talks to itself by loopback
	}
	address, ended, err := start(cfg)
	if errors.Is(err, syscall.EADDRINUSE) {
		cfg.listen = []string{"127.0.0.1:0"}
		return start(cfg)
	}
	return address, ended, err
}

// demoPush pushes a file over HTTP and compares the object with it.
func demoPush(ctx context.Context, stdout io.Writer, s *store.Store, address string) error {
	dir, err := os.MkdirTemp("", "s3daemon-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	file := filepath.Join(dir, "first light.fits")
	content := make([]byte, 1<<20)
	rand.Read(content)
	if err := os.WriteFile(file, content, 0o644); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "4. A file of 1 MiB is written: %s\n", file)

	body, err := json.Marshal(push.Request{File: file, Destination: "s3://demo/first light.fits", Label: "demo"})
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "5. POST http://%s/push %s\n", address, body)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+address+"/push", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return fmt.Errorf("push: %w", err)
	}
	fmt.Fprintf(stdout, "   %s\n   %s", resp.Status, answer)
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the push failed: %s", resp.Status)
	}
	stored, err := s.Get("demo", "first light.fits")
	if err != nil {
		return fmt.Errorf("read the object back: %w", err)
	}
	if !bytes.Equal(stored, content) {
		return fmt.Errorf("the object has %d bytes that are not the file's %d", len(stored), len(content))
	}
	fmt.Fprintf(stdout, "6. The object s3://demo/first light.fits was read back: %d bytes, the file's own.\n", len(stored))
	return nil
}
