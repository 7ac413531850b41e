package uploader

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// atAcceptance is a log that holds up each push between the disk and the queue.
type atAcceptance struct {
	io.Writer
	reached chan struct{}
	held    chan struct{}
}

func (a *atAcceptance) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte(`"push accepted"`)) {
		a.reached <- struct{}{}
		<-a.held
	}
	return a.Writer.Write(line)
}

// TestDrainDuringAcceptance: a push that comes into the queue when nothing starts any
// more is not waited for.
func TestDrainDuringAcceptance(t *testing.T) {
	for name, wait := range map[string]bool{"its caller waits": true, "nobody waits": false} {
		t.Run(name, func(t *testing.T) {
			gate := &atAcceptance{reached: make(chan struct{}, 1), held: make(chan struct{})}
			let := sync.OnceFunc(func() { close(gate.held) })
			defer let()
			r := newRig(t, func(c *Config) {
				gate.Writer = io.Discard
				c.Log = slog.New(slog.NewJSONHandler(gate, nil))
			})
			path, _ := r.file(t, "f", 100)
			var opts push.Options
			if wait {
				opts.Wait = push.Forever
			}
			pushed := make(chan error, 1)
			go func() {
				_, err := r.Uploader.Push(context.Background(), push.Request{File: path, Destination: "s3://bucket/k"}, opts)
				pushed <- err
			}()
			<-gate.reached
			r.stays = 1
			r.drainsSoon(t, func() {
				<-r.leaving
				let()
			})
			if err := <-pushed; wait {
				wantCode(t, err, push.ShuttingDown)
			} else if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestDrainWithLateQuestion: nor is a push whose run ends in failure, and that is to be
// asked about since it was cancelled.
func TestDrainWithLateQuestion(t *testing.T) {
	for name, status := range map[string]int{"for good": 403, "for now": 503} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			g := r.hold(t, true, func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				refuse(status)(w, req, next)
			})
			path, _ := r.file(t, "f", 100)
			id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
			<-g.arrived
			r.stays = 1
			r.drainsSoon(t, func() {
				<-r.leaving
				r.mu.Lock() // as if the wish came when the run had just ended, and an earlier attempt had been unclear
				r.live[id].maybe, r.live[id].task.cancelled = true, true
				r.mu.Unlock()
				g.let()
			})
		})
	}
}

// drainsSoon has the uploader drain, and fails the test if that takes all its time though
// nothing is under way after what happens meanwhile.
func (r *rig) drainsSoon(t *testing.T, meanwhile func()) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), patience)
	defer stop()
	drained := make(chan int, 1)
	go func() { drained <- r.Drain(ctx) }()
	meanwhile()
	if stay := <-drained; ctx.Err() != nil {
		t.Errorf("the drain takes its whole time; %d pushes stay", stay)
	}
}
