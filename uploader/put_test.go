package uploader

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// TestPutterAsksAsTheSDKDoes makes the same push both ways and compares what
// reaches the store.
func TestPutterAsksAsTheSDKDoes(t *testing.T) {
	seen := func(sdk bool, mode Checksum, size int, req push.Request) (string, http.Header) {
		r := newRig(t, withMode(mode))
		if sdk {
			r.putter = nil
		}
		var path string
		var headers http.Header
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			path, headers = req.URL.EscapedPath(), req.Header.Clone()
			if strings.HasPrefix(headers.Get("X-Amz-Server-Side-Encryption"), "aws:kms") { // which this store has not
				io.Copy(io.Discard, req.Body)
				w.Header().Set("Etag", `"x"`)
				w.Header().Set("X-Amz-Checksum-Crc64nvme", headers.Get("X-Amz-Checksum-Crc64nvme"))
				return
			}
			next.ServeHTTP(w, req)
		})
		req.File, _ = r.file(t, "f", size)
		if _, err := r.Push(t.Context(), req); err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{"Authorization", "X-Amz-Date"} {
			if headers.Get(name) == "" {
				t.Errorf("by the SDK %v: no %s", sdk, name)
			}
		}
		// What says who asked, and when.
		maps.DeleteFunc(headers, func(name string, _ []string) bool {
			return slices.Contains([]string{"Authorization", "X-Amz-Date", "User-Agent", "Amz-Sdk-Invocation-Id", "Amz-Sdk-Request", "Accept-Encoding"}, name)
		})
		return path, headers
	}
	for i, size := range []int{0, 1, inMemory, inMemory + 1} {
		for j, req := range []push.Request{
			{Destination: "s3://bucket/plain"},
			{Destination: "s3://bucket//a b+c%d/ü//?x=1&y#z/~*'()!$,;:@/"},
			{Destination: "s3://bucket/k", Encryption: "AES256"},
			{Destination: "s3://bucket/k", Overwrite: new(bool)},
			{Destination: "s3://bucket/k", Encryption: "aws:kms", KMSKeyID: "arn:aws:kms:us-east-1:111122223333:key/1"},
			{Destination: "s3://bucket/k", ContentType: "text/plain; charset=utf-8", StorageClass: "STANDARD",
				Metadata: map[string]string{"camera-Id": "R22  S11", "x": ""}, Tags: map[string]string{"a b": "c+d/e"}},
		} {
			mode := modes[(i+j)%len(modes)] // each with each size, and most with each request
			wantPath, wantHeaders := seen(true, mode, size, req)
			path, headers := seen(false, mode, size, req)
			if path != wantPath {
				t.Errorf("%s: path %s, the SDK's is %s", req.Destination, path, wantPath)
			}
			if !maps.EqualFunc(headers, wantHeaders, slices.Equal) {
				t.Errorf("%s, %d bytes, %s: headers\n%v\nthe SDK's are\n%v", req.Destination, size, mode, headers, wantHeaders)
			}
		}
	}
}

// TestClockOfTheHostIsWrong signs with a clock that is an hour off: the store
// refuses once, and says what time it is.
func TestClockOfTheHostIsWrong(t *testing.T) {
	r := newRig(t)
	r.putter.skew.Store(int64(time.Hour))
	path, content := r.file(t, "f", 100)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.Attempts != 2 {
		t.Fatalf("%v, receipt %+v\n%s", err, receipt, strings.TrimSpace(r.log.String()))
	}
	r.wantObject(t, "k", content)
	if off := time.Duration(r.putter.skew.Load()).Abs(); off > time.Minute {
		t.Errorf("the clock is still %v off", off)
	}
}

// TestEndpointWithAPath has the store behind a prefix, as some gateways do.
func TestEndpointWithAPath(t *testing.T) {
	r := newRig(t)
	base := *r.putter.base
	base.Path = "/pre fix"
	r.putter.base = &base
	var path string
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		path = req.URL.EscapedPath()
		w.Header().Set("Etag", `"x"`)
	})
	file, _ := r.file(t, "f", 1)
	if _, err := r.Push(t.Context(), push.Request{File: file, Destination: "s3://bucket/a b"}); err != nil {
		t.Fatal(err)
	}
	if path != "/pre%20fix/bucket/a%20b" {
		t.Errorf("asked for %s", path)
	}
}
