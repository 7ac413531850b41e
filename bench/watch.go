//go:build linux

package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A watchedReport compares pushes while somebody looks at the status page with the
// same pushes while nobody does. The runs are pairs: those at one place of With
// and Without were made right after each other.
type watchedReport struct {
	workload
	Watchers int           `json:"watchers"`
	Without  []measurement `json:"without"`
	With     []measurement `json:"with"`
	CPU      spread        `json:"cpu_with_to_without"` // of the pairs
	Rate     spread        `json:"rate_with_to_without"`
}

// runWatched measures one daemon by turns, with watchers and without. That of a
// pair which comes first changes from pair to pair, so that what grows meanwhile,
// as the journal does, is as often on either side.
func (o options) runWatched(ctx context.Context, w workload, dir string, progress io.Writer) (watchedReport, error) {
	wr := watchedReport{workload: w, Watchers: o.watchers}
	files, err := makeFiles(dir, w)
	if err != nil {
		return wr, err
	}
	r, err := startRig(ctx, o.daemon, w)
	if err != nil {
		return wr, err
	}
	for i := 0; i < o.pairs && err == nil; i++ {
		fmt.Fprintf(progress, "%s: pair %d of %d\n", title(w), i+1, o.pairs)
		for _, looked := range []bool{i%2 == 1, i%2 == 0} {
			runs, watchers := &wr.Without, 0
			if looked {
				runs, watchers = &wr.With, o.watchers
			}
			var m measurement
			if m, err = r.measureWatched(ctx, w, files, watchers); err != nil {
				break
			}
			*runs = append(*runs, m)
		}
	}
	stats, stopErr := r.stop()
	if err = errors.Join(err, stopErr); err != nil {
		return wr, fmt.Errorf("watched: %w", err)
	}
	wr.CPU, wr.Rate = ratiosOf(wr.With, wr.Without, cpuPerPush), ratiosOf(wr.With, wr.Without, perSecond)
	return wr, stats.check(w, 2*o.pairs)
}

// measureWatched runs a workload while so many look on.
func (r *rig) measureWatched(ctx context.Context, w workload, files []string, watchers int) (measurement, error) {
	var all []*watcher
	var m measurement
	var err error
	for range watchers {
		var one *watcher
		if one, err = startWatcher(ctx, r.url); err != nil {
			break
		}
		all = append(all, one)
	}
	if err == nil {
		m, err = measure(ctx, w, r.daemon.Pid(), func(ctx context.Context, i int) error {
			bucket, key := w.destination(i)
			return r.push(ctx, files[i%len(files)], bucket, key)
		})
	}
	for _, one := range all {
		err = errors.Join(err, one.stop())
	}
	return m, err
}

// A watcher asks the daemon for what its status page asks it for.
type watcher struct {
	cancel context.CancelFunc
	ended  chan error
}

// startWatcher returns when the watcher has heard for the first time how the
// daemon stands.
func startWatcher(ctx context.Context, url string) (*watcher, error) {
	ctx, cancel := context.WithCancel(ctx)
	w := &watcher{cancel: cancel, ended: make(chan error, 1)}
	heard := make(chan struct{})
	go func() { w.ended <- watch(ctx, url, sync.OnceFunc(func() { close(heard) })) }()
	select {
	case <-heard:
		return w, nil
	case err := <-w.ended:
		cancel()
		return nil, cmp.Or(err, errEventsEnded)
	}
}

var errEventsEnded = errors.New("the daemon ended its events")

// stop ends the watcher. That it has ended before is an error.
func (w *watcher) stop() error {
	select {
	case err := <-w.ended:
		w.cancel()
		return cmp.Or(err, errEventsEnded)
	default:
	}
	w.cancel()
	return <-w.ended
}

// The page shows so many pushes, and asks for them anew no more often than this.
const (
	pageSize  = 50
	pageRests = 3 * time.Second
)

// watch follows the events until the context ends or they do, and calls status for
// each that says how the daemon stands. It asks for the list at the start, and
// where the events do not bring all that has changed.
func watch(ctx context.Context, url string, status func()) error {
	client := newClient(2)
	defer client.CloseIdleConnections()
	get := func(path string, read func(io.Reader) error) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
		if err != nil {
			return err
		}
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s: the daemon answered %s", path, resp.Status)
		}
		return read(resp.Body)
	}
	wanted, loaded := true, time.Time{}
	err := get("/events", func(body io.Reader) error {
		lines := bufio.NewScanner(body)
		lines.Buffer(nil, 1<<20)
		event := ""
		for lines.Scan() {
			name, value, _ := strings.Cut(lines.Text(), ": ")
			switch {
			case name == "event":
				event = value
			case name == "data" && event == "status":
				status()
			case name == "data" && event == "pushes":
				var some struct {
					LeftOut int `json:"left_out"`
				}
				if err := json.Unmarshal([]byte(value), &some); err != nil {
					return fmt.Errorf("read the event pushes: %w", err)
				}
				wanted = wanted || some.LeftOut > 0
			}
			if name != "" || !wanted || time.Since(loaded) < pageRests {
				continue
			}
			wanted, loaded = false, time.Now()
			if err := get(fmt.Sprintf("/pushes?limit=%d", pageSize), discard); err != nil {
				return err
			}
		}
		return lines.Err()
	})
	if ctx.Err() != nil {
		return nil // told to stop
	}
	return err
}

func discard(r io.Reader) error {
	_, err := io.Copy(io.Discard, r)
	return err
}
