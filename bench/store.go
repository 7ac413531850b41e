//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
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
	silent bool // its answers have no checksum but the ETag

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
func runStore(silent bool, stdin io.Reader, stdout io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("open the store's port: %w", err)
	}
	s := discardStore{silent: silent}
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
		if s.silent {
			h.checksum = ""
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
