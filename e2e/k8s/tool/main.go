// Command tool is what the tests on a cluster run in pods beside s3daemon: the
// store, and the writers whose files go there. It is static, needs no shell, and
// keeps nothing outside of memory and the directories that it is given.
//
//	tool store [flags] BUCKET...     an S3 store in memory; see store.go
//	tool write [flags] DEST          make files and have them pushed; see write.go
//	tool ask METHOD URL [BODY]       one request; prints {"status":...,"body":...}
//	tool cat FILE...                 what is in files, of /proc for example
//	tool kill NAME                   SIGKILL to the processes of that name, where they can be seen
//
// A URL that begins with "/" is asked of the daemon at S3DAEMON_URL.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "tool:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) == 0 {
		return errors.New("store, write, ask, cat or kill?")
	}
	switch command, args := args[0], args[1:]; command {
	case "store":
		return serveStore(ctx, args)
	case "write":
		return write(ctx, args, os.Stdout)
	case "ask":
		return ask(ctx, args, os.Stdout)
	case "cat":
		return cat(args, os.Stdout)
	case "kill":
		return kill(args)
	default:
		return fmt.Errorf("there is no command %q", command)
	}
}

// ask makes one request, whatever the answer to it is.
func ask(ctx context.Context, args []string, out io.Writer) error {
	if len(args) < 2 || len(args) > 3 {
		return errors.New("ask METHOD URL [BODY]")
	}
	client, base := daemon()
	url := args[1]
	if strings.HasPrefix(url, "/") {
		url = base + url
	} else {
		client = http.DefaultClient // the socket of S3DAEMON_URL is the daemon's alone
	}
	body := ""
	if len(args) == 3 {
		body = args[2]
	}
	request, err := http.NewRequestWithContext(ctx, args[0], url, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	status, answer, err := do(client, request)
	if err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(map[string]any{"status": status, "body": string(answer)})
}

// daemon returns a client for the daemon that S3DAEMON_URL names, and the URL
// that its paths are to be put behind. Nothing is kept open between two requests,
// as between two calls of curl.
func daemon() (*http.Client, string) {
	url := os.Getenv("S3DAEMON_URL")
	transport := &http.Transport{DisableKeepAlives: true}
	if url == "" {
		url = "http://127.0.0.1:15556"
	}
	if path, ok := strings.CutPrefix(url, "unix:"); ok {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}
		url = "http://localhost"
	}
	return &http.Client{Transport: transport, Timeout: 10 * time.Minute}, url
}

// do returns the answer's status and body.
func do(client *http.Client, request *http.Request) (int, []byte, error) {
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return response.StatusCode, body, err
}

// cat prints the files one after another. Those of /proc have no size, so they
// are read until they end.
func cat(files []string, out io.Writer) error {
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if _, err := out.Write(content); err != nil {
			return err
		}
	}
	return nil
}

// kill ends processes as nothing but the kernel can, in a pod whose containers
// share one list of processes.
func kill(args []string) error {
	if len(args) != 1 {
		return errors.New("kill NAME")
	}
	names, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		return err
	}
	killed := 0
	for _, file := range names {
		if name, err := os.ReadFile(file); err != nil || strings.TrimSpace(string(name)) != args[0] {
			continue // another one, or one that has ended
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil {
			return err
		}
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill %d: %w", pid, err)
		}
		killed++
	}
	if killed == 0 {
		return fmt.Errorf("no process is called %s", args[0])
	}
	return nil
}
