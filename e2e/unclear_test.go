package e2e

import (
	"context"
	"fmt"
	"net/http"
	"testing"
	"time"
)

// Errors that pass: nobody waits, and nothing is asked of anybody.
func TestTransientErrorsPass(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_ATTEMPTS=1")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	for _, f := range []fault{
		slowDown, internalError, tooMany,
		{status: http.StatusBadRequest, code: "RequestTimeout"},
		{status: http.StatusConflict, code: "OperationAborted"},
		{status: http.StatusForbidden, code: "RequestTimeTooSkewed"},
		{status: http.StatusBadRequest, code: "ExpiredToken"},
		{status: http.StatusInsufficientStorage, code: "XMinioStorageFull"},
	} {
		t.Run(f.code, func(t *testing.T) {
			p.follow(once(f.instead()))
			r := d.doneOf(t, d.pushAsync(t, file, "s3://"+bucket+"/"+f.code).ID)
			if r.Attempts != 2 || r.Problem != nil {
				t.Errorf("%d attempts and the problem %+v, want 2 and none", r.Attempts, r.Problem)
			}
			checkObject(t, bucket, f.code, file)
			// With one attempt for those who wait, there is none left.
			p.follow(once(f.instead()))
			d.push(t, file, "s3://"+bucket+"/waited").refused(t, http.StatusBadGateway, "store_refused")
		})
	}
}

// What a store asks for in Retry-After it gets.
func TestRetryAfter(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url())
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	busy := slowDown.instead()
	busy.retryAfter = "2"
	p.follow(once(busy))
	d.doneOf(t, d.pushAsync(t, file, "s3://"+bucket+"/key").ID)
	puts := p.requests("PutObject")
	if len(puts) != 2 {
		t.Fatalf("there were %d requests, want 2", len(puts))
	}
	if after := puts[1].arrived.Sub(puts[0].arrived).Seconds(); after < 2 {
		t.Errorf("the store asked for 2 s, and was asked again after %.2f", after)
	}
}

// Nobody waits any more: a push goes on past the attempts of those who do.
func TestNobodyWaitsAnyMore(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_ATTEMPTS=2")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	tests := map[string]func(t *testing.T, to string){
		"the wait is over": func(t *testing.T, to string) {
			d.pushAs(t, wish{prefer: "wait=1"}, file, to).accepted(t)
		},
		"he hung up": func(t *testing.T, to string) {
			ctx, hangUp := context.WithCancel(context.Background())
			defer hangUp()
			left := make(chan error, 1)
			go func() {
				_, err := d.tryPushAs(ctx, wish{}, file, to)
				left <- err
			}()
			waitFor(t, "it to be under way", func() bool { return p.nowHeld() == 1 })
			hangUp()
			if err := <-left; err == nil {
				t.Fatal("there was an answer")
			}
			// The daemon learns of it a little later.
			d.client.CloseIdleConnections()
			<-time.After(100 * time.Millisecond)
		},
	}
	for name, leave := range tests {
		t.Run(name, func(t *testing.T) {
			g, first := newGate(), len(p.requests(""))
			p.follow(func(r request) fault {
				if r.n > first+3 {
					return fault{}
				}
				f := internalError.instead()
				f.before = g.wait
				return f
			})
			leave(t, "s3://"+bucket+"/"+name)
			id := d.pageOf(t, "limit=1").Pushes[0].ID
			g.open()
			if r := d.doneOf(t, id); r.Attempts != 4 {
				t.Errorf("it took %d attempts, want 4", r.Attempts)
			}
			checkObject(t, bucket, name, file)
		})
	}
}

// A push that nobody waits for is given up when it has gone on for long enough,
// and can be put back.
func TestGiveUp(t *testing.T) {
	sideBySide(t)
	p := newFaultProxy(t)
	const after = 2
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), fmt.Sprintf("S3DAEMON_GIVE_UP_AFTER=%ds", after))
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	fails := func(code string) string {
		t.Helper()
		r := d.endOf(t, d.pushAsync(t, file, "s3://"+bucket+"/"+code).ID)
		if r.State != "failed" || r.Problem == nil || r.Problem.Code != code {
			t.Errorf("it is %s with the problem %+v, want failed with %s", r.State, r.Problem, code)
		}
		if r.Seconds < after {
			t.Errorf("it was given up after %v s, want %d or more", r.Seconds, after)
		}
		return r.ID
	}
	p.follow(always(internalError.instead()))
	refused := fails("store_refused")
	p.cutOff(cutClosed)
	unreachable := fails("store_unreachable")
	p.follow(passAll)
	p.restore(t)
	for _, id := range []string{refused, unreachable} {
		d.retry(t, id).accepted(t)
		d.doneOf(t, id)
	}
}

// What the store has done, and did not say so, is not asked for again, and
// nothing is aborted: the object was made once, and is right.
func TestUnclearEnds(t *testing.T) {
	sideBySide(t)
	proxyError := fault{status: http.StatusGatewayTimeout}.afterStoring()
	ends := map[string]fault{
		"cut":             {what: cutAfter},
		"cut in it":       {what: cutAnswer},
		"500":             internalError.afterStoring(),
		"503":             slowDown.afterStoring(),
		"of a proxy":      proxyError,
		"an error in 200": errorIn200.afterStoring(),
		"trickles, cut":   {what: cutAnswer, at: offset(20)},
	}
	gone := map[string]fault{ // of a completion: an earlier one was carried out
		"NoSuchUpload": fault{status: http.StatusNotFound, code: "NoSuchUpload"}.afterStoring(),
		"409":          fault{status: http.StatusConflict, code: "OperationAborted"}.afterStoring(),
	}
	for _, s := range []*realStore{versity(), fakeStore(t), cephStore(t)} {
		if s == nil {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			p := newFaultProxyTo(t, s.dial)
			d := startDaemon(t, s.env(p.url(), "auto", "S3DAEMON_ATTEMPTS=1")...)
			bucket := s.newBucket(t)
			check := func(op, name string, f fault, file *randomFile) {
				t.Run(op+", "+name, func(t *testing.T) {
					key := op + "/" + name
					p.follow(only(op, once(f)))
					r := d.push(t, file.path, "s3://"+bucket+"/"+key).done(t)
					if r.Attempts != 1 || r.Checksum.Value != file.sums.crc64nvme {
						t.Errorf("the receipt is %+v, the file has %+v", r, file.sums)
					}
					if n := len(p.objectsMade(bucket, key)); n != 1 {
						t.Errorf("the object was made %d times", n)
					}
					if got, err := digestObjectIn(s.client, bucket, key); err != nil || got != file.digest {
						t.Errorf("the store has %d bytes of %d, or others: %v", got.size, file.sums.size, err)
					}
				})
			}
			small, large := newRandomFile(t, "small", 100_000), newRandomFile(t, "large", oneRequest+1)
			for name, f := range ends {
				check("PutObject", name, f, small)
				check("CompleteMultipartUpload", name, f, large)
			}
			for name, f := range gone {
				check("CompleteMultipartUpload", name, f, large)
			}
			if n := len(p.requests("AbortMultipartUpload")); n != 0 {
				t.Errorf("%d uploads were aborted", n)
			}
		})
	}
}
