package uploader

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
	"github.com/lsst-dm/s3daemon/transport"
)

// TestWordsForAnybody: what /readyz says has nothing that the far side wrote.
func TestWordsForAnybody(t *testing.T) {
	for want, cause := range map[string]error{
		"dial tcp: connection refused":        &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED},
		"connection reset by peer":            &transport.BrokenError{Err: &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}},
		"no connection within 5s":             &transport.StallError{What: "no connection", Limit: 5e9},
		"its certificate is not trusted":      &tls.CertificateVerificationError{Err: errors.New("valid for THEIRS")},
		"it gives no usable answer, of which": fmt.Errorf("proxyconnect: %w", errors.New("THEIRS")),
	} {
		if got := awayText(cause); !strings.HasPrefix(got, want) || strings.Contains(got, "THEIRS") {
			t.Errorf("%v becomes %q, want %q", cause, got, want)
		}
	}
	for code, shown := range map[string]bool{"InvalidToken": true, "": false, "two words": false, "İ": false, "a=b": false, strings.Repeat("a", 65): false} {
		got := codeText(push.StoreAnswer{Status: 403, Code: code, Message: "THEIRS"})
		if strings.Contains(got, "THEIRS") || !strings.HasPrefix(got, "403 Forbidden") || code != "" && strings.Contains(got, code) != shown {
			t.Errorf("%q becomes %q", code, got)
		}
	}
}

// TestTextOf: neither secrets nor the bytes of an answer that is none are in the text
// of an error, and what went wrong is.
func TestTextOf(t *testing.T) {
	const token = "kept+Between/Us/TestTextOf"
	secret.Hide(token)
	for said, want := range map[string]string{
		`net/http: HTTP/1.x transport connection broken: malformed HTTP response "THEIRS: x"`: "net/http: HTTP/1.x transport connection broken: malformed HTTP response",
		"malformed MIME header line: THEIRS":                                                  "malformed MIME header line",
		`bad Content-Length "THEIRS"`:                                                         "bad Content-Length",
		"what is " + token + "?":                                                              "what is " + secret.Blotted,
		`Get "http://store/": dial tcp 127.0.0.1:9: connection refused`:                       `Get "http://store/": dial tcp 127.0.0.1:9: connection refused`,
	} {
		if got := textOf(errors.New(said)); got != want {
			t.Errorf("%q becomes %q, want %q", said, got, want)
		}
		if got := rootText(fmt.Errorf("operation: %w", errors.New(said))); got != want {
			t.Errorf("at the root %q becomes %q, want %q", said, got, want)
		}
	}
}
