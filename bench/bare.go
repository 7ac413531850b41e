//go:build linux

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/lsst-dm/s3daemon/internal/child"
)

// A bareJob is what the bare process is told to do.
type bareJob struct {
	Store    string // its URL
	Workload workload
	Files    []string
}

// runBare is the whole bare process: it puts the files of the job that it
// reads from stdin to the store with net/http and nothing else, and prints
// what that took. It is the yardstick: whatever else the daemon does, it
// cannot do with less than this.
func runBare(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
	var job bareJob
	if err := json.NewDecoder(stdin).Decode(&job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	w := job.Workload
	client := newClient(w.Callers)
	defer client.CloseIdleConnections()
	put := func(ctx context.Context, i int) error {
		bucket, key := w.destination(i)
		return barePut(ctx, client, job.Files[i%len(job.Files)], job.Store+"/"+bucket+"/"+key)
	}
	m, err := measure(ctx, w, os.Getpid(), put)
	if err != nil {
		return err
	}
	return json.NewEncoder(stdout).Encode(m)
}

// barePut puts one file. The section reader hides the file from net/http,
// which would else use sendfile(2): a daemon that computes a checksum or
// signs cannot, and the yardstick is to be what it could reach.
func barePut(ctx context.Context, client *http.Client, path, url string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, url, io.NewSectionReader(f, 0, info.Size()))
	if err != nil {
		return err
	}
	req.ContentLength = info.Size()
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the store answered %s", resp.Status)
	}
	return nil
}

// newClient returns a client with a connection for each caller, and no more.
func newClient(callers int) *http.Client {
	return &http.Client{Transport: &http.Transport{
		MaxIdleConnsPerHost: callers,
		MaxConnsPerHost:     callers,
		DisableCompression:  true,
	}}
}

// measureBare runs a workload in a bare process, against a store of its own.
func measureBare(ctx context.Context, w workload, files []string) (measurement, error) {
	store, err := startStore(w.Silent)
	if err != nil {
		return measurement{}, err
	}
	m, err := runBareProcess(ctx, bareJob{Store: store.url, Workload: w, Files: files})
	stats, stopErr := store.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return m, fmt.Errorf("bare PUT: %w", err)
	}
	m.Connections = stats.PeakConnections
	return m, stats.check(w, 1)
}

func runBareProcess(ctx context.Context, job bareJob) (measurement, error) {
	var m measurement
	cmd, err := self("bare")
	if err != nil {
		return m, err
	}
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return m, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return m, err
	}
	if err := child.Tied(cmd); err != nil {
		return m, err
	}
	defer context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })()
	err = json.NewEncoder(stdin).Encode(job)
	err = errors.Join(err, stdin.Close(), json.NewDecoder(stdout).Decode(&m))
	return m, errors.Join(err, cmd.Wait())
}
