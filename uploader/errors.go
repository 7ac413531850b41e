package uploader

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
	"unicode"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/transport"
)

// credentialsError marks a failure to get credentials, which the SDK returns
// as plain text among the errors of the request.
type credentialsError struct{ err error }

// Error leaves out what an external program printed: it may be the secret.
func (e *credentialsError) Error() string {
	text, _, _ := strings.Cut(textOf(e.err), "process output")
	return "get credentials: " + shortened(push.OneLine(text))
}

func (e *credentialsError) Unwrap() error { return e.err }

// unclearError marks a completion of an upload of which it is not known
// whether the store carried it out. It is not repeated: on some stores a second
// completion that meets a slow first one destroys the object.
type unclearError struct {
	err  error
	wait time.Duration // before the upload may be completed once more
}

func (e *unclearError) Error() string { return e.err.Error() }
func (e *unclearError) Unwrap() error { return e.err }

// spoiledError marks an upload whose parts the store does not have as they were
// read. Completing it once more cannot help; another upload may.
type spoiledError struct{ err error }

func (e *spoiledError) Error() string { return e.err.Error() }
func (e *spoiledError) Unwrap() error { return e.err }

// explain turns the error that ended a run of a push to the destination, after
// that many attempts in all, into one for the caller.
func (u *Uploader) explain(dest string, attempts int, err error) *push.Error {
	var known *push.Error
	if errors.As(err, &known) {
		return known
	}
	e := &push.Error{Err: err}
	var open *unclearError
	answer := answerOf(err)
	switch {
	case lacksCredentials(err):
		e.Code = push.NoCredentials
		e.Detail = "the daemon has no credentials for the store: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for it, or another source that the AWS SDK knows"
	case answer.Code == "InvalidPart":
		e.Code = push.ChecksumMismatch
		e.Store = &answer
		e.Detail = fmt.Sprintf("the store does not have all parts of %s as they were sent, though it said yes to each: %s: push it again, which sends all of it anew, and see to the store if that repeats", dest, answerText(answer))
	case mismatched(err):
		e.Code = push.ChecksumMismatch
		e.Store = &answer
		e.Detail = fmt.Sprintf("the store did not get the bytes of %s that were read: %s: push it again, and have the network's hardware looked at if that repeats", dest, answerText(answer))
	case errors.Is(err, errVanished) && answer.Status != 0:
		e.Code = push.StoreRefused
		e.Store = &answer
		e.Detail = fmt.Sprintf("the store refused %s, since it has an object there (%s), and shows none when asked (HeadObject): see whether a proxy answers in its place, or another program removes the object each time", dest, answerText(answer))
	case answer.Status != 0:
		e.Code = push.StoreRefused
		e.Store = &answer
		e.Detail = fmt.Sprintf("the store refused %s: %s%s", dest, answerText(answer), u.advice(dest, answer))
	case neverSent(err):
		e.Code = push.StoreRefused
		e.Detail = fmt.Sprintf("no request for %s could be made: %s", dest, push.OneLine(rootText(err)))
	case errors.As(err, &open):
		e.Code = push.StoreUnreachable
		e.Detail = fmt.Sprintf("all parts of %s were sent, and the store at %s did not say whether it joined them: %s: push the file again", dest, u.name, push.OneLine(rootText(err)))
	default:
		e.Code = push.StoreUnreachable
		e.Detail = fmt.Sprintf("there was no usable answer from the store at %s in %s: %s", u.name, counted(attempts, "attempt", "attempts"), push.OneLine(rootText(err)))
	}
	return e
}

// inBrief says in words what the store answered, or else what went wrong.
func inBrief(err error) string {
	if answer := answerOf(err); answer.Status != 0 {
		return answerText(answer)
	}
	return push.OneLine(rootText(err))
}

// answerText says in words what the store answered.
func answerText(a push.StoreAnswer) string {
	text := fmt.Sprintf("%d %s", a.Status, http.StatusText(a.Status))
	switch {
	case a.Status == http.StatusOK || a.Status < 300 && a.Code != "":
		text += " with an error inside"
	case a.Status < 300:
		text += ", where a store that has taken a file says 200"
	}
	if a.Code != "" && a.Code != http.StatusText(a.Status) {
		text += ", " + a.Code
	}
	if a.Message != "" {
		text += ": " + a.Message
	}
	return text
}

// advice says what to do about the store's commonest refusals.
func (u *Uploader) advice(destination string, a push.StoreAnswer) string {
	dest, _ := push.ParseDestination(destination) // which was checked when the push was accepted
	switch a.Code {
	case "NoSuchBucket":
		return fmt.Sprintf(" (create the bucket %s at %s, or correct the destination)", push.Quote(dest.Bucket), u.name)
	case "AccessDenied":
		return fmt.Sprintf(" (the daemon's credentials may not write to the bucket %s)", push.Quote(dest.Bucket))
	case "InvalidAccessKeyId", "SignatureDoesNotMatch":
		return " (the daemon's AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not the store's)"
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken":
		return " (renew the daemon's credentials: where they are in files it reads them again by itself)"
	case "PermanentRedirect", "AuthorizationHeaderMalformed":
		return " (set AWS_REGION to the bucket's region)"
	case "RequestTimeTooSkewed":
		return " (set this host's clock)"
	}
	if u.checksum != ChecksumMD5 && (a.Code == "NotImplemented" || a.Status == http.StatusBadRequest && mentionsChecksum(a)) {
		return " (if it does not know CRC64NVME checksums, set S3DAEMON_CHECKSUM=md5)"
	}
	if a.Status == http.StatusNotModified {
		return " (no store says that to a request that brings bytes: see what cache or proxy answers in its place)"
	}
	if a.Status/100 == 3 {
		return " (set S3_ENDPOINT_URL and AWS_REGION to where the bucket is)"
	}
	if a.Status >= 500 && a.Status != http.StatusNotImplemented || a.Status == http.StatusTooManyRequests {
		return " (push it again later)"
	}
	return ""
}

// mentionsChecksum reports whether a refusal is about a checksum: each store has
// a code of its own for one that it does not know.
func mentionsChecksum(a push.StoreAnswer) bool {
	return strings.Contains(strings.ToLower(a.Code+" "+a.Message), "checksum")
}

// textOf returns the text of an error that may have words from outside in it: of the
// store, of a proxy, of a service that gives credentials. Nothing here shows such an
// error in another way, but for answerOf and rootText. Secrets are taken out, and what
// net/http quotes of an answer that is none: that could be anything.
func textOf(err error) string {
	text := err.Error()
	for _, quoting := range []string{"malformed ", "bad Content-Length ", "unsupported transfer encoding", "invalid header"} {
		if at := strings.Index(text, quoting); at >= 0 {
			if end := strings.IndexAny(text[at:], `":`); end >= 0 {
				text = text[:at] + strings.TrimSpace(text[at:at+end])
			}
		}
	}
	return secret.Blot(text)
}

// rootText returns the text of the error that says what happened; the layers
// that the SDK puts around it say only where. An error of the network is taken
// whole, since it names the address; and so is one of a request that stood still,
// before what the kernel made of that.
func rootText(err error) string {
	if stalled, ok := errors.AsType[*transport.StallError](err); ok {
		return textOf(stalled)
	}
	var network net.Error
	if errors.As(err, &network) {
		return textOf(network)
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner
	}
	return textOf(err)
}

// awayText says why the store cannot be reached in words that are none of its own: of
// this host and its kernel. Whoever asks for /readyz reads them.
func awayText(cause error) string {
	var untrusted *tls.CertificateVerificationError
	_, stalled := errors.AsType[*transport.StallError](cause)
	operation, network := errors.AsType[*net.OpError](cause)
	system, known := errors.AsType[syscall.Errno](cause)
	switch {
	case stalled, network && operation.Op == "dial", errors.Is(cause, errUntaken):
		return push.OneLine(rootText(cause))
	case known:
		return system.Error()
	case errors.As(cause, &untrusted):
		return "its certificate is not trusted"
	}
	return "it gives no usable answer, of which the log says more"
}

// codeText says what was answered by status and code alone, as far as the code is one.
func codeText(a push.StoreAnswer) string {
	isCode := a.Code != "" && len(a.Code) <= 64 && strings.IndexFunc(a.Code, func(r rune) bool {
		return r > unicode.MaxASCII || !unicode.IsLetter(r) && !unicode.IsDigit(r)
	}) < 0
	if !isCode {
		a.Code = ""
	}
	a.Message = ""
	return answerText(a)
}

// counted returns the number with the noun in the form that it needs.
func counted(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
