//go:build linux

package main

import (
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// openStore serves a store in this process until the test ends, and returns
// its URL.
func openStore(t *testing.T, silent bool) (*discardStore, string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &discardStore{silent: silent}
	go s.serve(ln)
	return s, "http://" + ln.Addr().String()
}

func TestStore(t *testing.T) {
	s, url := openStore(t, false)
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<20) // many packets
	sum := md5.Sum(large)
	sum64 := base64.StdEncoding.EncodeToString(sum[:])
	partList := fmt.Sprintf(`<CompleteMultipartUpload><Part><ETag>"%x"</ETag><PartNumber>1</PartNumber></Part></CompleteMultipartUpload>`, sum)

	tests := []struct {
		method, target string
		header         map[string]string
		body           []byte
		status         int
		etag           string
		want           []string // in the body
	}{
		{"PUT", "/b/k?x-id=PutObject", map[string]string{"x-amz-checksum-crc64nvme": "AAAAAAAAAAA="}, []byte("x"), 200, `"00000000000000000000000000000000"`, nil},
		{"PUT", "/b/empty", nil, nil, 200, `"00000000000000000000000000000000"`, nil},
		{"PUT", "/b/k", map[string]string{"Content-MD5": sum64, "Expect": "100-continue"}, large, 200, fmt.Sprintf(`"%x"`, sum), nil},
		{"POST", "/b/a%20%26b?uploads", nil, nil, 200, "", []string{"<Key>a &amp;b</Key>", "<UploadId>bench</UploadId>"}},
		{"PUT", "/b/k?partNumber=1&uploadId=bench", map[string]string{"Content-MD5": sum64}, large, 200, fmt.Sprintf(`"%x"`, sum), nil},
		{"POST", "/b/k?uploadId=bench", map[string]string{"x-amz-checksum-crc64nvme": "AQAAAAAAAAA="}, []byte(partList), 200, "",
			[]string{fmt.Sprintf("%x-1", md5.Sum(sum[:])), "<ChecksumCRC64NVME>AQAAAAAAAAA=</ChecksumCRC64NVME>", "<ChecksumType>FULL_OBJECT</ChecksumType>"}},
		{"DELETE", "/b/k?uploadId=bench", nil, nil, 204, "", nil},
		{"GET", "/b/k", nil, nil, 501, "", []string{"NotImplemented"}},
		{"HEAD", "/b/k", nil, nil, 501, "", nil},
	}
	// One connection for all of them shows that each request ends where the
	// next begins.
	client := &http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}}
	defer client.CloseIdleConnections()
	for _, tt := range tests {
		req, err := http.NewRequestWithContext(t.Context(), tt.method, url+tt.target, bytes.NewReader(tt.body))
		if err != nil {
			t.Fatal(err)
		}
		for k, v := range tt.header {
			req.Header.Set(k, v)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatalf("%s %s: %v", tt.method, tt.target, err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != tt.status || resp.Header.Get("ETag") != tt.etag {
			t.Errorf("%s %s: status %d, ETag %s, error %v; want %d, %s", tt.method, tt.target, resp.StatusCode, resp.Header.Get("ETag"), err, tt.status, tt.etag)
		}
		if got, want := resp.Header.Get("x-amz-checksum-crc64nvme"), tt.header["x-amz-checksum-crc64nvme"]; got != want {
			t.Errorf("%s %s: checksum %q, want %q", tt.method, tt.target, got, want)
		}
		for _, want := range tt.want {
			if !strings.Contains(string(body), want) {
				t.Errorf("%s %s: no %s in %s", tt.method, tt.target, want, body)
			}
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	want := storeStats{Objects: 4, Parts: 1, Bytes: 1 + 2*int64(len(large)), Connections: 1, OpenConnections: 1, PeakConnections: 1}
	if s.stats != want {
		t.Errorf("it counted %+v\nwant       %+v", s.stats, want)
	}
}

// TestStoreHangsUp sends what the store cannot read, and expects the end of
// the connection rather than an answer to something else.
func TestStoreHangsUp(t *testing.T) {
	_, url := openStore(t, false)
	tests := map[string]string{
		"no HTTP":              "hello\r\n\r\n",
		"HTTP/1.0":             "PUT /b/k HTTP/1.0\r\n\r\n",
		"chunks":               "PUT /b/k HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n",
		"a negative length":    "PUT /b/k HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
		"parts that are none":  "POST /b/k?uploadId=u HTTP/1.1\r\nContent-Length: 3\r\n\r\n<x>",
		"a huge list of parts": "POST /b/k?uploadId=u HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n",
		"a body that ends":     "PUT /b/k HTTP/1.1\r\nContent-Length: 5\r\n\r\nabc",
	}
	for name, request := range tests {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, request); err != nil {
			t.Fatal(err)
		}
		if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
			t.Fatal(err)
		}
		// Unread bytes turn the end into a reset, which is an end as well.
		if answer, _ := io.ReadAll(conn); len(answer) > 0 {
			t.Errorf("%s: answered %q", name, answer)
		}
		conn.Close()
	}
}

// TestSilentStore expects a store without CRC64NVME to answer with MD5s alone.
func TestSilentStore(t *testing.T) {
	_, url := openStore(t, true)
	for _, request := range []string{"PUT /b/k", "PUT /b/k?partNumber=1&uploadId=bench", "POST /b/k?uploadId=bench"} {
		method, target, _ := strings.Cut(request, " ")
		body := ""
		if method == "POST" {
			body = `<CompleteMultipartUpload><Part><ETag>"00"</ETag></Part></CompleteMultipartUpload>`
		}
		req, err := http.NewRequestWithContext(t.Context(), method, url+target, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		sum := md5.Sum([]byte(body))
		req.Header.Set("Content-MD5", base64.StdEncoding.EncodeToString(sum[:]))
		req.Header.Set("x-amz-checksum-crc64nvme", "AAAAAAAAAAA=")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || strings.Contains(strings.ToLower(fmt.Sprint(resp.Header, string(answer))), "crc64nvme") {
			t.Errorf("%s: %d %v %s, %v; want 200 and no word of CRC64NVME", request, resp.StatusCode, resp.Header, answer, err)
		}
		if etag := fmt.Sprintf(`"%x"`, sum); method == "PUT" && resp.Header.Get("ETag") != etag {
			t.Errorf("%s: the ETag is %s, want %s", request, resp.Header.Get("ETag"), etag)
		}
	}
}
