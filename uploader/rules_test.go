package uploader

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// TestRootsOfTheJournal has pushes that were accepted when files could be read
// anywhere: now those from elsewhere are not, at their turn and when they are put
// back, and the others are delivered.
func TestRootsOfTheJournal(t *testing.T) {
	r := newRig(t)
	outside, _ := r.file(t, "f", 100)
	root := filepath.Join(filepath.Dir(outside), "root")
	inside, link := filepath.Join(root, "f"), filepath.Join(root, "link")
	for _, err := range []error{os.Mkdir(root, 0o755), os.WriteFile(inside, []byte("light"), 0o644), os.Symlink(outside, link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	r.spoil(noBucket)
	failed := r.later(t, push.Request{File: outside, Destination: "s3://bucket/failed"})
	r.ended(t, failed, push.Failed)
	r.mu.Lock()
	r.queue.paused = true
	r.mu.Unlock()
	waiting := r.later(t, push.Request{File: link, Destination: "s3://bucket/waiting"})
	allowed := r.later(t, push.Request{File: inside, Destination: "s3://bucket/allowed"})
	over, cancel := context.WithCancel(t.Context())
	cancel()
	r.stays = r.Drain(over)

	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Path != "/bucket/allowed" && req.URL.Path != "/" {
			t.Errorf("%s %s reached the store", req.Method, req.URL)
		}
		next.ServeHTTP(w, req)
	})
	r.cfg.Roots = []string{root}
	next := r.again(t)
	for id, want := range map[push.ID]push.State{waiting: push.Failed, allowed: push.Done} {
		receipt, err := next.Get(t.Context(), id, patience)
		if err != nil || receipt.State != want {
			t.Errorf("%+v, %v, want %s", receipt, err, want)
		}
		if want == push.Failed && (receipt.Problem == nil || receipt.Problem.Code != push.FileNotAllowed) {
			t.Errorf("the problem is %+v", receipt.Problem)
		}
	}
	for _, id := range []push.ID{failed, waiting} {
		if _, err := next.Retry(t.Context(), id); err == nil {
			receipt, err := next.Get(t.Context(), id, patience)
			if err != nil || receipt.State != push.Failed || receipt.Problem == nil || receipt.Problem.Code != push.FileNotAllowed {
				t.Errorf("put back it is %+v, %v", receipt, err)
			}
		} else {
			wantCode(t, err, push.FileNotAllowed)
		}
	}
	_, err := next.Push(t.Context(), push.Request{File: link, Destination: "s3://bucket/k"}, push.Options{})
	wantCode(t, err, push.FileNotAllowed)
	r.wantObject(t, "allowed", []byte("light"))
}

// TestFloodOfRefusedPushes: who asks for what is not allowed, again and again, does not
// fill the log.
func TestFloodOfRefusedPushes(t *testing.T) {
	r := newRig(t)
	for range 200 {
		if _, err := r.Push(t.Context(), push.Request{File: "/dev/null", Destination: "s3://bucket/k"}); err == nil {
			t.Fatal("it was taken")
		}
	}
	if lines := strings.Count(r.log.String(), "push refused"); lines == 0 || lines == 200 {
		t.Errorf("%d lines of 200 refusals", lines)
	}
	r = newRig(t)
	long := strings.Repeat("x", 60_000)
	if _, err := r.Push(t.Context(), push.Request{File: long, Destination: long, Label: long}); err == nil {
		t.Fatal("it was taken")
	}
	if text := r.log.String(); !strings.Contains(text, "push refused") || strings.Contains(text, long[:1000]) {
		t.Errorf("%d bytes of log for one refusal", len(text))
	}
}
