package uploader

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

func mustPlaces(t *testing.T, patterns ...string) push.Places {
	t.Helper()
	places, err := push.ParsePlaces(patterns)
	if err != nil {
		t.Fatal(err)
	}
	return places
}

// TestPlaces: nothing is accepted, nor asked of the store, that goes elsewhere.
func TestPlaces(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Places = mustPlaces(t, "bucket/in/", "other-*") })
	path, content := r.file(t, "f", 100)
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		t.Errorf("%s %s reached the store", req.Method, req.URL)
		w.WriteHeader(http.StatusForbidden)
	})
	for _, dest := range []string{"s3://bucket/k", "alias/bucket/k", "s3://bucket/in/a/../k", "s3://bucket/in", "s3://others/k", "other-1/bucket/k"} {
		receipt, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: dest}, push.Options{})
		wantCode(t, err, push.DestinationNotAllowed)
		if receipt.ID != "" {
			t.Errorf("%s was accepted", dest)
		}
	}
	r.spoil(pass)
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "alias/bucket/in/k"}); err != nil {
		t.Error(err)
	}
	r.wantObject(t, "in/k", content)
}

// TestPlacesOfTheJournal has pushes that were accepted when they could go
// anywhere: one waits, one has failed. Now neither goes out of the places, and
// the others are delivered.
func TestPlacesOfTheJournal(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 100)
	r.spoil(noBucket)
	failed := r.later(t, push.Request{File: path, Destination: "s3://bucket/failed"})
	r.ended(t, failed, push.Failed)
	r.mu.Lock()
	r.queue.paused = true
	r.mu.Unlock()
	waiting := r.later(t, push.Request{File: path, Destination: "s3://bucket/waiting"})
	allowed := r.later(t, push.Request{File: path, Destination: "s3://bucket/in/allowed"})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.stays = r.Drain(over)

	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if !strings.HasPrefix(req.URL.Path, "/bucket/in/") {
			t.Errorf("%s %s reached the store", req.Method, req.URL)
		}
		next.ServeHTTP(w, req)
	})
	r.cfg.Places = mustPlaces(t, "bucket/in/")
	next := r.again(t)
	for _, p := range []struct {
		id   push.ID
		want push.State
	}{{waiting, push.Failed}, {allowed, push.Done}} {
		receipt, err := next.Get(t.Context(), p.id, patience)
		if err != nil || receipt.State != p.want {
			t.Errorf("%+v, %v, want %s", receipt, err, p.want)
		}
		if p.want == push.Failed && (receipt.Problem == nil || receipt.Problem.Code != push.DestinationNotAllowed) {
			t.Errorf("the problem is %+v", receipt.Problem)
		}
	}
	for _, id := range []push.ID{failed, waiting} {
		_, err := next.Retry(t.Context(), id)
		wantCode(t, err, push.DestinationNotAllowed)
	}
	r.wantObject(t, "in/allowed", content)
}
