//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"

	"github.com/lsst-dm/s3daemon/internal/child"
	"github.com/lsst-dm/s3daemon/push"
)

// A rig is a daemon in front of a store that discards, each a process of its
// own, and a client that pushes through it.
type rig struct {
	dir    string // the daemon's journal
	store  *storeProcess
	daemon *child.Server
	url    string // of the daemon
	client *http.Client
}

// startRig starts the daemon at path, as a workload wants it.
func startRig(ctx context.Context, path string, w workload) (*rig, error) {
	dataDir, err := os.MkdirTemp("", "s3daemon-bench-data-")
	if err != nil {
		return nil, err
	}
	store, err := startStore(w.Silent)
	if err != nil {
		os.RemoveAll(dataDir)
		return nil, err
	}
	cmd := exec.Command(path)
	cmd.Env = append(child.Env(),
		"S3_ENDPOINT_URL="+store.url,
		"AWS_ACCESS_KEY_ID=bench",
		"AWS_SECRET_ACCESS_KEY=bench-secret",
		"S3DAEMON_LISTEN=127.0.0.1:0",
		"S3DAEMON_DATA_DIR="+dataDir,
		"S3DAEMON_CHECKSUM="+w.Checksum,
	)
	var address string
	daemon, err := child.Start(ctx, "the daemon", cmd, child.Tied, child.Listening(&address))
	if err != nil {
		_, stopErr := store.stop()
		return nil, errors.Join(err, stopErr, os.RemoveAll(dataDir))
	}
	return &rig{dir: dataDir, store: store, daemon: daemon, url: "http://" + address, client: newClient(w.Callers)}, nil
}

// stop ends the daemon, then the store, and returns what the store has seen.
func (r *rig) stop() (storeStats, error) {
	r.client.CloseIdleConnections()
	err := r.daemon.Stop()
	stats, storeErr := r.store.stop()
	return stats, errors.Join(err, storeErr, os.RemoveAll(r.dir))
}

// push asks for one push and waits for its end.
func (r *rig) push(ctx context.Context, file, bucket, key string) error {
	body, err := json.Marshal(push.Request{File: file, Destination: push.Destination{Bucket: bucket, Key: key}.String()})
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url+"/push", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := r.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	var receipt push.Receipt
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("the daemon answered %s: %s", resp.Status, push.OneLine(string(answer)))
	}
	if err := json.Unmarshal(answer, &receipt); err != nil {
		return fmt.Errorf("read the receipt: %w", err)
	}
	if receipt.State != push.Done {
		return fmt.Errorf("the receipt says %s, not %s", receipt.State, push.Done)
	}
	return nil
}

// measureDaemon runs a workload through the daemon at path. Each run has a
// daemon of its own, since the peak of its memory cannot be set back.
func measureDaemon(ctx context.Context, path string, w workload, files []string) (measurement, error) {
	r, err := startRig(ctx, path, w)
	if err != nil {
		return measurement{}, err
	}
	m, err := measure(ctx, w, r.daemon.Pid(), func(ctx context.Context, i int) error {
		bucket, key := w.destination(i)
		return r.push(ctx, files[i%len(files)], bucket, key)
	})
	stats, stopErr := r.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return m, fmt.Errorf("%s: %w", path, err)
	}
	m.Connections = stats.PeakConnections
	return m, stats.check(w, 1)
}

// warmUp is how many pushes a caller makes before those that count: they open
// the connections and fill the caches of the process.
const warmUp = 2

// measure runs a workload and measures the process pid meanwhile. Its peak of
// memory is that of the process's whole life.
func measure(ctx context.Context, w workload, pid int, one func(ctx context.Context, i int) error) (measurement, error) {
	first := w.warmUps()
	if _, _, err := load(ctx, first, w.Callers, w.PerSecond, one); err != nil {
		return measurement{}, fmt.Errorf("warm up: %w", err)
	}
	before, err := cpuTime(pid)
	if err != nil {
		return measurement{}, err
	}
	took, elapsed, err := load(ctx, w.Pushes, w.Callers, w.PerSecond, func(ctx context.Context, i int) error {
		return one(ctx, first+i)
	})
	if err != nil {
		return measurement{}, err
	}
	after, err := cpuTime(pid)
	if err != nil {
		return measurement{}, err
	}
	peak, err := peakMemory(pid)
	if err != nil {
		return measurement{}, err
	}
	return newMeasurement(took, elapsed, w.Size, after-before, peak), nil
}

// warmUps is how many pushes come before those that count: no more than a
// quarter of these where each is long.
func (w workload) warmUps() int { return max(min(warmUp*w.Callers, w.Pushes/4), w.Callers) }

// check compares what reached the store with what so many runs of a workload send.
func (s storeStats) check(w workload, runs int) error {
	pushes := runs * (w.Pushes + w.warmUps())
	if s.Objects != pushes || s.Bytes != int64(pushes)*w.Size {
		return fmt.Errorf("workload %s: the store was sent %d objects and %d bytes, not %d and %d: a request was repeated or lost",
			w.Name, s.Objects, s.Bytes, pushes, int64(pushes)*w.Size)
	}
	return nil
}
