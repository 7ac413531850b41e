//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"

	"github.com/lsst-dm/s3daemon/internal/child"
)

// A listenerRun compares pushes through the listener of the legacy protocol
// (send -listen) with the same pushes sent to the same daemon directly.
type listenerRun struct {
	Callers        int     `json:"callers"`
	Pushes         int     `json:"pushes"`
	DirectPerSec   float64 `json:"direct_pushes_per_second"`
	ListenerPerSec float64 `json:"listener_pushes_per_second"`
	DirectMillis   float64 `json:"direct_p50_ms"`
	ListenerMillis float64 `json:"listener_p50_ms"`
	AddedMillis    float64 `json:"added_p50_ms"`
	CPUPerPush     float64 `json:"listener_cpu_ms_per_push"` // of the listener alone
	PeakMB         float64 `json:"listener_peak_mb"`
}

// measureListener runs the workload directly and through the send program at
// path, in front of one daemon.
func measureListener(ctx context.Context, daemonPath, sendPath string, w workload, files []string) (listenerRun, error) {
	r, err := startRig(ctx, daemonPath, w)
	if err != nil {
		return listenerRun{}, err
	}
	run, err := r.compareListener(ctx, sendPath, w, files)
	_, stopErr := r.stop()
	if err := errors.Join(err, stopErr); err != nil {
		return run, fmt.Errorf("listener: %w", err)
	}
	return run, nil
}

func (r *rig) compareListener(ctx context.Context, sendPath string, w workload, files []string) (listenerRun, error) {
	direct, err := measure(ctx, w, r.daemon.Pid(), func(ctx context.Context, i int) error {
		bucket, key := w.destination(i)
		return r.push(ctx, files[i%len(files)], bucket, key)
	})
	if err != nil {
		return listenerRun{}, fmt.Errorf("direct: %w", err)
	}
	listener, address, err := startListener(ctx, sendPath, r.url)
	if err != nil {
		return listenerRun{}, err
	}
	through, err := measure(ctx, w, listener.Pid(), func(ctx context.Context, i int) error {
		bucket, key := w.destination(i)
		return legacyPush(ctx, address, files[i%len(files)], "bench/"+bucket+"/"+key)
	})
	if err = errors.Join(err, listener.Stop()); err != nil {
		return listenerRun{}, err
	}
	return listenerRun{
		Callers:        w.Callers,
		Pushes:         w.Pushes,
		DirectPerSec:   direct.PushesPerSec,
		ListenerPerSec: through.PushesPerSec,
		DirectMillis:   direct.P50Millis,
		ListenerMillis: through.P50Millis,
		AddedMillis:    through.P50Millis - direct.P50Millis,
		CPUPerPush:     through.CPUPerPush,
		PeakMB:         through.PeakMB,
	}, nil
}

// startListener starts the legacy listener in front of the daemon at url.
func startListener(ctx context.Context, path, url string) (*child.Server, string, error) {
	cmd := exec.Command(path, "-listen", "127.0.0.1:0")
	cmd.Env = append(child.Env(), "S3DAEMON_URL="+url)
	var address string
	s, err := child.Start(ctx, "the listener", cmd, child.Tied, child.Listening(&address))
	return s, address, err
}

// legacyPush is a client of the old protocol: one line, then whatever comes
// until the server closes.
func legacyPush(ctx context.Context, address, file, destination string) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err := io.WriteString(conn, file+" "+destination+"\n"); err != nil {
		return err
	}
	reply, err := io.ReadAll(conn)
	if err != nil {
		return err
	}
	if !strings.HasPrefix(string(reply), "Success") {
		return fmt.Errorf("the listener answered %q", reply)
	}
	return nil
}
