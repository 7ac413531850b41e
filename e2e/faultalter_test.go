package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	v4 "github.com/aws/aws-sdk-go-v2/aws/signer/v4"
)

const crcHeader = "X-Amz-Checksum-Crc64nvme"

// flippingReader passes a body on with one byte changed.
type flippingReader struct {
	io.Reader
	left int64 // bytes before the one to change
	mask byte
}

func (f *flippingReader) Read(p []byte) (int, error) {
	n, err := f.Reader.Read(p)
	if f.left >= 0 && f.left < int64(n) {
		p[f.left] ^= f.mask
	}
	f.left -= int64(n)
	return n, err
}

// slowPiece is how much of a body is read at once where it is read slowly.
const slowPiece = 64 << 10

// slowReader reads a body piece by piece, and notes how much.
type slowReader struct {
	proxy *faultProxy
	x     *exchange
	body  io.Reader
	pace  time.Duration
}

func (s *slowReader) Read(p []byte) (int, error) {
	select {
	case <-time.After(s.pace):
	case <-s.proxy.closed:
		return 0, net.ErrClosed
	}
	n, err := io.ReadFull(s.body, p[:min(len(p), slowPiece)])
	if n > 0 { // what ended the piece comes again
		err = nil
	}
	s.proxy.mu.Lock()
	s.x.read += int64(n)
	s.proxy.mu.Unlock()
	return n, err
}

// The ETag and the checksum where an answer has them in its XML, and any
// checksum element of a request or an answer.
var (
	etagElement     = regexp.MustCompile(`<ETag>[^<]*</ETag>`)
	crcElement      = regexp.MustCompile(`<ChecksumCRC64NVME>[^<]*</ChecksumCRC64NVME>`)
	checksumElement = regexp.MustCompile(`<Checksum(\w+)>[^<]*</Checksum\w+>`)
	md5Digest       = regexp.MustCompile(`[0-9a-f]{32}`)
)

// alterAnswer makes of the store's answer what the fault does, and reports
// whether there was something to do it to.
func (f fault) alterAnswer(x *exchange, resp *http.Response, body []byte) (altered []byte, did bool) {
	altered, did = body, true
	if f.unaware {
		dropChecksums(resp.Header)
		altered = checksumElement.ReplaceAll(altered, nil)
	}
	switch ok := resp.StatusCode/100 == 2; {
	case f.what == wrongETag:
		etag := resp.Header.Get("ETag")
		did = ok && (etag != "" || etagElement.Match(altered))
		if etag != "" {
			resp.Header.Set("ETag", otherETag(etag))
		}
		altered = etagElement.ReplaceAllFunc(altered, func(e []byte) []byte { return []byte("<ETag>" + otherETag(string(e[6:]))) })
	case f.what == wrongChecksum:
		// Where there was none, one that is wrong is as bad.
		end := []byte("</CompleteMultipartUploadResult>")
		did = ok && (x.op == "PutObject" || x.op == "UploadPart" || bytes.Contains(altered, end))
		if did && x.op != "CompleteMultipartUpload" {
			resp.Header.Set(crcHeader, wrongCRC)
		}
		altered = crcElement.ReplaceAll(altered, nil)
		altered = bytes.Replace(altered, end, []byte("<ChecksumCRC64NVME>"+wrongCRC+"</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>"+string(end)), 1)
	case f.what == truncatesXML:
		if did = len(altered) > 0; did {
			altered = altered[:f.place(x.n, int64(len(altered)))]
		}
	}
	if len(altered) != len(body) {
		resp.Header.Set("Content-Length", strconv.Itoa(len(altered)))
		resp.ContentLength = int64(len(altered))
	}
	return altered, did
}

// wrongCRC is a checksum that no file of these tests has.
const wrongCRC = "d3JvbmchIQ8="

// otherETag returns an ETag of the same form with another first digit.
func otherETag(etag string) string {
	return md5Digest.ReplaceAllStringFunc(etag, func(digest string) string {
		n, _ := strconv.ParseInt(digest[:1], 16, 8)
		return strconv.FormatInt((n+1)%16, 16) + digest[1:]
	})
}

// dropChecksums takes out all headers of checksums but Content-MD5 and the
// signed hash of the body, which every store knows.
func dropChecksums(h http.Header) {
	for name := range h {
		if strings.HasPrefix(name, "X-Amz-Checksum-") || name == "X-Amz-Sdk-Checksum-Algorithm" {
			delete(h, name)
		}
	}
}

// forgetChecksums makes a request that is on its way to the store one without
// checksums, and signs it anew, since they were signed too.
func forgetChecksums(ctx context.Context, out *http.Request) error {
	dropChecksums(out.Header)
	if out.Method == http.MethodPost { // XML, which may name the parts' checksums
		body, err := io.ReadAll(out.Body)
		if err != nil {
			return err
		}
		body = checksumElement.ReplaceAll(body, nil)
		hash := sha256.Sum256(body)
		out.Header.Set("X-Amz-Content-Sha256", hex.EncodeToString(hash[:]))
		out.Header.Set("Content-Length", strconv.Itoa(len(body)))
		out.Body, out.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	}
	// The signer wants the path with a host before it.
	signed := out.Clone(ctx)
	signed.Header.Del("Authorization")
	signed.URL = &url.URL{Scheme: "http", Opaque: "//store" + out.URL.Opaque, RawQuery: out.URL.RawQuery}
	credentials, err := clientOptions("", nil).Credentials.Retrieve(ctx)
	if err != nil {
		return err
	}
	err = v4.NewSigner(func(o *v4.SignerOptions) { o.DisableURIPathEscaping = true }).
		SignHTTP(ctx, credentials, signed, out.Header.Get("X-Amz-Content-Sha256"), "s3", "us-east-1", time.Now())
	for _, name := range []string{"Authorization", "X-Amz-Date"} {
		out.Header[name] = signed.Header[name]
	}
	return err
}

// trickle writes an answer byte by byte: all of it, or what follows the head.
func (p *faultProxy) trickle(w http.ResponseWriter, f fault, resp *http.Response) {
	resp.Close = true // the server has no more use for a connection that was taken from it
	answer, err := httputil.DumpResponse(resp, true)
	if err != nil {
		reset(w)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer conn.Close()
	head := 0
	if f.what == tricklesBody {
		head = bytes.Index(answer, []byte("\r\n\r\n")) + 4
	}
	if _, err := conn.Write(answer[:head]); err != nil {
		return
	}
	tick := time.NewTicker(f.pace)
	defer tick.Stop()
	for _, b := range answer[head:] {
		select {
		case <-tick.C:
		case <-p.closed:
			return
		}
		if _, err := conn.Write([]byte{b}); err != nil {
			return
		}
	}
}
