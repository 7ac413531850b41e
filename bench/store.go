//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"syscall"
)

// A discardStore answers the requests that a push is made of as S3 would, and
// keeps nothing. It is as cheap as a server can be made, since on a small
// machine its CPU time is taken from the daemon's: it verifies neither
// signatures nor checksums, speaks just enough HTTP/1.1, and has the kernel
// drop what a body holds instead of copying it out. It is no S3 server to
// test correctness with.
type discardStore struct {
	mu    sync.Mutex
	stats storeStats
}

// storeStats say what reached the store.
type storeStats struct {
	Objects         int   `json:"objects"` // put, or completed from parts
	Parts           int   `json:"parts"`
	Bytes           int64 `json:"bytes"` // of bodies of objects and parts
	Connections     int   `json:"connections"`
	OpenConnections int   `json:"open_connections"`
	PeakConnections int   `json:"peak_connections"` // open at one time
}

// runStore is the whole store process: it prints its URL, serves until stdin
// ends, and prints what it has seen. Its end is tied to stdin so that it never
// outlives the benchmark.
func runStore(stdin io.Reader, stdout io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open the store's port: %w", err)
	}
	var s discardStore
	go s.serve(ln)
	fmt.Fprintf(stdout, "http://%s\n", ln.Addr())
	_, _ = io.Copy(io.Discard, stdin)
	ln.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	return json.NewEncoder(stdout).Encode(s.stats)
}

// serve accepts connections until the listener is closed.
func (s *discardStore) serve(ln net.Listener) {
	for {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		s.count(func(st *storeStats) {
			st.Connections++
			st.OpenConnections++
			st.PeakConnections = max(st.PeakConnections, st.OpenConnections)
		})
		go func() {
			defer s.count(func(st *storeStats) { st.OpenConnections-- })
			defer conn.Close()
			s.serveConn(conn.(*net.TCPConn))
		}()
	}
}

func (s *discardStore) count(change func(*storeStats)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.stats)
}

// serveConn answers requests until the client closes the connection or sends
// what the store does not understand.
func (s *discardStore) serveConn(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	br := bufio.NewReaderSize(conn, 16<<10)
	var out []byte
	for {
		h, err := readHead(br)
		if err != nil {
			return
		}
		if h.expect {
			if _, err := conn.Write([]byte("HTTP/1.1 100 Continue\r\n\r\n")); err != nil {
				return
			}
		}
		out, err = s.answer(out[:0], h, br, raw)
		if err != nil {
			return
		}
		if _, err := conn.Write(out); err != nil {
			return
		}
	}
}

// answer reads the body of a request and appends the response to out. After an
// error the connection cannot be used any more.
func (s *discardStore) answer(out []byte, h head, br *bufio.Reader, raw syscall.RawConn) ([]byte, error) {
	path, rawQuery, _ := strings.Cut(h.target, "?")
	query, err := url.ParseQuery(rawQuery)
	if err != nil {
		return nil, fmt.Errorf("read the query: %w", err)
	}
	if h.length < 0 {
		return nil, errors.New("a body without a length")
	}
	var op string
	switch {
	case h.method == "PUT":
		if err := discardBody(br, raw, h.length); err != nil {
			return nil, err
		}
		isPart := query.Has("partNumber")
		s.count(func(st *storeStats) {
			st.Bytes += h.length
			if isPart {
				st.Parts++
			} else {
				st.Objects++
			}
		})
		return respond(out, 200, h, h.etag(), nil), nil
	case h.method == "POST" && query.Has("uploads"):
		op = "create"
	case h.method == "POST" && query.Has("uploadId"):
		op = "complete"
	case h.method == "DELETE" && query.Has("uploadId"):
		op = "abort"
	}

	const most = 16 << 20 // 10,000 parts are well under it
	if h.length > most {
		return nil, errors.New("a body that is too long for its request")
	}
	body := make([]byte, h.length)
	if _, err := io.ReadFull(br, body); err != nil {
		return nil, fmt.Errorf("read the body: %w", err)
	}
	bucket, key := objectName(path)
	switch op {
	case "create":
		return respond(out, 200, h, "", initiated{Bucket: bucket, Key: key, UploadID: "bench"}), nil
	case "complete":
		etag, err := completeETag(body)
		if err != nil {
			return nil, err
		}
		s.count(func(st *storeStats) { st.Objects++ })
		done := completed{Bucket: bucket, Key: key, ETag: etag, Checksum: h.checksum}
		if h.checksum != "" {
			done.ChecksumType = "FULL_OBJECT"
		}
		return respond(out, 200, h, "", done), nil
	case "abort":
		return respond(out, 204, h, "", nil), nil
	}
	if h.method == "HEAD" {
		return respond(out, 501, h, "", nil), nil
	}
	return respond(out, 501, h, "", storeError{
		Code: "NotImplemented", Message: "the benchmark's store has no " + h.method + " " + h.target,
	}), nil
}

// discardBody takes n bytes off the connection: what the reader has buffered
// already, and the rest inside the kernel.
func discardBody(br *bufio.Reader, raw syscall.RawConn, n int64) error {
	k, err := br.Discard(int(min(n, int64(br.Buffered()))))
	if err != nil {
		return fmt.Errorf("discard the body: %w", err)
	}
	n -= int64(k)
	for n > 0 {
		k, err := discardSome(raw, n)
		if err != nil {
			return fmt.Errorf("discard the body: %w", err)
		}
		n -= int64(k)
	}
	return nil
}

// nowhere is where discarded bytes would go. Nothing is ever written to it,
// so it costs addresses and no memory, and connections may share it.
var nowhere = make([]byte, 8<<20)

// discardSome drops between 1 and n bytes that have arrived, waiting for the
// first. With MSG_TRUNC the kernel takes them off a TCP connection without
// copying them (tcp(7)).
func discardSome(raw syscall.RawConn, n int64) (int, error) {
	var k int
	var err error
	buf := nowhere[:min(n, int64(len(nowhere)))]
	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			k, _, err = syscall.Recvfrom(int(fd), buf, syscall.MSG_TRUNC)
			if !errors.Is(err, syscall.EINTR) {
				return !errors.Is(err, syscall.EAGAIN)
			}
		}
	})
	switch {
	case waitErr != nil:
		return 0, waitErr
	case err != nil:
		return 0, err
	case k == 0:
		return 0, io.ErrUnexpectedEOF
	}
	return k, nil
}

// head is what the store cares about in the head of a request.
type head struct {
	method, target string
	length         int64  // of the body; -1 where it is sent in chunks
	checksum       string // CRC64NVME, as sent
	md5            string // Content-MD5, as sent
	expect         bool   // the client waits for a 100 Continue
}

// readHead reads a request up to its body.
func readHead(br *bufio.Reader) (head, error) {
	var h head
	line, err := readLine(br)
	if err != nil {
		return h, err
	}
	method, rest, _ := strings.Cut(string(line), " ")
	target, proto, _ := strings.Cut(rest, " ")
	if !strings.HasPrefix(target, "/") || proto != "HTTP/1.1" {
		return h, fmt.Errorf("no HTTP/1.1 request: %q", line)
	}
	h.method, h.target = method, target
	for {
		line, err := readLine(br)
		if err != nil {
			return h, fmt.Errorf("read a header: %w", err)
		}
		if len(line) == 0 {
			return h, nil
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch value = bytes.TrimSpace(value); {
		case bytes.EqualFold(name, []byte("Content-Length")):
			h.length, err = strconv.ParseInt(string(value), 10, 64)
			if err != nil || h.length < 0 {
				return h, fmt.Errorf("bad Content-Length: %q", value)
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			h.length = -1
		case bytes.EqualFold(name, []byte("X-Amz-Checksum-Crc64nvme")):
			h.checksum = string(value)
		case bytes.EqualFold(name, []byte("Content-MD5")):
			h.md5 = string(value)
		case bytes.EqualFold(name, []byte("Expect")):
			h.expect = true
		}
	}
}

// readLine returns the next line without its end; it is valid until the next
// read.
func readLine(br *bufio.Reader) ([]byte, error) {
	line, err := br.ReadSlice('\n')
	if err != nil {
		return nil, err
	}
	return bytes.TrimRight(line, "\r\n"), nil
}

// etag is what S3 would give a body of this request: its MD5 where the request
// names it, else a constant, because computing one is what this store is not
// there for.
func (h head) etag() string {
	sum, err := base64.StdEncoding.DecodeString(h.md5)
	if err != nil || len(sum) != md5.Size {
		sum = make([]byte, md5.Size)
	}
	return `"` + hex.EncodeToString(sum) + `"`
}

// completeETag makes the ETag of a multipart upload as S3 does, from the ETags
// of its parts.
func completeETag(body []byte) (string, error) {
	var parts struct {
		Part []struct{ ETag string }
	}
	if err := xml.Unmarshal(body, &parts); err != nil {
		return "", fmt.Errorf("read the list of parts: %w", err)
	}
	sum := md5.New()
	for _, p := range parts.Part {
		part, err := hex.DecodeString(strings.Trim(p.ETag, `"`))
		if err != nil {
			return "", fmt.Errorf("read a part's ETag: %w", err)
		}
		sum.Write(part)
	}
	return fmt.Sprintf(`"%x-%d"`, sum.Sum(nil), len(parts.Part)), nil
}

func objectName(path string) (bucket, key string) {
	bucket, key, _ = strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if plain, err := url.PathUnescape(key); err == nil {
		key = plain
	}
	return bucket, key
}

type initiated struct {
	XMLName  xml.Name `xml:"InitiateMultipartUploadResult"`
	Bucket   string
	Key      string
	UploadID string `xml:"UploadId"`
}

type completed struct {
	XMLName      xml.Name `xml:"CompleteMultipartUploadResult"`
	Bucket       string
	Key          string
	ETag         string
	Checksum     string `xml:"ChecksumCRC64NVME,omitempty"`
	ChecksumType string `xml:",omitempty"`
}

type storeError struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
}

// respond appends a response to out: the ETag where there is one, the
// checksum that the request had, and body as XML unless it is nil.
func respond(out []byte, status int, h head, etag string, body any) []byte {
	var text []byte
	if body != nil {
		var err error
		if text, err = xml.Marshal(body); err != nil {
			panic(err) // the types above can all be written
		}
	}
	out = fmt.Appendf(out, "HTTP/1.1 %d Bench\r\nx-amz-request-id: bench\r\n", status)
	if etag != "" {
		out = append(append(append(out, "ETag: "...), etag...), "\r\n"...)
	}
	if h.checksum != "" {
		out = append(append(append(out, "x-amz-checksum-crc64nvme: "...), h.checksum...), "\r\n"...)
	}
	if text != nil {
		out = append(out, "Content-Type: application/xml\r\n"...)
	}
	if status != 204 {
		out = fmt.Appendf(out, "Content-Length: %d\r\n", len(text))
	}
	out = append(out, "\r\n"...)
	return append(out, text...)
}
