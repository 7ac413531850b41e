package uploader

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// altered is the store's answer to what brings bytes, which a test changes
// before it is sent.
type altered struct {
	http.ResponseWriter
	change func(http.Header)
}

func (a altered) WriteHeader(status int) {
	a.change(a.Header())
	a.ResponseWriter.WriteHeader(status)
}

// alter changes the headers of the first answers to requests that bring bytes.
func alter(r *rig, s *peculiar, most int32, change func(http.Header)) {
	var n atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		if req.Method == http.MethodPut && n.Add(1) <= most {
			a := altered{w, change}
			s.ServeHTTP(a, req)
			a.WriteHeader(http.StatusOK)
			return
		}
		s.ServeHTTP(w, req)
	})
}

// both makes a push with and without the SDK's own PutObject, and one in parts.
func both(t *testing.T, f func(t *testing.T, r *rig, size int)) {
	for _, tc := range []struct {
		size int
		sdk  bool
	}{{1000, false}, {1000, true}, {testPart + 1, true}} {
		t.Run(fmt.Sprint(tc.size, " by the SDK ", tc.sdk), func(t *testing.T) {
			r := newRig(t)
			if tc.sdk {
				r.putter = nil
			}
			f(t, r, tc.size)
		})
	}
}

// TestErrorInside has a store say yes with all that proves it, and an error in
// the body: that is none of the successes.
func TestErrorInside(t *testing.T) {
	for name, body := range map[string]string{
		"an error":                "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<!-- m --><Error><Code>InternalError</Code><Message>m</Message></Error>",
		"an error that is denied": "<Error><Code>AccessDenied</Code></Error>",
		"a mismatch":              "<Error><Code>BadDigest</Code></Error>",
	} {
		t.Run(name, func(t *testing.T) {
			both(t, func(t *testing.T, r *rig, size int) {
				s := &peculiar{checksCRC: true, tellsMD5: true}
				var n atomic.Int32
				r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
					s.ServeHTTP(w, req)
					if req.Method == http.MethodPut && n.Add(1) == 1 {
						s.mu.Lock()
						s.object = nil
						s.mu.Unlock()
						io.WriteString(w, body)
					}
				})
				path, content := r.file(t, "f", size)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				if err != nil || receipt.Attempts != 2 || !bytes.Equal(s.object, content) {
					t.Errorf("%v, receipt %+v", err, receipt)
				}
			})
		})
	}
}

// TestOtherBodies: what else is in the body of a success says nothing.
func TestOtherBodies(t *testing.T) {
	for _, body := range []string{"<html><Error/></html>", "no XML", "<PutObjectResult/>"} {
		both(t, func(t *testing.T, r *rig, size int) {
			s := &peculiar{checksCRC: true, tellsMD5: true}
			r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
				s.ServeHTTP(w, req)
				if req.Method == http.MethodPut {
					io.WriteString(w, body)
				}
			})
			path, _ := r.file(t, "f", size)
			if receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil || receipt.Attempts != 1 {
				t.Errorf("%.20q: %v, receipt %+v", body, err, receipt)
			}
		})
	}
}

// TestTwoValues has answers that say two things of what the store has: no
// proof, whichever comes first. To say the same twice is none the worse.
func TestTwoValues(t *testing.T) {
	for _, tc := range []struct {
		name, value string
		same        bool
	}{
		{"Etag", `"0123456789abcdef0123456789abcdef"`, false},
		{"Etag", `"x"`, false},
		{"Etag", "", true},
		{"X-Amz-Checksum-Crc64nvme", "AAAAAAAAAAA=", false},
		{"X-Amz-Checksum-Crc64nvme", "", true},
	} {
		for _, before := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, " ", tc.value, " before ", before), func(t *testing.T) {
				both(t, func(t *testing.T, r *rig, size int) {
					s := &peculiar{checksCRC: true, tellsMD5: true}
					alter(r, s, 1, func(h http.Header) {
						value := tc.value
						if tc.same {
							value = h.Get(tc.name)
						}
						if h.Add(tc.name, value); before {
							v := h[tc.name]
							v[0], v[1] = v[1], v[0]
						}
					})
					path, _ := r.file(t, "f", size)
					receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
					if want := 2; err != nil || (receipt.Attempts == want) == tc.same {
						t.Errorf("%v, receipt %+v", err, receipt)
					}
				})
			})
		}
	}
}

// TestWrittenETags: the ways to write an ETag are one ETag, of the receipt, for
// comparison and for the completion.
func TestWrittenETags(t *testing.T) {
	for _, form := range []string{`W/"%s"`, `&quot;%s&quot;`, ` '%s' `, "%s", ` W/ "%s"`} {
		both(t, func(t *testing.T, r *rig, size int) {
			s := &peculiar{tellsMD5: true}
			alter(r, s, 1000, func(h http.Header) { h.Set("Etag", fmt.Sprintf(form, bareETag(h.Get("Etag")))) })
			path, content := r.file(t, "f", size)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if err != nil || receipt.Verified.By != "daemon" || receipt.Verified.Algorithm != "md5" || receipt.ETag != wantValue(receipt.Verified, content) {
				t.Errorf("%s: %v, receipt %+v, verified %+v", form, err, receipt, receipt.Verified)
			}
			alter(r, s, 1000, func(h http.Header) { h.Set("Etag", fmt.Sprintf(form, strings.Repeat("0", 32))) })
			_, err = r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if e, ok := errors.AsType[*push.Error](err); !ok || e.Code != push.ChecksumMismatch {
				t.Errorf("%s of other bytes: %v", form, err)
			}
		})
	}
}
