package uploader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// TestSlotGrantedTooLate grants a slot to a request between the end of its
// context and its noticing: the slot must go to the next one that waits.
func TestSlotGrantedTooLate(t *testing.T) {
	for name, k := range map[string]kind{"single": single, "part": part} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSlots(1)
				first, second, third := new(turn), new(turn), new(turn)
				if err := s.acquire(t.Context(), first, k); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				late, next := make(chan error, 1), make(chan error, 1)
				go func() { late <- s.acquire(ctx, second, k) }()
				synctest.Wait()
				waiting, forget := context.WithCancel(t.Context())
				defer forget()
				go func() { next <- s.acquire(waiting, third, k) }()
				synctest.Wait() // both stand in select, where the first event counts

				s.mu.Lock()
				cancel()
				s.queue.done(first, k)
				s.grantLocked()
				s.mu.Unlock()
				if err := <-late; !errors.Is(err, context.Canceled) {
					t.Fatalf("acquire with a cancelled context: %v", err)
				}
				synctest.Wait()
				select {
				case err := <-next:
					if err != nil {
						t.Fatal(err)
					}
				default:
					t.Fatalf("the next request still waits, with %d slots in use", s.inUse())
				}
				s.release(third, k)
				if s.inUse() != 0 || first.held != 0 || second.held != 0 || third.held != 0 {
					t.Errorf("%d slots in use; the pushes hold %d, %d and %d", s.inUse(), first.held, second.held, third.held)
				}
			})
		})
	}
}

// TestChangeExplainsTheFailure changes the file while the store fails: the
// file is the reason, and trying again is in vain.
func TestChangeExplainsTheFailure(t *testing.T) {
	for _, status := range []int{403, 429, 503} {
		for _, size := range []int{1000, testPart + 1} {
			t.Run(fmt.Sprint(status, " ", size), func(t *testing.T) {
				r := newRig(t)
				path, _ := r.file(t, "f", size)
				var tries atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
					tries.Add(1)
					io.Copy(io.Discard, req.Body)
					if err := os.Truncate(path, 10); err != nil {
						t.Error(err)
					}
					w.WriteHeader(status)
				})
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				var e *push.Error
				if !errors.As(err, &e) || e.Code != push.FileChanged || e.Store != nil {
					t.Errorf("error %v", err)
				}
				if tries.Load() != 1 || receipt.Attempts != 1 {
					t.Errorf("%d requests, the receipt says %d attempts", tries.Load(), receipt.Attempts)
				}
			})
		}
	}
}

// TestEndedRunIsNotTheFilesFault: reads that end because the run does say that,
// and not that the file cannot be read.
func TestEndedRunIsNotTheFilesFault(t *testing.T) {
	r := newRig(t)
	for _, size := range []int{100, inMemory + 1} {
		path, _ := r.file(t, "f", size)
		file, err := source.New(source.Rules{}).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(errCancelled)
		d := &delivery{up: r.Uploader, file: file}
		content, err := d.content(ctx)
		if err == nil {
			_, err = content.ReadAt(make([]byte, 1), 0)
			err = d.readError(err)
		}
		if err != errCancelled {
			t.Errorf("%d bytes: %v, want %v", size, err, errCancelled)
		}
	}
}

// TestFileEndsTooEarly: who is told so is told of which file.
func TestFileEndsTooEarly(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 100)
	file, err := source.New(source.Rules{}).Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &delivery{up: r.Uploader, req: push.Request{File: path}, file: file}
	err = d.readError(io.ErrUnexpectedEOF)
	wantCode(t, err, push.FileUnreadable)
	if !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "100 bytes") {
		t.Errorf("it says %q", err)
	}
}

// opened counts this process's descriptors of a file.
func opened(t *testing.T, path string) (n int) {
	t.Helper()
	dir, err := filepath.EvalSymlinks(filepath.Dir(path)) // the file itself may be gone
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, filepath.Base(path))
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip(err)
	}
	for _, fd := range all {
		// One that has been closed meanwhile leads nowhere.
		if to, err := os.Readlink("/proc/self/fd/" + fd.Name()); err == nil && strings.TrimSuffix(to, " (deleted)") == path {
			n++
		}
	}
	return n
}

// agree answers a request as a store would that keeps nothing.
func agree(w http.ResponseWriter, req *http.Request) {
	io.Copy(io.Discard, req.Body)
	w.Header().Set("Etag", `"x"`)
	switch operationOf(req) {
	case "CreateMultipartUpload":
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
	case "CompleteMultipartUpload":
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>%s</Key><ETag>x</ETag><ChecksumCRC64NVME>%s</ChecksumCRC64NVME></CompleteMultipartUploadResult>",
			strings.TrimPrefix(req.URL.Path, "/bucket/"), req.Header.Get("X-Amz-Checksum-Crc64nvme"))
	}
}

// TestWaitingHoldsNothing has one push wait for the end of another, and then
// end in several ways: while it waits its file is not open, and in the end no
// file is and both places are free.
func TestWaitingHoldsNothing(t *testing.T) {
	for _, tc := range []struct {
		name   string
		while  func(t *testing.T, r *rig, path string) // it waits
		status int                                     // what the store says to it
		code   push.Code                               // how it ends; empty is done
	}{
		{"delivered", func(*testing.T, *rig, string) {}, 200, ""},
		{"refused", func(*testing.T, *rig, string) {}, 403, push.StoreRefused},
		{"its file is removed", func(t *testing.T, _ *rig, path string) {
			if err := os.Remove(path); err != nil {
				t.Error(err)
			}
		}, 200, push.FileNotFound},
		{"stopped", func(t *testing.T, r *rig, _ string) {
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			r.stays = r.Drain(ctx)
		}, 200, push.ShuttingDown},
	} {
		for _, size := range []int{10, testPart + 1} {
			t.Run(fmt.Sprint(tc.name, " ", size), func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.MaxConnections = 1 })
				arrived, hold := make(chan struct{}, 10), make(chan struct{})
				let := sync.OnceFunc(func() { close(hold) })
				t.Cleanup(let)
				r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
					switch {
					case strings.HasSuffix(req.URL.Path, "/first"):
						arrived <- struct{}{}
						<-hold
					case strings.HasSuffix(req.URL.Path, "/second") && tc.status != 200:
						io.Copy(io.Discard, req.Body)
						w.WriteHeader(tc.status)
						return
					}
					agree(w, req)
				})
				var ended [2]chan error
				var paths [2]string
				begin := func(i int, name string) {
					paths[i], _ = r.file(t, name, size)
					ended[i] = make(chan error, 1)
					go func() {
						_, err := r.Push(context.Background(), push.Request{File: paths[i], Destination: "s3://bucket/" + name})
						ended[i] <- err
					}()
				}
				begin(0, "first")
				<-arrived
				begin(1, "second")
				until(t, "the second push waits", func() bool { queued, _ := r.depth(); return queued == 1 })
				if running, waiting := opened(t, paths[0]), opened(t, paths[1]); running != 1 || waiting != 0 {
					t.Errorf("the push that runs has its file open %d times, the one that waits %d times", running, waiting)
				}
				tc.while(t, r, paths[1])
				if tc.code == push.ShuttingDown {
					end(t, r, ended[0])
				} else {
					let()
					if err := end(t, r, ended[0]); err != nil {
						t.Error(err)
					}
				}
				err := end(t, r, ended[1])
				var e *push.Error
				if errors.As(err, &e); (err == nil) != (tc.code == "") || e != nil && e.Code != tc.code {
					t.Errorf("the second push: %v", err)
				}
				for _, path := range paths {
					if n := opened(t, path); n != 0 {
						t.Errorf("%s is open %d times", filepath.Base(path), n)
					}
				}
				if _, running := r.depth(); running != 0 {
					t.Errorf("%d places are taken by pushes that ended", running)
				}
				if tc.code == push.ShuttingDown {
					return
				}
				path, _ := r.file(t, "third", size)
				if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/third"}); err != nil {
					t.Errorf("the next push: %v", err)
				}
			})
		}
	}
}

// end waits for the end of a push, and stops the uploader if there is none.
func end(t *testing.T, r *rig, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(10 * time.Second):
		r.stop()
		t.Fatal("a push does not end")
		return nil
	}
}

// until waits for a condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !holds(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatal("in vain: ", what)
		}
	}
}
