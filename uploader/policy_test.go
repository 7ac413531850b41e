package uploader

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"testing"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// refusal is an error as the SDK returns it for an answer of the store.
func refusal(status int, code string) error {
	return &awshttp.ResponseError{RequestID: "r1", ResponseError: &smithyhttp.ResponseError{
		Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status}},
		Err:      &smithy.GenericAPIError{Code: code, Message: "m"},
	}}
}

// operation is an error as the SDK returns it for any failure of a request.
func operation(err error) error {
	return &smithy.OperationError{ServiceID: "S3", OperationName: "PutObject", Err: err}
}

// refusalAfter is a refusal with a Retry-After header.
func refusalAfter(status int, code, after string) error {
	err := refusal(status, code).(*awshttp.ResponseError)
	err.Response.Header = http.Header{"Retry-After": {after}}
	return err
}

// TestRetryPolicy has what each failure means: for a push that somebody waits
// for, and for one that nobody does.
func TestRetryPolicy(t *testing.T) {
	reset := &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	for _, tc := range []struct {
		name           string
		err            error
		waited, queued bool // whether there is another attempt
		reason         string
	}{
		{"connection reset", reset, true, true, "connection"},
		{"connection refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true, true, "connection"},
		{"no connection tried", operation(&smithyhttp.RequestSendError{Err: &downError{cause: syscall.ECONNREFUSED}}), true, true, "connection"},
		{"answer cut short", io.ErrUnexpectedEOF, true, true, "connection"},
		{"stood still", operation(&smithyhttp.RequestSendError{Err: &transport.StallError{At: transport.Sending}}), true, true, "stalled"},
		{"no answer began", operation(&smithyhttp.RequestSendError{Err: &transport.StallError{At: transport.Awaiting}}), true, true, "stalled"},
		{"no connection was had", operation(&smithyhttp.RequestSendError{Err: &transport.StallError{At: transport.Connecting}}), true, true, "connection"},
		{"500", refusal(500, "InternalError"), true, true, "5xx"},
		{"502 of a proxy", refusal(502, "BadGateway"), true, true, "5xx"},
		{"503 SlowDown", refusal(503, "SlowDown"), true, true, "slow_down"},
		{"507", refusal(507, "InsufficientCapacity"), true, true, "5xx"},
		{"429", refusal(429, "TooManyRequests"), true, true, "slow_down"},
		{"429 without a body", refusal(429, ""), true, true, "slow_down"},
		{"400 RequestTimeout", refusal(400, "RequestTimeout"), true, true, "answer"},
		{"400 BadDigest", refusal(400, "BadDigest"), true, true, "checksum_mismatch"},
		{"400 XAmzContentSHA256Mismatch", refusal(400, "XAmzContentSHA256Mismatch"), true, true, "checksum_mismatch"},
		{"400 XAmzContentChecksumMismatch", refusal(400, "XAmzContentChecksumMismatch"), true, true, "checksum_mismatch"},
		{"400 InvalidPart", refusal(400, "InvalidPart"), true, true, "checksum_mismatch"},
		{"404 NoSuchUpload", refusal(404, "NoSuchUpload"), true, true, "answer"},
		{"no proof, where there was one before", &push.Error{Code: push.NotVerified, Err: errNotKnown}, true, true, "not_verified"},
		{"no proof to be had", push.Errorf(push.NotVerified, "m"), false, false, ""},
		{"403 RequestTimeTooSkewed", refusal(403, "RequestTimeTooSkewed"), true, true, "clock"},
		{"409 OperationAborted", refusal(409, "OperationAborted"), true, true, "conflict"},
		{"409 ConditionalRequestConflict", refusal(409, "ConditionalRequestConflict"), true, true, "conflict"},
		{"200 with an error inside", refusal(200, "InternalError"), true, true, "answer"},
		{"200 that broke off", refusal(200, ""), true, true, "answer"},
		{"other bytes stored", push.Errorf(push.ChecksumMismatch, "m"), true, true, "checksum_mismatch"},
		{"unclear completion", &unclearError{err: io.EOF}, true, true, "unclear"},
		{"sent in vain", operation(&smithyhttp.RequestSendError{Err: errors.New("m")}), true, true, "connection"},
		{"403 AccessDenied", refusal(403, "AccessDenied"), true, true, "answer"},

		{"no credentials", operation(&credentialsError{errors.New("m")}), false, true, "credentials"},
		{"expired credentials", refusal(400, "ExpiredToken"), false, true, "credentials"},
		{"expired credentials that may be renewed", &staleError{err: refusal(400, "ExpiredToken")}, true, true, "credentials"},
		{"credentials that are gone for now", operation(&staleError{err: &credentialsError{errEnded}}), true, true, "credentials"},
		{"held back for credentials", operation(&staleError{err: &heldError{refusal(403, "InvalidAccessKeyId")}}), true, true, "credentials"},
		{"certificate", operation(&smithyhttp.RequestSendError{Err: &tls.CertificateVerificationError{Err: errors.New("m")}}), false, true, "certificate"},

		{"501", refusal(501, "NotImplemented"), false, false, ""},
		{"wrong key", refusal(403, "InvalidAccessKeyId"), false, true, "credentials"},
		{"wrong secret", refusal(403, "SignatureDoesNotMatch"), false, true, "credentials"},
		{"another region", refusal(301, "PermanentRedirect"), false, true, "configuration"},
		{"a portal", refusal(302, ""), false, true, "configuration"},
		{"a proxy without a backend", refusal(404, ""), false, true, "configuration"},
		{"yes without an ETag", &push.Error{Code: push.StoreRefused, Err: errNoStore}, false, true, "configuration"},
		{"no descriptors left", &push.Error{Code: push.Internal, Err: syscall.EMFILE}, true, true, "internal"},
		{"Retry-After that is too long to wait for", refusalAfter(503, "SlowDown", "60"), false, true, "slow_down"},

		{"404 NoSuchBucket", refusal(404, "NoSuchBucket"), false, false, ""},
		{"400 EntityTooLarge", refusal(400, "EntityTooLarge"), false, false, ""},
		{"file changed", push.Errorf(push.FileChanged, "m"), false, false, ""},
		{"file changes still", &push.Error{Code: push.FileChanged, Err: errUnsettled}, true, true, "file_changed"},
		{"file hangs", push.Errorf(push.FileHangs, "m"), true, true, "file_hangs"},
		{"file gone", push.Errorf(push.FileNotFound, "m"), false, false, ""},
		{"stopped", context.Canceled, false, false, ""},
		{"not a request", operation(&smithy.SerializationError{Err: errors.New("m")}), false, false, ""},
		{"no endpoint for it", operation(errors.New("m")), false, false, ""},
	} {
		p := retryPolicy{attempts: 3, giveUp: time.Hour, jitter: func(d time.Duration) time.Duration { return d }}
		if got := p.after(failure{err: tc.err, attempts: 1, waited: true}); got.again != tc.waited {
			t.Errorf("%s, waited for: again %v, want %v", tc.name, got.again, tc.waited)
		}
		if got := p.after(failure{err: tc.err, attempts: 1}); got.again != tc.queued {
			t.Errorf("%s, not waited for: again %v, want %v", tc.name, got.again, tc.queued)
		}
		if p.after(failure{err: tc.err, attempts: 3, waited: true}).again {
			t.Errorf("%s: a fourth attempt of three while somebody waits", tc.name)
		}
		if got := p.after(failure{err: tc.err, attempts: 1000, age: time.Hour - 1}); got.again != (tc.queued && tc.name != "403 AccessDenied") {
			t.Errorf("%s: again %v after a thousand attempts that nobody waits for", tc.name, got.again)
		}
		if tc.name != "403 AccessDenied" && p.after(failure{err: tc.err, attempts: 1, age: time.Hour}).again {
			t.Errorf("%s: another attempt at a push that is too old", tc.name)
		}
		if tc.reason != "" && reasonOf(tc.err) != tc.reason {
			t.Errorf("%s: the reason is %q, want %q", tc.name, reasonOf(tc.err), tc.reason)
		}
	}
}

// TestMismatchesAreLimited: other bytes than were read are sent again as often as
// there are attempts, whoever waits; other failures do not count.
func TestMismatchesAreLimited(t *testing.T) {
	p := newRetryPolicy(3, time.Hour)
	for _, err := range []error{refusal(400, "BadDigest"), push.Errorf(push.ChecksumMismatch, "m"), &spoiledError{refusal(400, "InvalidPart")}} {
		for differed, again := range map[int]bool{1: true, 2: true, 3: false, 4: false} {
			if got := p.after(failure{err: err, attempts: differed, differed: differed}); got.again != again {
				t.Errorf("%v, %d times, while nobody waits: again %v, want %v", err, differed, got.again, again)
			}
			if got := p.after(failure{err: err, attempts: 1, differed: differed, waited: true}); got.again != again {
				t.Errorf("%v, %d times, while somebody waits: again %v, want %v", err, differed, got.again, again)
			}
		}
	}
	if !p.after(failure{err: refusal(503, "SlowDown"), attempts: 3, differed: 3}).again {
		t.Error("another failure is the last because of mismatches before")
	}
}

// TestWaitsForTheWriter: a file that is being written is left alone for as long
// as it takes to settle.
func TestWaitsForTheWriter(t *testing.T) {
	p := newRetryPolicy(3, time.Hour)
	err := &push.Error{Code: push.FileChanged, Err: errUnsettled}
	if got := p.after(failure{err: err, attempts: 1}); got.wait < fileSettles || got.wait > fileSettles+backoffBase {
		t.Errorf("the next look is after %v", got.wait)
	}
}

func TestBackoffGrowsToItsCap(t *testing.T) {
	p := retryPolicy{attempts: 1000, giveUp: time.Hour, jitter: func(d time.Duration) time.Duration { return d }}
	overload := refusal(503, "SlowDown")
	const s = time.Second
	for waited, want := range map[bool][]time.Duration{
		true:  {s / 2, s, 2 * s, 4 * s, 8 * s, 10 * s, 10 * s},
		false: {s / 2, s, 2 * s, 4 * s, 8 * s, 16 * s, 32 * s, 60 * s, 60 * s},
	} {
		for i, w := range want {
			if got := p.after(failure{err: overload, attempts: i + 1, waited: waited}); got.wait != w {
				t.Errorf("after attempt %d, waited for %v: at most %v, want %v", i+1, waited, got.wait, w)
			}
		}
		if got := p.after(failure{err: overload, attempts: 999, waited: waited}); got.wait != want[len(want)-1] {
			t.Errorf("after attempt 999 at most %v", got.wait)
		}
	}
	full := newRetryPolicy(5, time.Hour)
	for range 1000 {
		if got := full.after(failure{err: overload, attempts: 1, waited: true}); got.wait < 0 || got.wait >= backoffBase {
			t.Fatalf("jitter gave %v, outside [0, %v)", got.wait, backoffBase)
		}
	}
	if got := full.patience(); got != 7500*time.Millisecond {
		t.Errorf("a caller's patience is %v", got)
	}
}

// TestRetryAfter: what the store asks for is kept, within reason.
func TestRetryAfter(t *testing.T) {
	p := newRetryPolicy(5, time.Hour)
	for text, want := range map[string]time.Duration{
		"7": 7 * time.Second, "86400": longestRetryAfter, "99999999999999": longestRetryAfter, "0": 0, "-1": 0, "soon": 0, "": 0,
		"Mon, 02 Jan 2006 15:04:05 GMT": 0,
	} {
		err := refusalAfter(503, "SlowDown", text)
		got, pause := p.after(failure{err: err, attempts: 1}), retryAfter(err)
		if pause != want || want > 0 && (got.wait < want || got.wait >= want+backoffBase) {
			t.Errorf("Retry-After: %s: pause %v, wait %v, want %v", text, pause, got.wait, want)
		}
	}
	in := time.Now().Add(90 * time.Second).UTC().Format(http.TimeFormat)
	if pause := retryAfter(refusalAfter(503, "", in)); pause < 80*time.Second || pause > 90*time.Second {
		t.Errorf("Retry-After in 90 s: pause %v", pause)
	}
}

// TestWithinRequest: a push that has got nowhere gives its place back after a
// failure, but for a connection that broke, which another one mends.
func TestWithinRequest(t *testing.T) {
	p := retryPolicy{attempts: 3, jitter: func(d time.Duration) time.Duration { return d }}
	overload := refusal(503, "SlowDown")
	broken, used := &transport.BrokenError{Err: io.EOF}, &transport.BrokenError{Err: syscall.EPIPE, Reused: true, Idle: true}
	for _, tc := range []struct {
		name    string
		n       int
		err     error
		inPlace bool
		wait    time.Duration
		again   bool
	}{
		{"overload at the start", 1, overload, false, 0, false},
		{"broken connection at the start", 1, broken, false, 0, true},
		{"and once more", 2, broken, false, 0, false},
		{"a used connection that broke", 1, used, false, 0, true},
		{"and again", mostReused, used, false, 0, true},
		{"and once more", mostReused + 1, used, false, 0, false},
		{"stood still", 1, &transport.StallError{At: transport.Sending}, false, 0, true},
		{"and once more", 2, &transport.StallError{At: transport.Sending}, false, 0, false},
		{"no answer began", 1, &transport.StallError{At: transport.Awaiting}, false, 0, false},
		{"no answer began to a part", 1, &transport.StallError{At: transport.Awaiting}, true, backoffBase, true},
		{"an answer did not end", 1, &transport.StallError{At: transport.Reading}, false, 0, false},
		{"no connection at the start", 1, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false, 0, false},
		{"overload of a part", 1, overload, true, backoffBase, true},
		{"and once more", 2, overload, true, 2 * backoffBase, true},
		{"and no more", 3, overload, true, 0, false},
		{"broken connection of a part", 1, broken, true, 0, true},
		{"read timeout of a part", 1, &net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}, true, backoffBase, true},
		{"refusal of a part", 1, refusal(403, "AccessDenied"), true, 0, false},
		{"unclear completion", 1, &unclearError{err: io.EOF}, true, 0, false},
		{"an upload that is gone", 1, refusal(404, "NoSuchUpload"), true, 0, false},
		{"an upload with other parts", 1, &spoiledError{refusal(400, "InvalidPart")}, true, 0, false},
		{"Retry-After of a part", 1, refusalAfter(503, "", "3"), true, 3 * time.Second, true},
		{"a long one", 1, refusalAfter(503, "", "300"), true, backoffCap, true},
	} {
		if wait, again := p.withinRequest(tc.n, tc.err, tc.inPlace, 0); wait != tc.wait || again != tc.again {
			t.Errorf("%s: %v, %v, want %v, %v", tc.name, wait, again, tc.wait, tc.again)
		}
	}
	if _, again := p.withinRequest(1, broken, false, 1); again {
		t.Error("a push that failed before is tried again without giving its place back")
	}
	once := retryPolicy{attempts: 1, jitter: p.jitter}
	for _, inPlace := range []bool{false, true} {
		if _, again := once.withinRequest(1, broken, inPlace, 0); again {
			t.Errorf("in place %v: a second attempt of one", inPlace)
		}
	}
}

func TestPartSize(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, tc := range []struct {
		size, partSize int64
		parts          int
	}{
		{0, 8 * mib, 1},
		{1, 8 * mib, 1},
		{18 * mib, 8 * mib, 1},
		{32*mib - 1, 8 * mib, 1},
		{32 * mib, 8 * mib, 1},
		{32*mib + 1, 8 * mib, 5},
		{40 * mib, 8 * mib, 5},
		{2 * gib, 8 * mib, 256},
		{2*gib + 1, 9 * mib, 228},
		{6 * gib, 24 * mib, 256},
		{8 * gib, 32 * mib, 256},
		{8*gib + 1, 32 * mib, 257},
		{10_000*32*mib - 1, 32 * mib, 10_000},
		{10_000 * 32 * mib, 32 * mib, 10_000},
		{10_000*32*mib + 1, 33 * mib, 9697},
		{tib, 105 * mib, 9987},
		{5 * tib, 525 * mib, 9987},
	} {
		p := plan{whole: wholeSize, minPart: minPartSize}
		if got := p.partSize(tc.size); got != tc.partSize {
			t.Errorf("%d bytes: parts of %d, want %d", tc.size, got, tc.partSize)
		}
		if got := p.parts(tc.size); got != tc.parts {
			t.Errorf("%d bytes: %d parts, want %d", tc.size, got, tc.parts)
		}
	}
}

// TestSettling: the time between two completions of an upload grows, and is longer
// where the store has not answered.
func TestSettling(t *testing.T) {
	p := newRetryPolicy(5, time.Hour)
	for _, tc := range []struct {
		completions int
		answered    bool
		want        time.Duration
	}{
		{1, true, 5 * time.Second}, {2, true, 10 * time.Second}, {4, true, 40 * time.Second},
		{1, false, 15 * time.Second}, {3, false, time.Minute}, {7, false, 10 * time.Minute}, {1000, true, 10 * time.Minute},
	} {
		if got := p.settling(tc.completions, tc.answered); got != tc.want {
			t.Errorf("after %d completions, answered %v: %v, want %v", tc.completions, tc.answered, got, tc.want)
		}
	}
	if p.inVain(4) || !p.inVain(5) {
		t.Error("an upload is not given up after as many completions as there are attempts")
	}
	if p.attempts = 1; p.inVain(2) || !p.inVain(3) {
		t.Error("nor after three where there are fewer")
	}
	p.jitter = func(d time.Duration) time.Duration { return d - 1 }
	if got := p.after(failure{err: &unclearError{err: io.EOF, wait: time.Hour}, attempts: 1}); !got.again || got.wait != time.Hour {
		t.Errorf("after an unclear completion: %+v", got)
	}
}
