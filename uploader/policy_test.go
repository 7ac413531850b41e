package uploader

import (
	"context"
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

func TestRetryPolicy(t *testing.T) {
	reset := &net.OpError{Op: "write", Net: "tcp", Err: syscall.ECONNRESET}
	for _, tc := range []struct {
		name  string
		err   error
		again bool
	}{
		{"connection reset", reset, true},
		{"connection refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		{"answer cut short", io.ErrUnexpectedEOF, true},
		{"500", refusal(500, "InternalError"), true},
		{"502 of a proxy", refusal(502, "BadGateway"), true},
		{"503 SlowDown", refusal(503, "SlowDown"), true},
		{"507", refusal(507, "InsufficientCapacity"), true},
		{"429", refusal(429, "TooManyRequests"), true},
		{"400 RequestTimeout", refusal(400, "RequestTimeout"), true},
		{"400 BadDigest", refusal(400, "BadDigest"), true},
		{"403 RequestTimeTooSkewed", refusal(403, "RequestTimeTooSkewed"), true},
		{"409 OperationAborted", refusal(409, "OperationAborted"), true},
		{"409 ConditionalRequestConflict", refusal(409, "ConditionalRequestConflict"), true},
		{"200 with an error inside", refusal(200, "InternalError"), true},
		{"200 that broke off", refusal(200, ""), true},
		{"other bytes stored", push.Errorf(push.ChecksumMismatch, "m"), true},

		{"501", refusal(501, "NotImplemented"), false},
		{"404 NoSuchBucket", refusal(404, "NoSuchBucket"), false},
		{"403 AccessDenied", refusal(403, "AccessDenied"), false},
		{"400 EntityTooLarge", refusal(400, "EntityTooLarge"), false},
		{"301", refusal(301, "PermanentRedirect"), false},
		{"file changed", push.Errorf(push.FileChanged, "m"), false},
		{"stopped", context.Canceled, false},
		{"not a request", operation(&smithy.SerializationError{Err: errors.New("m")}), false},
		{"no endpoint for it", operation(errors.New("m")), false},
		{"no credentials", operation(&credentialsError{errors.New("m")}), false},
		{"sent in vain", operation(&smithyhttp.RequestSendError{Err: errors.New("m")}), true},
	} {
		p := retryPolicy{attempts: 3, jitter: func(d time.Duration) time.Duration { return d }}
		if _, again := p.after(1, tc.err); again != tc.again {
			t.Errorf("%s: again %v, want %v", tc.name, again, tc.again)
		}
		if _, again := p.after(3, tc.err); again {
			t.Errorf("%s: a fourth attempt of three", tc.name)
		}
	}
}

func TestBackoffGrowsToItsCap(t *testing.T) {
	p := retryPolicy{attempts: 1000, jitter: func(d time.Duration) time.Duration { return d }}
	want := []time.Duration{500 * time.Millisecond, time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second, 10 * time.Second, 10 * time.Second}
	overload := refusal(503, "SlowDown")
	for i, w := range want {
		if got, _ := p.after(i+1, overload); got != w {
			t.Errorf("after attempt %d at most %v, want %v", i+1, got, w)
		}
	}
	if got, _ := p.after(999, overload); got != backoffCap {
		t.Errorf("after attempt 999 at most %v", got)
	}
	// A connection that broke off is replaced at once, the first time.
	for err, w := range map[error]time.Duration{
		io.ErrUnexpectedEOF:                                   0,
		&net.OpError{Op: "write", Err: syscall.EPIPE}:         0,
		&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}:   backoffBase,
		&net.OpError{Op: "read", Err: os.ErrDeadlineExceeded}: backoffBase,
	} {
		if got, again := p.after(1, err); got != w || !again {
			t.Errorf("after %v at first: %v, %v", err, got, again)
		}
		if got, _ := p.after(2, err); got != 2*backoffBase {
			t.Errorf("after %v for the second time: %v", err, got)
		}
	}
	full := newRetryPolicy(5)
	for range 1000 {
		if got, _ := full.after(1, overload); got < 0 || got >= backoffBase {
			t.Fatalf("jitter gave %v, outside [0, %v)", got, backoffBase)
		}
	}
}

func TestPartSize(t *testing.T) {
	const mib, gib, tib = 1 << 20, 1 << 30, 1 << 40
	for _, tc := range []struct {
		size, partSize int64
		parts          int
	}{
		{0, 32 * mib, 1},
		{1, 32 * mib, 1},
		{18 * mib, 32 * mib, 1},
		{32*mib - 1, 32 * mib, 1},
		{32 * mib, 32 * mib, 1},
		{32*mib + 1, 32 * mib, 2},
		{6 * gib, 32 * mib, 192},
		{10_000 * 32 * mib, 32 * mib, 10_000},
		{10_000*32*mib + 1, 33 * mib, 9697},
		{tib, 105 * mib, 9987},
		{5 * tib, 525 * mib, 9987},
	} {
		p := plan{minPart: minPartSize}
		if got := p.partSize(tc.size); got != tc.partSize {
			t.Errorf("%d bytes: parts of %d, want %d", tc.size, got, tc.partSize)
		}
		if got := p.parts(tc.size); got != tc.parts {
			t.Errorf("%d bytes: %d parts, want %d", tc.size, got, tc.parts)
		}
	}
}
