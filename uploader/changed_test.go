package uploader

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

func retryChanged(c *Config) { c.RetryChanged = true }

// TestChangedIsAdopted changes files between acceptance and turn: what is sent,
// and what the receipt describes, is the file as it is then.
func TestChangedIsAdopted(t *testing.T) {
	write := func(size int) func(string) error {
		return func(path string) error { return os.WriteFile(path, bytes.Repeat([]byte{1}, size), 0o644) }
	}
	for name, tc := range map[string]struct {
		size   int
		change func(path string) error
		now    int
		parts  int
	}{
		"longer":    {100, write(200), 200, 1},
		"shorter":   {100, write(10), 10, 1},
		"empty":     {100, write(0), 0, 1},
		"rewritten": {100, write(100), 100, 1},
		"replaced": {100, func(path string) error {
			return errors.Join(write(100)(path+".new"), os.Rename(path+".new", path))
		}, 100, 1},
		"small to large": {100, write(2*testPart + 1), 2*testPart + 1, 3},
		"large to small": {2*testPart + 1, write(100), 100, 1},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, retryChanged)
			g := r.hold(t, true, pass)
			path, _ := r.file(t, "f", 100)
			large, _ := r.file(t, "large", testPart+1)
			for i := range 8 { // all places, of both kinds
				file := path
				if i >= 4 {
					file = large
				}
				r.later(t, push.Request{File: file, Destination: fmt.Sprintf("s3://bucket/%d", i)})
			}
			for range 4 {
				<-g.arrived
			}
			until(t, "all places are taken", func() bool { _, running := r.depth(); return running == 8 })
			victim, _ := r.file(t, "g", tc.size)
			id := r.later(t, push.Request{File: victim, Destination: "s3://bucket/k"})
			then := time.Now().Add(-time.Hour)
			if err := errors.Join(tc.change(victim), os.Chtimes(victim, then, then)); err != nil {
				t.Fatal(err)
			}
			g.let()
			receipt := r.ended(t, id, push.Done)
			if receipt.Size != int64(tc.now) || receipt.Parts != tc.parts {
				t.Errorf("the receipt has %d bytes and %d parts, want %d and %d", receipt.Size, receipt.Parts, tc.now, tc.parts)
			}
			object, err := r.store.Get("bucket", "k")
			if err != nil || !bytes.Equal(object, bytes.Repeat([]byte{1}, tc.now)) {
				t.Errorf("the object has %d bytes, %v", len(object), err)
			}
			until(t, "all have ended", func() bool { queued, running := r.depth(); return queued+running == 0 })
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.queue.running != [2]int{} || r.queue.again != [2]int{} {
				t.Errorf("places taken: %v, by those that failed before %v", r.queue.running, r.queue.again)
			}
		})
	}
}

// TestChangesKindWhileIdle: a push that makes way for its kind goes on at once,
// though nothing else happens.
func TestChangesKindWhileIdle(t *testing.T) {
	for _, size := range []int{100, testPart + 1} {
		r := newRig(t, retryChanged)
		r.retry.settles = 0
		path, _ := r.file(t, "f", size)
		want := make([]byte, testPart+101-size)
		var once sync.Once
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			once.Do(func() {
				if err := os.WriteFile(path, want, 0o644); err != nil {
					t.Error(err)
				}
			})
			next.ServeHTTP(w, req)
		})
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		if err != nil || receipt.Size != int64(len(want)) || receipt.Attempts != 2 {
			t.Errorf("%v, %d bytes after %d attempts, want %d after 2", err, receipt.Size, receipt.Attempts, len(want))
		}
	}
}

// TestChangedWhileSent: a file that changes in the midst of it is sent again,
// and if that goes on for ever the one who waits is told.
func TestChangedWhileSent(t *testing.T) {
	for _, size := range []int{100, testPart + 1} {
		for _, times := range []int32{1, 1000} {
			t.Run(fmt.Sprint(size, " bytes, ", times, " times"), func(t *testing.T) {
				r := newRig(t, retryChanged)
				r.retry.settles = 0
				path, _ := r.file(t, "f", size)
				want := bytes.Repeat([]byte{2}, size)
				var n atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					if req.Method == http.MethodDelete { // the janitor's, perhaps after the test
						next.ServeHTTP(w, req)
						return
					}
					if n := n.Add(1); n <= times {
						err := os.WriteFile(path, want, 0o644)
						when := time.Unix(int64(n), 0)
						if err := errors.Join(err, os.Chtimes(path, when, when)); err != nil {
							t.Error(err)
						}
					}
					next.ServeHTTP(w, req)
				})
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				if times > 1 {
					wantCode(t, err, push.FileChanged)
					if receipt.Attempts != 3 || receipt.State != push.Failed {
						t.Errorf("%s after %d attempts, want failed after 3", receipt.State, receipt.Attempts)
					}
					return
				}
				object, getErr := r.store.Get("bucket", "k")
				if err != nil || getErr != nil || !bytes.Equal(object, want) || receipt.Attempts != 2 {
					t.Errorf("%v, %v after %d attempts", err, getErr, receipt.Attempts)
				}
			})
		}
	}
}

// TestChangedAndRemoved: a file that is gone ends its push, whatever it waited
// for.
func TestChangedAndRemoved(t *testing.T) {
	r := newRig(t, retryChanged)
	r.retry.settles = 0
	path, _ := r.file(t, "f", 100)
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if err := errors.Join(os.Truncate(path, 10), os.Rename(path, path+".gone")); err != nil {
			t.Error(err)
		}
		next.ServeHTTP(w, req)
	})
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	wantCode(t, err, push.FileNotFound)
}

// TestCancelAfterEarlierState cancels pushes whose file changed after the store
// had taken it, while they wait for the writer, and in the next run: that object is
// neither the file nor nothing, and the push must not say either.
func TestCancelAfterEarlierState(t *testing.T) {
	for _, now := range []int{100, 200} {
		for _, settles := range []time.Duration{0, time.Hour} {
			t.Run(fmt.Sprint(now, " bytes by then, waits ", settles), func(t *testing.T) {
				r := newRig(t, retryChanged)
				r.retry.settles = settles
				path, earlier := r.file(t, "f", 100)
				arrived, open := make(chan struct{}), make(chan struct{})
				var puts atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					switch {
					case req.Method != http.MethodPut:
					case puts.Add(1) == 1:
						if err := os.WriteFile(path, make([]byte, now), 0o644); err != nil {
							t.Error(err)
						}
					default:
						close(arrived)
						<-open
						refuse(503)(w, req, next)
						return
					}
					next.ServeHTTP(w, req)
				})
				id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
				if settles > 0 {
					until(t, "it waits for its file", func() bool {
						receipt, err := r.Get(t.Context(), id, 0)
						return err == nil && !receipt.RetryAt.IsZero()
					})
				} else {
					<-arrived
				}
				go func() {
					if settles == 0 {
						r.untilCancelled(t, id)
					}
					close(open)
				}()
				receipt, err := r.Cancel(t.Context(), id)
				wantCode(t, err, push.PushEnded)
				if receipt.State != push.Failed || receipt.Problem == nil || receipt.Problem.Code != push.FileChanged {
					t.Errorf("%s, %+v", receipt.State, receipt.Problem)
				}
				r.wantObject(t, "k", earlier)
			})
		}
	}
}

// TestSettled has files of clocks that go right and wrong.
func TestSettled(t *testing.T) {
	now := time.Now()
	at := func(d time.Duration) source.Identity { return source.Identity{Size: 1, ModTime: now.Add(d)} }
	grown := at(time.Hour)
	grown.Size = 2
	for _, tc := range []struct {
		name string
		look []source.Identity // once a second, the first one now
		want []bool
	}{
		{"old", []source.Identity{at(-time.Hour)}, []bool{true}},
		{"just so old", []source.Identity{at(-fileSettles)}, []bool{true}},
		{"young", []source.Identity{at(-time.Second), at(-time.Second)}, []bool{false, true}},
		{"of a clock ahead", []source.Identity{at(time.Hour), at(time.Hour), at(time.Hour)}, []bool{false, false, true}},
		{"of a clock ahead, and growing", []source.Identity{at(time.Hour), grown, grown, grown}, []bool{false, false, false, true}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			k := new(task)
			for i, is := range tc.look {
				if got := k.settled(is, now.Add(time.Duration(i)*time.Second), fileSettles); got != tc.want[i] {
					t.Errorf("after %d s: %v, want %v", i, got, tc.want[i])
				}
			}
		})
	}
}

// TestNothingIsLeftOfTheLargeFile: a file that went in parts, and became a small
// one before it had arrived, leaves no upload behind.
func TestNothingIsLeftOfTheLargeFile(t *testing.T) {
	r := newRig(t, retryChanged)
	path, _ := r.file(t, "f", 3*testPart)
	shrink := sync.OnceValue(func() error {
		then := time.Now().Add(-time.Hour)
		return errors.Join(os.WriteFile(path, []byte("small"), 0o644), os.Chtimes(path, then, then))
	})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.URL.Query().Get("partNumber") == "2" {
			if err := shrink(); err != nil {
				t.Error(err)
			}
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, req)
	})
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k"})
	if receipt := r.ended(t, id, push.Done); receipt.Size != 5 || receipt.Parts != 1 {
		t.Errorf("receipt %+v", receipt)
	}
	until(t, "no upload is left", func() bool { return len(r.uploadsLeft(t)) == 0 && len(r.recorded(t)) == 0 })
}
