package legacy

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/lsst-dm/s3daemon/send/client"
)

const (
	firstPause = 20 * time.Millisecond // between two tries, then doubling
	mostPause  = 250 * time.Millisecond
)

// forwarder asks the daemon for pushes, and sees it through a restart.
type forwarder struct {
	push     func(ctx context.Context, key, file, destination string) error
	patience time.Duration // see the package comment, "The daemon going away"
	repeat   bool          // what the daemon did not answer either
	log      *slog.Logger

	mu    sync.Mutex
	since time.Time // when the present outage was first noticed, zero outside one; guarded by mu
}

// forward asks the daemon until it has taken the push, which came at the time
// ready, and returns what became of it. Only requests that the daemon surely
// never took are repeated, unless it knows by a key that it is one push.
func (f *forwarder) forward(ctx context.Context, file, destination string, ready time.Time) error {
	key := ""
	if f.repeat {
		key = rand.Text()
	}
	var deadline time.Time
	for pause := firstPause; ; pause = min(2*pause, mostPause) {
		err := f.push(ctx, key, file, destination)
		if _, lost := errors.AsType[*client.LostError](err); !errors.Is(err, client.ErrNotTaken) && !(lost && f.repeat) {
			f.up()
			return err
		}
		if since := f.down(err); deadline.IsZero() {
			deadline = f.lastTry(ready, since)
		}
		if !time.Now().Before(deadline) {
			return err
		}
		select {
		case <-time.After(min(pause, time.Until(deadline))):
		case <-ctx.Done():
			return err
		}
	}
}

// lastTry is when a request that came at the time ready, during an outage that
// began at since, is tried for the last time.
func (f *forwarder) lastTry(ready, since time.Time) time.Time {
	if since.After(ready) {
		ready = since
	}
	return ready.Add(f.patience)
}

// down notes that the daemon does not take pushes, and returns since when.
func (f *forwarder) down(err error) time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.since.IsZero() {
		f.since = time.Now()
		if f.patience > 0 {
			f.log.Warn("the daemon takes no pushes; each client waits for it for a while", "wait", f.patience.String(), "error", client.Explain(err))
		} else {
			f.log.Warn("the daemon takes no pushes; each client is told at once", "error", client.Explain(err))
		}
	}
	return f.since
}

// up notes that the daemon took a push.
func (f *forwarder) up() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.since.IsZero() {
		f.log.Info("the daemon takes pushes again", "seconds", time.Since(f.since).Seconds())
		f.since = time.Time{}
	}
}
