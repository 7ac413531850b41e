//go:build linux

package main

import (
	"bufio"
	"bytes"
	"crypto/md5"
	"encoding/base64"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/url"
	"strconv"
	"strings"
)

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
