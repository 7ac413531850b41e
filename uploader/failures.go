package uploader

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"strconv"
	"strings"
	"syscall"
	"time"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/transport"
)

// This file says what a failure means; retryPolicy decides by it.

// needsNewUpload reports whether a multipart upload has failed for good, though
// another one of the same file may not: it is gone, or the store has other parts
// than those that it answered for.
func needsNewUpload(err error) bool {
	_, spoiled := errors.AsType[*spoiledError](err)
	return spoiled || answerOf(err).Code == "NoSuchUpload"
}

// reusedInVain reports whether a connection broke that had been open already.
// The likeliest cause is that the store had given it up while it was idle.
func reusedInVain(err error) bool {
	broken, ok := errors.AsType[*transport.BrokenError](err)
	return ok && broken.Reused
}

// untaken reports whether a connection broke so that the store cannot have acted
// on the request.
func untaken(err error) bool {
	broken, ok := errors.AsType[*transport.BrokenError](err)
	return ok && broken.Untaken
}

// mendedAtOnce reports whether a connection broke, or stood still while it was
// sent on. Another one may do at once. A store that has everything and does not
// answer is no better on another one, and has had the slot for long enough.
func mendedAtOnce(err error) bool {
	_, broke := errors.AsType[*transport.BrokenError](err)
	return broke || stalledAt(err, transport.Sending)
}

// stalledAt reports whether a request stood still at that phase.
func stalledAt(err error, at transport.Phase) bool {
	stalled, ok := errors.AsType[*transport.StallError](err)
	return ok && stalled.At == at
}

// transient reports whether the same request may succeed later.
func transient(err error) bool {
	switch {
	case errors.Is(err, errMade):
		return false
	case errors.Is(err, errVanished), stale(err):
		return true
	}
	var known *push.Error
	if errors.As(err, &known) {
		shortage := errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
		return ofFile(err) || known.Code == push.ChecksumMismatch || shortage || errors.Is(err, errNoStore) || errors.Is(err, errNotKnown)
	}
	if errors.Is(err, context.Canceled) {
		return false
	}
	var open *unclearError
	if errors.As(err, &open) || needsRepair(err) || notTried(err) {
		return true
	}
	answer := answerOf(err)
	switch answer.Code {
	case "RequestTimeout", "RequestTimeTooSkewed", "SlowDown", "InternalError", "ServiceUnavailable", "NoSuchUpload":
		return true
	}
	if mismatched(err) {
		return true
	}
	switch answer.Status {
	case 0: // no answer at all
		return !neverSent(err)
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusConflict, http.StatusTooEarly:
		return true
	case http.StatusNotImplemented:
		return false
	}
	// Success with an error is an answer that broke off.
	return answer.Status >= 500 || answer.Status < 300
}

// ofFile reports whether a push waits for its file.
func ofFile(err error) bool {
	known, is := errors.AsType[*push.Error](err)
	return is && (known.Code == push.FileHangs || errors.Is(err, errUnsettled))
}

// ofObject reports whether what stands at the push's object is in its way, which
// says nothing of others.
func ofObject(err error) bool {
	return isExists(err) || errors.Is(err, errVanished) || answerOf(err).Code == "ConditionalRequestConflict"
}

// mismatched reports whether the store has other bytes than were read, or
// refused them for that. A part that it does not know by the ETag that it gave
// is among those.
func mismatched(err error) bool {
	if known, ok := errors.AsType[*push.Error](err); ok {
		return known.Code == push.ChecksumMismatch
	}
	switch answerOf(err).Code {
	case "BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "InvalidPart":
		return true
	}
	return false
}

// errNoStore marks an answer that no S3 store gives.
var errNoStore = errors.New("this is no answer of an S3 store")

// needsRepair reports whether the request fails until somebody changes
// something that is no part of it: credentials that are missing, expired or
// wrong, a certificate that is not trusted, a region, or what stands where the
// store should be, such as a portal or a proxy without a backend. Credentials that may
// be renewed by themselves are no such case.
func needsRepair(err error) bool {
	var untrusted *tls.CertificateVerificationError
	if stale(err) {
		return false
	}
	if errors.As(err, &untrusted) || lacksCredentials(err) || errors.Is(err, errNoStore) {
		return true
	}
	answer := answerOf(err)
	if refusesCredentials(answer) {
		return true
	}
	switch answer.Code {
	case "AuthorizationHeaderMalformed", "PermanentRedirect":
		return true
	case "":
		return answer.Status/100 == 4 && isFinal(answer.Status) && !conditionFailed(err) || answer.Status/100 == 3
	}
	return answer.Status/100 == 3
}

// isFinal reports whether no later attempt changes an answer of that status.
func isFinal(status int) bool {
	switch status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests, http.StatusConflict, http.StatusTooEarly:
		return false
	}
	return true
}

// denied reports whether the store does not allow the request. Stores say so
// for a moment too, when a policy has just been changed.
func denied(err error) bool { return answerOf(err).Code == "AccessDenied" }

// gone reports whether the store does not know what it was asked about, and says
// so: some call an upload a key then, as Ceph 16 does. A 404 without such a code
// comes from what stands before the store.
func gone(err error) bool {
	answer := answerOf(err)
	return answer.Status == http.StatusNotFound && strings.HasPrefix(answer.Code, "NoSuch")
}

// retryAfter returns for how long the store asked not to be asked again.
func retryAfter(err error) time.Duration {
	var response *awshttp.ResponseError
	if !errors.As(err, &response) || response.Response == nil || response.Response.Response == nil {
		return 0
	}
	text := response.Response.Header.Get("Retry-After")
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return min(time.Duration(min(seconds, 1<<20))*time.Second, longestRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(0, min(time.Until(at), longestRetryAfter))
	}
	return 0
}

// reasonOf names the failure for a metric: few words, never a message.
func reasonOf(err error) string {
	var known *push.Error
	var stalled *transport.StallError
	var untrusted *tls.CertificateVerificationError
	var open *unclearError
	answer := answerOf(err)
	switch {
	case errors.Is(err, errNoStore):
		return "configuration"
	case errors.As(err, &known):
		return string(known.Code)
	case mismatched(err):
		return string(push.ChecksumMismatch)
	case errors.As(err, &untrusted):
		return "certificate"
	case lacksCredentials(err), refusesCredentials(answer):
		return "credentials"
	case needsRepair(err):
		return "configuration"
	case errors.As(err, &open):
		return "unclear"
	case errors.As(err, &stalled) && stalled.At != transport.Connecting:
		return "stalled"
	case answer.Code == "SlowDown", answer.Status == http.StatusTooManyRequests:
		return "slow_down"
	case answer.Code == "RequestTimeTooSkewed":
		return "clock"
	case answer.Status == http.StatusConflict:
		return "conflict"
	case answer.Status >= 500:
		return "5xx"
	case answer.Status != 0:
		return "answer"
	}
	return "connection"
}

// neverSent reports whether the request never left because the SDK could not
// make it, which no later attempt changes.
func neverSent(err error) bool {
	var sent *smithyhttp.RequestSendError // that is: sending was tried, and failed
	var answered *smithyhttp.ResponseError
	var operation *smithy.OperationError
	return errors.As(err, &operation) && !errors.As(err, &sent) && !errors.As(err, &answered)
}

// stale reports whether the credentials were at fault, and may be others by the next
// attempt.
func stale(err error) bool {
	var s *staleError
	return errors.As(err, &s)
}

// renewed reports whether they are others already.
func renewed(err error) bool {
	s, ok := errors.AsType[*staleError](err)
	return ok && s.others
}

// heldBack reports whether a request was not made, since the store would refuse it for
// its credentials.
func heldBack(err error) bool {
	var h *heldError
	return errors.As(err, &h)
}

// lacksCredentials reports whether there was nothing to sign the request with.
// The SDK's providers have tried again by then.
func lacksCredentials(err error) bool {
	var credentials *credentialsError
	return errors.As(err, &credentials)
}

// answerOf returns what the store said in an error of the SDK, less the secrets that
// it may have repeated; its Status is 0 if the store did not answer.
func answerOf(err error) push.StoreAnswer {
	var answer push.StoreAnswer
	var api smithy.APIError
	if errors.As(err, &api) {
		answer.Code, answer.Message = api.ErrorCode(), api.ErrorMessage()
		if answer.Code == "UnknownError" { // the SDK's filler, as the next
			answer.Code = ""
		}
		if answer.Message == answer.Code || answer.Message == "UnknownError" { // the SDK's filler
			answer.Message = ""
		}
	}
	var response *awshttp.ResponseError
	if errors.As(err, &response) {
		answer.Status, answer.RequestID = response.HTTPStatusCode(), response.ServiceRequestID()
	}
	for _, text := range []*string{&answer.Code, &answer.Message, &answer.RequestID} {
		*text = shortened(push.OneLine(secret.Blot(*text)))
	}
	return answer
}

// shortened cuts what the store says to a length that a message can carry.
func shortened(s string) string { return cut(s, 500) }

// cut returns s if it is no longer than that many bytes, else its beginning, with dots
// behind it, which is no longer either.
func cut(s string, most int) string {
	const dots = "..."
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most-len(dots)], "") + dots
}
