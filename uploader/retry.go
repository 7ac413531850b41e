package uploader

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
)

// Backoff between the attempts of one request: full jitter, so that the pool's
// requests, which fail together, do not come back together.
const (
	backoffBase = 500 * time.Millisecond
	backoffCap  = 10 * time.Second
)

// retryPolicy decides what follows a failed attempt. It knows nothing but the
// failure: no clock, no state shared between pushes, so that one push's bad
// luck never uses up another's tries.
type retryPolicy struct {
	attempts int                               // tries in all, at least 1
	jitter   func(time.Duration) time.Duration // a random duration below its argument
}

func newRetryPolicy(attempts int) retryPolicy {
	return retryPolicy{attempts: attempts, jitter: func(d time.Duration) time.Duration { return rand.N(d) }}
}

// after returns how long to wait before the next attempt, given that attempt
// number n (from 1) ended with err, or false if there is to be none.
func (p retryPolicy) after(n int, err error) (time.Duration, bool) {
	if n >= p.attempts || !transient(err) {
		return 0, false
	}
	if n == 1 && brokenOff(err) {
		return 0, true
	}
	most := backoffCap
	if n < 16 {
		most = min(backoffCap, backoffBase<<(n-1))
	}
	return p.jitter(most), true
}

// brokenOff reports whether a connection ended in the midst of the request. The
// likeliest cause is that the store had given it up while it was idle, and
// another one will do at once.
func brokenOff(err error) bool {
	var network *net.OpError
	if errors.As(err, &network) && network.Op == "dial" {
		return false
	}
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	var known *push.Error
	if errors.As(err, &known) {
		return known.Code == push.ChecksumMismatch
	}
	var open *unclearError
	var untrusted *tls.CertificateVerificationError
	if errors.Is(err, context.Canceled) || errors.As(err, &open) || errors.As(err, &untrusted) || lacksCredentials(err) {
		return false
	}
	answer := answerOf(err)
	switch answer.Code {
	case "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "BadDigest", "InternalError", "ServiceUnavailable",
		"OperationAborted", "ConditionalRequestConflict", "XAmzContentChecksumMismatch":
		return true
	}
	switch answer.Status {
	case 0: // no answer at all
		return !neverSent(err)
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return true
	case http.StatusNotImplemented:
		return false
	}
	// Success with an error is an answer that broke off.
	return answer.Status >= 500 || answer.Status < 300
}

// neverSent reports whether the request never left because the SDK could not
// make it, which no later attempt changes.
func neverSent(err error) bool {
	var sent *smithyhttp.RequestSendError // that is: sending was tried, and failed
	var answered *smithyhttp.ResponseError
	var operation *smithy.OperationError
	return errors.As(err, &operation) && !errors.As(err, &sent) && !errors.As(err, &answered)
}

// lacksCredentials reports whether there was nothing to sign the request with.
// The SDK's providers have tried again by then.
func lacksCredentials(err error) bool {
	var credentials *credentialsError
	return errors.As(err, &credentials)
}

// answerOf returns what the store said in an error of the SDK; its Status is 0
// if the store did not answer.
func answerOf(err error) push.StoreAnswer {
	var answer push.StoreAnswer
	var api smithy.APIError
	if errors.As(err, &api) {
		answer.Code, answer.Message = api.ErrorCode(), api.ErrorMessage()
		if answer.Message == answer.Code || answer.Message == "UnknownError" { // the SDK's filler
			answer.Message = ""
		}
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		answer.Status, answer.RequestID = response.HTTPStatusCode(), response.ServiceRequestID()
	}
	for _, text := range []*string{&answer.Code, &answer.Message, &answer.RequestID} {
		*text = shortened(push.OneLine(*text))
	}
	return answer
}

// shortened cuts what the store says to a length that a message can carry.
func shortened(s string) string {
	const most = 500
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
