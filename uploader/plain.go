package uploader

import (
	"net/http"
	"slices"
	"strings"

	"github.com/aws/aws-sdk-go-v2/service/s3"
)

// plain is the HTTP client of all requests. Of a header by which a store shows
// what it has, it passes on all that was said: the SDK reads the first alone.
type plain struct{ s3.HTTPClient }

// Do makes one request. On the clock of its push that is where it begins.
//
// The request has been signed by then, and traceparent is no part of that: what
// stands on the way to the store may put its own in that place, as it is meant to.
func (p plain) Do(req *http.Request) (*http.Response, error) {
	t := tripOf(req.Context())
	t.enter(connecting)
	if t != nil && t.traceparent != "" {
		req.Header["Traceparent"] = []string{t.traceparent}
	}
	resp, err := p.HTTPClient.Do(req)
	if err == nil {
		joinValues(resp.Header, "Etag")
		joinValues(resp.Header, "X-Amz-Checksum-Crc64nvme")
	}
	return resp, err
}

// joinValues puts the values of a header that is there more than once into one,
// which then is like none of them, unless all are the same.
func joinValues(h http.Header, name string) {
	values := h[name]
	if len(values) < 2 {
		return
	}
	bare := make([]string, len(values))
	for i, v := range values {
		bare[i] = bareETag(v)
	}
	if slices.Sort(bare); bare[0] != bare[len(bare)-1] {
		h[name] = []string{strings.Join(bare, ", ") + " (several)"}
	}
}

// bareETag returns an ETag without its quotes, however they are written, and
// without the mark of a weak one, which proxies add that change the coding of
// what passes.
func bareETag(etag string) string {
	etag = strings.TrimPrefix(strings.TrimSpace(strings.ReplaceAll(etag, "&quot;", `"`)), "W/")
	return strings.Trim(etag, "\"' \t\r\n")
}

// contradictory reports whether a bare ETag is several. No single one has a
// space or quotes in it.
func contradictory(etag string) bool { return strings.ContainsAny(etag, " \"") }
