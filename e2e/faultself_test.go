package e2e

import (
	"context"
	"errors"
	"math/bits"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/smithy-go"
)

// faultClient is an S3 client that speaks through a fault proxy and tries
// nothing twice. Its connections end with the test.
func faultClient(t testing.TB, p *faultProxy, more ...func(*s3.Options)) *s3.Client {
	transport := &http.Transport{MaxIdleConnsPerHost: 10}
	t.Cleanup(transport.CloseIdleConnections)
	options := clientOptions(p.url(), transport)
	options.Retryer = aws.NopRetryer{}
	return s3.New(options, more...)
}

// unsigned has a client vouch for no body: neither by a checksum nor by its
// signature.
func unsigned(o *s3.Options) {
	o.RequestChecksumCalculation = aws.RequestChecksumCalculationWhenRequired
	o.APIOptions = append(o.APIOptions, v4.SwapComputePayloadSHA256ForUnsignedPayloadMiddleware)
}

// putThrough puts a file as an object and returns the HTTP status of the
// answer: 200, that of an error that was answered, or 0 with the error that
// there was instead.
func putThrough(client *s3.Client, bucket, key, file string) (status int, err error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_, err = client.PutObject(ctx, &s3.PutObjectInput{Bucket: &bucket, Key: &key, Body: f})
	var answered interface{ HTTPStatusCode() int }
	switch {
	case err == nil:
		return http.StatusOK, nil
	case errors.As(err, &answered) && answered.HTTPStatusCode() != 200:
		return answered.HTTPStatusCode(), err
	}
	return 0, err
}

// What every fault is for the daemon, and what it leaves in the store.
func TestFaults(t *testing.T) {
	p := newFaultProxy(t)
	client := faultClient(t, p)
	bucket := newBucket(t)
	busy := slowDown.instead()
	busy.retryAfter = "7"
	early := internalError.instead()
	early.early = true
	tests := []struct {
		name   string
		fault  fault
		status int
		code   string
		stored bool
	}{
		{"pass", fault{}, 200, "", true},
		{"reset first", fault{what: resetFirst}, 0, "", false},
		{"reset first, early", fault{what: resetFirst, early: true}, 0, "", false},
		{"reset midway", fault{what: resetMidway}, 0, "", false},
		{"503 instead", busy, 503, "SlowDown", false},
		{"429 instead", tooMany.instead(), 429, "TooManyRequests", false},
		{"500 instead, early", early, 500, "InternalError", false},
		{"503 after", slowDown.afterStoring(), 503, "SlowDown", true},
		{"500 after", internalError.afterStoring(), 500, "InternalError", true},
		{"cut after", fault{what: cutAfter}, 0, "", true},
		{"cut in the answer", fault{what: cutAnswer}, 0, "", true},
	}
	// An early answer to a large body may be lost on the way: small only there.
	for _, size := range []int64{0, 1, 100_000, 3_000_000} {
		file := makeFile(t, "file", size)
		for _, tt := range tests {
			if early := tt.fault.early && tt.fault.what == answerInstead; early && size > 1 {
				continue
			}
			key := strings.ReplaceAll(tt.name, ",", "") + " + %41 ü/" + string(rune('a'+size%26))
			before := p.count("PutObject", tt.fault.what)
			p.follow(once(tt.fault))
			status, err := putThrough(client, bucket, key, file)
			if status != tt.status {
				t.Errorf("%s, %d bytes: the client has the status %d (%v), want %d", tt.name, size, status, err, tt.status)
			}
			var api smithy.APIError
			if tt.code != "" && (!errors.As(err, &api) || api.ErrorCode() != tt.code) {
				t.Errorf("%s, %d bytes: %v, want the code %s", tt.name, size, err, tt.code)
			}
			waitFor(t, "the exchange to end", func() bool { all := p.requests(""); return all[len(all)-1].ended })
			if n := p.count("PutObject", tt.fault.what) - before; n != 1 {
				t.Errorf("%s, %d bytes: counted %d times, want once: %s", tt.name, size, n, p.summary())
			}
			err = compareObject(bucket, key, file)
			if stored := err == nil; stored != tt.stored {
				t.Errorf("%s, %d bytes: in the store: %v, want %v: %v", tt.name, size, stored, tt.stored, err)
			}
			made := p.objectsMade(bucket, key)
			if (len(made) == 1) != tt.stored || len(made) == 1 && made[0].size < size {
				t.Errorf("%s, %d bytes: the record has %+v", tt.name, size, made)
			}
			// And the next request is well again.
			if status, err := putThrough(client, bucket, key, file); status != 200 {
				t.Errorf("%s, %d bytes: the request after it: %d, %v", tt.name, size, status, err)
			}
			checkObject(t, bucket, key, file)
		}
	}
	if crowded := p.madeAtOnce(); len(crowded) > 0 {
		t.Errorf("made by two requests at once, says the record: %v", crowded)
	}
}

// A gate holds up what has begun, and knows a client that is gone.
func TestFaultGates(t *testing.T) {
	p := newFaultProxy(t)
	bucket, file := newBucket(t), makeFile(t, "file", 50_000)
	for _, name := range []string{"before", "after"} {
		g := newGate()
		f := fault{before: g.wait}
		if name == "after" {
			f = fault{after: g.wait}
		}
		p.follow(always(f))
		put := func(client *s3.Client, key string) <-chan int {
			status := make(chan int, 1)
			go func() {
				s, _ := putThrough(client, bucket, name+key, file)
				status <- s
			}()
			return status
		}
		one, two := put(faultClient(t, p), "1"), put(faultClient(t, p), "2")
		waitFor(t, "both to be held", func() bool { return p.nowHeld() == 2 })
		if stored := len(p.objectsMade(bucket, name+"1")); stored == 1 != (name == "after") {
			t.Errorf("%s: held, and the store has made %d objects", name, stored)
		}
		if err := g.one(); err != nil {
			t.Fatal(err)
		}
		select {
		case s := <-one:
			one, two = two, nil
			if s != 200 {
				t.Errorf("%s: the one let through: %d", name, s)
			}
		case s := <-two:
			two = nil
			if s != 200 {
				t.Errorf("%s: the one let through: %d", name, s)
			}
		}
		if n := p.nowHeld(); n != 1 {
			t.Errorf("%s: %d are held, want 1", name, n)
		}
		g.open()
		if s := <-one; s != 200 {
			t.Errorf("%s: after the opening: %d", name, s)
		}

		// Gone while it was held: what it sent does not arrive later.
		g = newGate()
		p.follow(always(fault{before: g.wait}))
		conn, err := net.Dial("tcp", p.addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.Write([]byte("PUT /" + bucket + "/late HTTP/1.1\r\nHost: store\r\nContent-Length: 4\r\n\r\nlate"))
		waitFor(t, "the request to be held", func() bool { return p.nowHeld() == 1 })
		held := p.requests("PutObject")
		if x := held[len(held)-1]; !daemonHas(x.conn) || !established(x.conn) {
			t.Error("a client that is there is not")
		}
		conn.Close()
		if x := held[len(held)-1]; daemonHas(x.conn) || established(x.conn) {
			t.Error("a client that is gone is there")
		}
		g.open()
		waitFor(t, "the request to end", func() bool { return p.nowHeld() == 0 })
		waitFor(t, "it to be recorded", func() bool { all := p.requests("PutObject"); return all[len(all)-1].outcome == "gone" })
		p.follow(passAll)
	}
}

// Both ways of being cut off, and back, on the same port.
func TestCutOff(t *testing.T) {
	p := newFaultProxy(t)
	client := faultClient(t, p)
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	syns := countSYNs(t, p.addr)
	for i, kind := range []cutKind{cutClosed, cutReset, cutClosed} {
		if status, err := putThrough(client, bucket, "key", file); status != 200 {
			t.Fatalf("not cut off: %d, %v", status, err)
		}
		g := newGate()
		p.follow(once(fault{after: g.wait}))
		cut := make(chan error, 1)
		go func() {
			_, err := putThrough(client, bucket, "cut", file)
			cut <- err
		}()
		waitFor(t, "a request to be under way", func() bool { return p.nowHeld() == 1 })
		begin := time.Now()
		p.cutOff(kind)
		if err := <-cut; err == nil {
			t.Error("the request under way had an answer")
		}
		const tries = 3
		for range tries {
			_, err := putThrough(client, bucket, "refused", file)
			if refused := errors.Is(err, syscall.ECONNREFUSED); err == nil || refused != (kind == cutClosed) {
				t.Errorf("cut off: %v", err)
			}
		}
		if n := len(p.connectsSince(begin)); kind == cutReset && n != tries || kind == cutClosed && n != 0 {
			t.Errorf("%d connections were counted, of %d", n, tries)
		}
		if syns != nil {
			waitFor(t, "the attempts to be seen", func() bool { return len(syns.since(begin)) >= tries })
			if n := len(syns.since(begin)); n != tries {
				t.Errorf("round %d: %d attempts to connect were seen, want %d", i, n, tries)
			}
		}
		p.restore(t)
		g.open()
	}
	if status, err := putThrough(client, bucket, "key", file); status != 200 {
		t.Errorf("back: %d, %v", status, err)
	}
	checkObject(t, bucket, "key", file)
	if n := len(p.requests("PutObject")); n != 3*2+1 {
		t.Errorf("the proxy saw %d requests, want 7", n)
	}
}

// The plans, as functions.
func TestFaultPlans(t *testing.T) {
	kinds := func(p plan, n int) (s string) {
		for i := range n {
			op := "PutObject"
			if i%2 == 1 {
				op = "UploadPart"
			}
			s += string(rune('0' + p(request{n: i + 1, op: op}).what))
		}
		return s
	}
	bad := fault{what: cutAfter}
	tests := []struct {
		name string
		plan plan
		want string
	}{
		{"pass", passAll, "000000000000"},
		{"every fourth", everyNth(4, bad), "000500050005"},
		{"one of them every fourth", everyNthOf(4, 1, bad), "000500050005"},
		{"once", once(bad), "500000000000"},
		{"parts only", only("Other UploadPart", always(bad)), "050505050505"},
		{"never", randomFaults(1, 0, bad), "000000000000"},
		{"ever", randomFaults(1, 1, bad), "555555555555"},
		{"where they may be", randomFaults(1, 1, bad, fault{what: resetFirst, ops: "GetObject"}), "555555555555"},
	}
	for _, tt := range tests {
		if got := kinds(tt.plan, 12); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
	if a, b := kinds(randomFaults(7, 0.5, allFaults()...), 100), kinds(randomFaults(7, 0.5, allFaults()...), 100); a != b {
		t.Errorf("one seed has two plans: %s and %s", a, b)
	}
	if a, b := kinds(randomFaults(7, 0.5, bad), 100), kinds(randomFaults(8, 0.5, bad), 100); a == b {
		t.Errorf("two seeds have one plan: %s", a)
	}
	if n := strings.Count(kinds(randomFaults(3, 0.25, bad), 1000), "5"); n < 180 || n > 320 {
		t.Errorf("a rate of a quarter made %d of 1000", n)
	}
}

// One bit, at the place that was named: the store has a body of the same length.
func TestFaultFlips(t *testing.T) {
	p := newFaultProxy(t)
	client, signed := faultClient(t, p, unsigned), faultClient(t, p)
	bucket := newBucket(t)
	for _, size := range []int64{1, 2, 100_000, 3_000_000} {
		file := makeFile(t, "file", size)
		want, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for name, at := range map[string]place{"the middle": nil, "first": offset(0), "last": offset(size), "anywhere": anywhere} {
			p.follow(once(fault{what: flips, at: at}))
			if status, err := putThrough(client, bucket, "key", file); status != 200 {
				t.Fatalf("%s of %d bytes: %d, %v", name, size, status, err)
			}
			got, err := os.ReadFile(filepath.Join(theStore.dir, bucket, "key"))
			if err != nil || len(got) != len(want) {
				t.Fatalf("%s of %d bytes: the store has %d, %v", name, size, len(got), err)
			}
			changed, where := 0, int64(0)
			for i := range got {
				if n := bits.OnesCount8(got[i] ^ want[i]); n > 0 {
					changed, where = changed+n, int64(i)
				}
			}
			if changed != 1 {
				t.Errorf("%s of %d bytes: %d bits are changed", name, size, changed)
			}
			if expected := (fault{at: at}).place(len(p.requests("")), size); where != expected {
				t.Errorf("%s of %d bytes: the byte %d is changed, want %d", name, size, where, expected)
			}
			// And a store that can know notices.
			p.follow(once(fault{what: flips, at: at}))
			if status, err := putThrough(signed, bucket, "key", file); status/100 != 4 {
				t.Errorf("%s of %d bytes, signed: %d, %v", name, size, status, err)
			}
		}
	}
}
