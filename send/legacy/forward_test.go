package legacy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/send/client"
)

func TestLastTry(t *testing.T) {
	at := func(seconds float64) time.Time { return time.Unix(1000, 0).Add(time.Duration(seconds * 1e9)) }
	tests := []struct {
		name               string
		ready, since, want float64
	}{
		{"an outage begins with the request", 10, 10, 15},
		{"it came during an outage", 10, 2, 15},
		{"it waited for its turn when the outage began", 10, 60, 65},
		{"it waited for its turn through 4 s of outage", 10, 56, 61},
	}
	for _, test := range tests {
		f := &forwarder{patience: 5 * time.Second}
		if got := f.lastTry(at(test.ready), at(test.since)); !got.Equal(at(test.want)) {
			t.Errorf("%s: %v, want %v", test.name, got, at(test.want))
		}
	}
}

// TestForward plays a daemon that is up and down at given seconds.
func TestForward(t *testing.T) {
	refused := &client.UnreachableError{Where: "there", Err: errors.New("refused")}
	verdict := errors.New("the daemon's verdict")
	tests := []struct {
		name     string
		up       func(seconds float64) bool
		verdict  error
		queued   float64 // how long the request had waited for its turn
		want     error
		ended    float64 // seconds, at most
		notUntil float64
	}{
		{"up", func(float64) bool { return true }, nil, 0, nil, 0, 0},
		{"a verdict is final", func(float64) bool { return true }, verdict, 0, verdict, 0, 0},
		{"up after 3 s", func(s float64) bool { return s >= 3 }, nil, 0, nil, 3.25, 3},
		{"up after 4.99 s", func(s float64) bool { return s >= 4.99 }, nil, 0, nil, 5, 4.99},
		{"up too late", func(s float64) bool { return s >= 5.1 }, nil, 0, refused, 5, 5},
		{"down as its turn comes", func(s float64) bool { return s >= 4 }, nil, 600, nil, 4.25, 4},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				f := &forwarder{log: slog.New(slog.DiscardHandler), patience: DefaultPatience, push: func(context.Context, string, string, string) error {
					if !test.up(time.Since(start).Seconds()) {
						return refused
					}
					return test.verdict
				}}
				ready := start.Add(-time.Duration(test.queued * 1e9))
				err := f.forward(t.Context(), "/f", "s3://bkt/k", ready)
				took := time.Since(start).Seconds()
				if !errors.Is(err, test.want) || took > test.ended || took < test.notUntil {
					t.Errorf("%v after %v s", err, took)
				}
				if f.since.IsZero() != !errors.Is(err, client.ErrNotTaken) {
					t.Errorf("an outage is noted since %v", f.since)
				}
			})
		})
	}
}

// TestLongOutage: a queue of waiting clients is not told one by one, each
// after 5 s of its own, and clients who come later have their 5 s all the same.
func TestLongOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		late := start.Add(time.Hour)
		up := late.Add(4 * time.Second)
		f := &forwarder{log: slog.New(slog.DiscardHandler), patience: DefaultPatience, push: func(context.Context, string, string, string) error {
			if time.Now().Before(up) {
				return client.ErrNotTaken
			}
			return nil
		}}
		for i := range 1000 {
			if err := f.forward(t.Context(), fmt.Sprint(i), "s3://bkt/k", start); err == nil {
				t.Fatal("success in an outage")
			}
		}
		if took := time.Since(start); took != DefaultPatience {
			t.Errorf("1000 that came together were told after %v", took)
		}
		<-time.After(time.Until(late))
		if err := f.forward(t.Context(), "late", "s3://bkt/k", late); err != nil {
			t.Errorf("came 4 s before the outage ended: %v", err)
		}
		if !f.since.IsZero() {
			t.Error("the outage is still noted")
		}
	})
}

// TestForwardOnce: without patience a client is told at once, and the log does not
// say that it waits.
func TestForwardOnce(t *testing.T) {
	var said bytes.Buffer
	asked := 0
	f := &forwarder{log: slog.New(slog.NewTextHandler(&said, nil)), patience: -1, push: func(context.Context, string, string, string) error {
		asked++
		return client.ErrNotTaken
	}}
	if err := f.forward(t.Context(), "/f", "s3://bkt/k", time.Now()); err != client.ErrNotTaken || asked != 1 {
		t.Errorf("%v after %d requests", err, asked)
	}
	if !strings.Contains(said.String(), "each client is told at once") || strings.Contains(said.String(), "wait") {
		t.Errorf("the log says %q", said.String())
	}
}

// TestForwardRepeats: what the daemon did not answer is repeated where that was
// wished for, as the same push, and else not.
func TestForwardRepeats(t *testing.T) {
	for _, repeat := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			lost := &client.LostError{Where: "there", Push: true, Err: errors.New("it broke")}
			var keys []string
			f := &forwarder{
				log: slog.New(slog.DiscardHandler), patience: time.Minute, repeat: repeat,
				push: func(_ context.Context, key, _, _ string) error {
					keys = append(keys, key)
					switch took := time.Since(start); {
					case took == 0:
						return lost
					case took < 50*time.Second:
						return client.ErrNotTaken
					}
					return nil
				},
			}
			err := f.forward(t.Context(), "/f", "s3://bkt/k", start)
			if !repeat {
				if err != error(lost) || len(keys) != 1 || keys[0] != "" {
					t.Errorf("%v with the keys %q", err, keys)
				}
				return
			}
			if distinct := slices.Compact(keys); err != nil || len(distinct) != 1 || distinct[0] == "" {
				t.Errorf("%v with the keys %q", err, distinct)
			}
			if err := f.forward(t.Context(), "/g", "s3://bkt/k", time.Now()); err != nil || keys[len(keys)-1] == keys[0] {
				t.Errorf("%v, and another push has the key of the first", err)
			}
		})
	}
}
