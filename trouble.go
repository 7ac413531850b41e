package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/internal/store"
	"github.com/lsst-dm/s3daemon/push"
)

// What is pushed by demo -trouble: more than the store takes at once, and little
// less than it takes in the long run.
const (
	burstFiles = 12
	sweptFiles = 2 // that are gone before the store takes them
	burstEvery = 10 * time.Second
	sweepAfter = 20 * time.Second
	megabyte   = 1_000_000
	mostAtOnce = 3 * burstFiles // pushes that have not ended; the next waits for one that has
	mostKept   = 100            // files whose pushes failed, and may be put back by whoever looks
)

// ails is what the store of demo -trouble suffers from.
var ails = store.Trouble{
	BytesPerSecond: 20 * megabyte, Delay: time.Second, FailOneIn: 5, Sealed: "sealed", Full: "full",
}

// demoTrouble shows what trouble looks like: the real daemon in front of a slow
// store that fails, with bursts of files that it cannot quite keep up with. It
// pushes until the context ends, or one burst if once is set; then it is an error
// if any of its pushes did not end as it must.
func demoTrouble(ctx context.Context, once bool, stdout, stderr io.Writer) error {
	s, err := store.StartTroubled([]string{"raw"}, ails)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := useStore(s); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "s3daemon-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	daemon, stop := context.WithCancel(ctx)
	defer stop()
	address, ended, err := startDaemon(daemon, filepath.Join(dir, "data"), stderr, inTrouble)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, `See it at

   http://%s/

That is the daemon, in front of a store that takes %d MB a second, answers late, and one request in %d with 503.
Every %v it gets a burst of files of an instrument, with labels. The bucket %s takes none of them (403), the
bucket %s has reached its quota (503), and the files that wait for that one are removed meanwhile.
`, address, ails.BytesPerSecond/megabyte, ails.FailOneIn, burstEvery, ails.Sealed, ails.Full)
	n := &night{store: s, url: "http://" + address, dir: dir, sweep: sweepAfter, places: make(chan struct{}, mostAtOnce), ends: make(map[string]int)}
	if once {
		n.sweep /= 10
	} else {
		fmt.Fprintln(stdout, "Ctrl-C ends it.")
	}
	n.observe(ctx, once)
	stop()
	err = <-ended
	switch {
	case ctx.Err() != nil:
		err = errors.Join(err, interrupted(once))
	case once:
		err = errors.Join(err, n.check(stdout))
	}
	return err
}

// inTrouble is the configuration of the daemon of demo -trouble where the user
// has no other: a pool so small that files wait for their turn, attempts until the
// store has mercy, a log of what is the matter alone, and an end without delay.
func inTrouble(cfg *config) {
	unset := func(name string) bool { return os.Getenv(name) == "" }
	if unset("S3DAEMON_MAX_CONNECTIONS") {
		cfg.maxConnections = 8
	}
	if unset("S3DAEMON_ATTEMPTS") {
		cfg.attempts = 20
	}
	if unset("S3DAEMON_DRAIN_TIMEOUT") {
		cfg.drainTimeout = 0
	}
	if unset("S3DAEMON_LOG_LEVEL") {
		cfg.logLevel = slog.LevelWarn
	}
}

// night is what an instrument pushes, and its files.
type night struct {
	store  *store.Store
	url    string // of the daemon
	dir    string
	sweep  time.Duration // how long files stay that the store does not take
	places chan struct{} // has one for each push that has not ended

	mu   sync.Mutex     // guards what follows
	ends map[string]int // how many pushes ended so: "done", or the code of their problem
	kept []exposure     // whose pushes failed, oldest first
}

// exposure is one file, and what is asked for it.
type exposure struct {
	file, bucket, key, label string
	size                     int64
}

// observe pushes burst after burst, and returns when all have ended.
func (n *night) observe(ctx context.Context, once bool) {
	var pushes sync.WaitGroup
	defer pushes.Wait()
	tick := time.NewTicker(burstEvery)
	defer tick.Stop()
	for visit := 1; ; visit++ {
		for _, e := range n.visit(visit) {
			select {
			case n.places <- struct{}{}:
			case <-ctx.Done():
				return
			}
			pushes.Go(func() {
				defer func() { <-n.places }()
				if end := n.push(ctx, e); ctx.Err() == nil {
					n.ended(e, end)
				}
			})
		}
		if once {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// visit is one burst. The first is of small files, so that there is soon
// something to see.
func (n *night) visit(number int) []exposure {
	var burst []exposure
	add := func(bucket, label string, i int, size int64) {
		name := fmt.Sprintf("%s-%04d-%02d.fits", label, number, i)
		burst = append(burst, exposure{file: filepath.Join(n.dir, name), bucket: bucket, key: fmt.Sprintf("visit-%04d/%s", number, name), label: label, size: size})
	}
	for i := range burstFiles {
		size := int64(megabyte)
		if number > 1 {
			size += rand.N[int64](17 * megabyte)
		}
		add("raw", []string{"camera", "guider", "wavefront"}[i%3], i, size)
	}
	add(ails.Sealed, "calibration", 0, megabyte)
	for i := range sweptFiles {
		add(ails.Full, "quicklook", i, megabyte)
	}
	return burst
}

// push writes the file and pushes it, and returns how that ended.
func (n *night) push(ctx context.Context, e exposure) string {
	if err := writeSparse(e.file, e.key, e.size); err != nil {
		return err.Error()
	}
	form := url.Values{"file": {e.file}, "destination": {push.Destination{Bucket: e.bucket, Key: e.key}.String()}, "label": {e.label}}
	if e.bucket != ails.Full {
		return endOf(n.ask(ctx, http.MethodPost, "/push", form))
	}
	form.Set("async", "true")
	accepted, err := n.ask(ctx, http.MethodPost, "/push", form)
	if err != nil {
		return err.Error()
	}
	where := "/pushes/" + accepted.ID
	_, err = n.ask(ctx, http.MethodGet, where+"?wait="+n.sweep.String(), nil) // for some attempts
	os.Remove(e.file)
	if err != nil {
		return err.Error()
	}
	end, err := n.ask(ctx, http.MethodGet, where+"?wait="+sweepAfter.String(), nil)
	if err == nil && !end.State.Ended() { // others are tried first
		end, err = n.ask(ctx, http.MethodDelete, where, nil)
	}
	return endOf(end, err)
}

// answer has what a receipt and a problem have.
type answer struct {
	ID      string     `json:"id"`
	State   push.State `json:"state"`
	Code    push.Code  `json:"code"`
	Problem struct {
		Code push.Code `json:"code"`
	} `json:"problem"`
}

func endOf(a answer, err error) string {
	switch {
	case err != nil:
		return err.Error()
	case a.Code != "":
		return string(a.Code)
	case a.State == push.Failed:
		return string(a.Problem.Code)
	}
	return string(a.State)
}

func (n *night) ask(ctx context.Context, method, path string, form url.Values) (answer, error) {
	var a answer
	req, err := http.NewRequestWithContext(ctx, method, n.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		return a, err
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	return a, json.NewDecoder(resp.Body).Decode(&a)
}

// ended counts the end of a push, and forgets what it pushed: at once if it is
// done, else when there are others to look at.
func (n *night) ended(e exposure, how string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.ends[how]++
	if how != string(push.Done) {
		n.kept = append(n.kept, e)
		if len(n.kept) <= mostKept {
			return
		}
		e, n.kept = n.kept[0], n.kept[1:]
	}
	os.Remove(e.file)
	_ = n.store.Forget(e.bucket, e.key) // there is none unless it was put back
}

// check says how the pushes of one burst ended, and whether they had to.
func (n *night) check(stdout io.Writer) error {
	want := map[string]int{string(push.Done): burstFiles, string(push.StoreRefused): 1, string(push.FileNotFound): sweptFiles}
	fmt.Fprintf(stdout, "\nThe pushes ended so: %v\n", n.ends)
	if !maps.Equal(n.ends, want) {
		return fmt.Errorf("the pushes of the demo ended as %v, not as %v", n.ends, want)
	}
	return nil
}

// writeSparse writes a file that begins with a line of its own and takes next to
// no room on disk.
func writeSparse(path, first string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(f, first)
	return errors.Join(err, f.Truncate(size), f.Close())
}
