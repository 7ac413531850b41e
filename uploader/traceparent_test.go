package uploader

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

const (
	aTraceparent       = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	anotherTraceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-b7ad6b7169203331-01"
)

// traces has the traceparent of each request that came to the store, as OPERATION or
// "probe", with what it had.
type traces struct {
	mu   sync.Mutex
	seen []string
}

// trace notes what came to the store, and puts a traceparent of its own in the
// place of each, as a proxy on the way does.
func (r *rig) trace(answer func(http.ResponseWriter, *http.Request, http.Handler)) *traces {
	tr := new(traces)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		operation, _, _ := strings.Cut(operationOf(req), " ")
		if isProbe(req) {
			operation = "probe"
		}
		tr.mu.Lock()
		tr.seen = append(tr.seen, operation+" "+strings.Join(req.Header["Traceparent"], " and "))
		tr.mu.Unlock()
		if req.Header.Get("Traceparent") != "" {
			req.Header.Set("Traceparent", anotherTraceparent)
		}
		answer(w, req, next)
	})
	return tr
}

// take returns the different ones, and begins anew.
func (tr *traces) take() []string {
	tr.mu.Lock()
	defer tr.mu.Unlock()
	seen := tr.seen
	tr.seen = nil
	slices.Sort(seen)
	return slices.Compact(seen)
}

// TestTraceparentReachesTheStore: each request of a push has it, of whatever way
// it is made, and the store takes the signature though a proxy has changed it.
func TestTraceparentReachesTheStore(t *testing.T) {
	for _, tt := range []struct {
		size int
		want []string
	}{
		{10, []string{"PutObject"}},
		{inMemory + 1, []string{"PutObject"}},
		{testPart + 1, []string{"CompleteMultipartUpload", "CreateMultipartUpload", "HeadObject", "UploadPart"}},
	} {
		for _, sdk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%d bytes, by the SDK %v", tt.size, sdk), func(t *testing.T) {
				r := newRig(t)
				if sdk {
					r.putter = nil
				}
				seen := r.trace(serve)
				path, content := r.file(t, "f", tt.size)
				for _, parent := range []string{aTraceparent, ""} {
					receipt, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{Wait: push.Forever, Traceparent: parent})
					if err != nil || receipt.Traceparent != parent {
						t.Fatalf("%v, %+v", err, receipt)
					}
					r.wantObject(t, "k", content)
					var want []string
					for _, operation := range tt.want {
						want = append(want, operation+" "+parent)
					}
					if got := seen.take(); !slices.Equal(got, want) {
						t.Errorf("with %q: the store saw %q, want %q", parent, got, want)
					}
				}
			})
		}
	}
}

// TestTraceparentIsOfPushesAlone: questions about the store, and what the janitor
// does, are of none.
func TestTraceparentIsOfPushesAlone(t *testing.T) {
	r := newRig(t)
	seen := r.trace(serve)
	path, _ := r.file(t, "f", testPart+1)
	_, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k", Overwrite: new(bool)}, push.Options{Wait: push.Forever, Traceparent: aTraceparent})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range seen.take() {
		if operation, parent, _ := strings.Cut(s, " "); (operation == "probe") != (parent == "") {
			t.Errorf("the store saw %q", s)
		}
	}
	r.orphan(t, "other", r.begin(t, "other"))
	r.janitor.wake()
	until(t, "the orphan is aborted", func() bool { return len(r.uploadsLeft(t)) == 0 })
	for _, s := range seen.take() {
		if strings.Contains(s, aTraceparent) {
			t.Errorf("after the push the store saw %q", s)
		}
	}
}

// TestTraceparentStays with a push that is put back, by another process, and with
// one that is asked for again by its key.
func TestTraceparentStays(t *testing.T) {
	r := newRig(t)
	seen := r.trace(func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusNotImplemented) })
	path, _ := r.file(t, "f", 10)
	req, opts := push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{Wait: push.Forever, IdempotencyKey: "key", Traceparent: aTraceparent}
	receipt, err := r.Uploader.Push(t.Context(), req, opts)
	wantCode(t, err, push.StoreRefused)
	opts.Traceparent = anotherTraceparent
	again, err := r.Uploader.Push(t.Context(), req, opts)
	wantCode(t, err, push.StoreRefused)
	if receipt.ID != again.ID || again.Traceparent != aTraceparent {
		t.Errorf("asked for again it is %+v", again)
	}
	seen.take()
	r.Drain(t.Context())
	next := r.again(t)
	seen = r.trace(serve)
	id := parseID(t, receipt.ID)
	if back, err := next.Retry(t.Context(), id); err != nil || back.Traceparent != aTraceparent {
		t.Fatalf("put back it is %+v, %v", back, err)
	}
	done, err := next.Get(t.Context(), id, patience)
	if err != nil || done.State != push.Done || done.Traceparent != aTraceparent {
		t.Errorf("in the end it is %+v, %v", done, err)
	}
	if got := seen.take(); !slices.Equal(got, []string{"PutObject " + aTraceparent}) {
		t.Errorf("the store saw %q", got)
	}
}
