package uploader

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/md5"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/minio/crc64nvme"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/push"
)

// peculiar is a store as there are many: it keeps what it gets, and checks and
// tells of it only some. It stands in for those that a real one here cannot be.
type peculiar struct {
	checksCRC bool // checks a CRC64NVME header and tells it
	mirrors   bool // tells the CRC64NVME that it was sent
	checksMD5 bool // checks a Content-MD5
	checksSHA bool // and a signed SHA-256
	tellsMD5  bool // ETags are MD5s; else they are something else
	encrypts  bool // ETags look like MD5s, and are not, and the store says why
	secretly  bool // or does not say why
	wholeCRC  string
	joinedTag string // the ETag of an object of parts; what S3 makes where empty
	headTag   string // and what a question answers; the same where empty
	headSize  int    // the size that it answers; the object's where 0

	// instead, if it returns true, has answered a request after it was carried
	// out, where that makes or ends an upload.
	instead func(operation string, w http.ResponseWriter) bool

	// spoil changes what was sent in the n-th request with a body, from 1.
	spoil func(n int, body []byte)

	mu      sync.Mutex
	bodies  int
	parts   map[int][]byte
	object  []byte
	made    time.Time      // when the object was made
	kind    string         // and its content type
	etags   map[int]string // of the parts of the upload that is there
	asked   []string       // operations, in their order
	headers []http.Header
}

func (s *peculiar) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := bodyOf(req)
	if err != nil {
		return // a request that was given up
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	operation := operationOf(req)
	if req.Method == http.MethodHead || req.Method == http.MethodDelete {
		operation = req.Method
	}
	s.asked = append(s.asked, operation)
	s.headers = append(s.headers, req.Header.Clone())
	if s.encrypts && !s.secretly {
		w.Header().Set("X-Amz-Server-Side-Encryption", "aws:kms")
	}
	number, _ := strconv.Atoi(req.URL.Query().Get("partNumber"))
	switch {
	case req.Method == http.MethodPut:
		s.bodies++
		if s.spoil != nil {
			s.spoil(s.bodies, body)
		}
		if !s.take(w, req.Header, body) {
			return
		}
		if number == 0 {
			s.object, s.made, s.kind = body, time.Now(), req.Header.Get("Content-Type")
			return
		}
		if s.parts == nil {
			s.parts = make(map[int][]byte)
		}
		s.parts[number] = body
		s.etags[number] = w.Header().Get("Etag")
	case operation == "CreateMultipartUpload" && s.instead != nil && s.instead(operation, w):
	case operation == "CreateMultipartUpload":
		s.kind, s.etags = req.Header.Get("Content-Type"), make(map[int]string)
		io.WriteString(w, "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>")
	case operation == askingParts && s.etags == nil:
		w.WriteHeader(http.StatusNotFound)
		io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
	case operation == askingParts:
		io.WriteString(w, "<ListPartsResult><UploadId>u</UploadId>")
		for n, etag := range s.etags {
			fmt.Fprintf(w, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag><Size>%d</Size></Part>", n, etag, len(s.parts[n]))
		}
		io.WriteString(w, "</ListPartsResult>")
	case operation == "CompleteMultipartUpload":
		s.made = time.Now()
		var parts [][]byte
		for i := range len(s.parts) {
			parts = append(parts, s.parts[i+1])
		}
		s.object = slices.Concat(parts...)
		if s.instead != nil && s.instead(operation, w) {
			return
		}
		checksum := ""
		if s.checksCRC || s.wholeCRC != "" {
			value := s.wholeCRC
			if value == "" {
				value = crcText(crc64nvme.Checksum(s.object))
			}
			checksum = "<ChecksumCRC64NVME>" + value + "</ChecksumCRC64NVME><ChecksumType>FULL_OBJECT</ChecksumType>"
		}
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>k</Key><ETag>%s</ETag>%s</CompleteMultipartUploadResult>", s.tagOfParts(), checksum)
	case req.Method == http.MethodHead && s.object == nil:
		w.WriteHeader(http.StatusNotFound)
	case req.Method == http.MethodHead:
		w.Header().Set("Content-Length", strconv.Itoa(cmp.Or(s.headSize, len(s.object))))
		w.Header().Set("Content-Type", s.kind)
		w.Header().Set("Last-Modified", s.made.UTC().Format(http.TimeFormat))
		w.Header().Set("Etag", `"`+cmp.Or(s.headTag, s.tagOfParts(), "0x8DBC")+`"`)
		if s.checksCRC {
			w.Header().Set("X-Amz-Checksum-Crc64nvme", crcText(crc64nvme.Checksum(s.object)))
			w.Header().Set("X-Amz-Checksum-Type", "FULL_OBJECT")
		}
	}
}

// bodyOf reads a request's body. Its room is made at once: to have it grow costs
// more than all that is done with it.
func bodyOf(req *http.Request) ([]byte, error) {
	body := bytes.NewBuffer(make([]byte, 0, max(req.ContentLength, 0)+bytes.MinRead))
	_, err := body.ReadFrom(req.Body)
	return body.Bytes(), err
}

// take answers a request that brought bytes.
func (s *peculiar) take(w http.ResponseWriter, h http.Header, body []byte) bool {
	sum := md5.Sum(body)
	crc := crcText(crc64nvme.Checksum(body))
	sent := h.Get("X-Amz-Content-Sha256")
	bad := ""
	switch {
	case s.checksCRC && h.Get("X-Amz-Checksum-Crc64nvme") != "" && h.Get("X-Amz-Checksum-Crc64nvme") != crc,
		s.checksMD5 && h.Get("Content-Md5") != "" && h.Get("Content-Md5") != base64.StdEncoding.EncodeToString(sum[:]):
		bad = "BadDigest"
	case s.checksSHA && sent != unsignedPayload && sent != fmt.Sprintf("%x", sha256.Sum256(body)):
		bad = "XAmzContentSHA256Mismatch"
	}
	if bad != "" {
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, "<Error><Code>%s</Code><Message>m</Message></Error>", bad)
		return false
	}
	if s.checksCRC && h.Get("X-Amz-Checksum-Crc64nvme") != "" {
		w.Header().Set("X-Amz-Checksum-Crc64nvme", crc)
	}
	if s.mirrors {
		w.Header().Set("X-Amz-Checksum-Crc64nvme", h.Get("X-Amz-Checksum-Crc64nvme"))
	}
	if s.encrypts {
		sum[0]++
	}
	switch {
	case s.tellsMD5 || s.encrypts:
		w.Header().Set("Etag", `"`+hex.EncodeToString(sum[:])+`"`)
	default:
		w.Header().Set("Etag", `"0x8DBC"`)
	}
	return true
}

func (s *peculiar) tagOfParts() string {
	if s.joinedTag != "" || !s.tellsMD5 {
		return s.joinedTag
	}
	etags := make([]string, len(s.parts))
	for i := range etags {
		sum := md5.Sum(s.parts[i+1])
		etags[i] = hex.EncodeToString(sum[:])
	}
	return joined(etags)
}

// count returns how many requests there were of an operation; parts count as one.
func (s *peculiar) count(operation string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.asked {
		if name, _, _ := strings.Cut(o, " "); name == operation {
			n++
		}
	}
	return n
}

// in puts the store in front of the rig's.
func (s *peculiar) in(r *rig) {
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) { s.ServeHTTP(w, req) })
}

var modes = []Checksum{ChecksumAuto, ChecksumCRC64NVME, ChecksumMD5, ChecksumSHA256}

func withMode(mode Checksum) func(*Config) { return func(c *Config) { c.Checksum = mode } }

// TestProofs has what the receipt says, for stores that tell and check
// different things, in each mode. Where nothing shows that the store has the
// bytes, the push is not done.
func TestProofs(t *testing.T) {
	const none = "not_verified"
	for _, tc := range []struct {
		name         string
		store        func() *peculiar
		whole, parts [4]string // in the order of modes: what, algorithm and by
	}{
		{"tells all", func() *peculiar { return &peculiar{checksCRC: true, tellsMD5: true} },
			[4]string{"object crc64nvme daemon", "object crc64nvme daemon", "object md5 daemon", "object crc64nvme daemon"},
			[4]string{"object crc64nvme daemon", "object crc64nvme daemon", "object crc64nvme daemon", "object crc64nvme daemon"}},
		{"ignores the CRC", func() *peculiar { return &peculiar{tellsMD5: true} },
			[4]string{"object md5 daemon", "object md5 daemon", "object md5 daemon", "object md5 daemon"},
			[4]string{"parts md5 daemon", "parts md5 daemon", "parts md5 daemon", "parts md5 daemon"}},
		{"checks the MD5, and encrypts", func() *peculiar { return &peculiar{checksMD5: true, encrypts: true} },
			[4]string{"object md5 store", none, "object md5 store", "object sha256 store"},
			[4]string{"parts md5 store", none, "parts md5 store", "parts sha256 store"}},
		{"checks the CRC, and encrypts", func() *peculiar { return &peculiar{checksCRC: true, encrypts: true} },
			[4]string{"object crc64nvme daemon", "object crc64nvme daemon", "object md5 store", "object crc64nvme daemon"},
			[4]string{"object crc64nvme daemon", "object crc64nvme daemon", "object crc64nvme daemon", "object crc64nvme daemon"}},
		{"has ETags of its own", func() *peculiar { return &peculiar{checksMD5: true, checksSHA: true} },
			[4]string{"object md5 store", none, "object md5 store", "object sha256 store"},
			[4]string{"parts md5 store", none, "parts md5 store", "parts sha256 store"}},
	} {
		for i, mode := range modes {
			for _, size := range []int{0, inMemory + 1, testPart + 1} {
				t.Run(fmt.Sprint(tc.name, " ", mode, " ", size), func(t *testing.T) {
					r := newRig(t, withMode(mode))
					s := tc.store()
					s.in(r)
					path, content := r.file(t, "f", size)
					receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
					want := tc.whole[i]
					if size > testPart {
						want = tc.parts[i]
					}
					if want == none {
						var e *push.Error
						if !errors.As(err, &e) || e.Code != push.NotVerified || !strings.Contains(e.Detail, "S3DAEMON_CHECKSUM=auto") || receipt.Attempts != 1 {
							t.Errorf("%v, receipt %+v", err, receipt)
						}
						return
					}
					if err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(s.object, content) {
						t.Error("the store has other bytes")
					}
					if v := receipt.Verified; v.What+" "+v.Algorithm+" "+v.By != want || v.Value != wantValue(v, content) {
						t.Errorf("verified %+v, want %s with %s", v, want, wantValue(v, content))
					}
					wantHeaders(t, s, mode)
				})
			}
		}
	}
}

// wantValue returns the value that a proof of a file must have that went in
// parts of testPart, or whole.
func wantValue(v *push.Verified, content []byte) string {
	var md5s, sums []byte
	n := 0
	for part := range slices.Chunk(content, testPart) {
		one, other := md5.Sum(part), sha256.Sum256(part)
		md5s, sums = append(md5s, one[:]...), append(sums, other[:]...)
		n++
	}
	switch v.What + " " + v.Algorithm {
	case "parts md5":
		return fmt.Sprintf("%x-%d", md5.Sum(md5s), n)
	case "parts sha256":
		return fmt.Sprintf("%x-%d", sha256.Sum256(sums), n)
	case "object md5":
		return fmt.Sprintf("%x", md5.Sum(content))
	case "object sha256":
		return fmt.Sprintf("%x", sha256.Sum256(content))
	}
	return crcText(crc64nvme.Checksum(content))
}

// wantHeaders checks that requests carry what the mode says, and nothing that
// it says they do not.
func wantHeaders(t *testing.T, s *peculiar, mode Checksum) {
	t.Helper()
	for i, h := range s.headers {
		crc := h.Get("X-Amz-Checksum-Crc64nvme") + h.Get("X-Amz-Checksum-Algorithm") + h.Get("X-Amz-Checksum-Type") + h.Get("X-Amz-Checksum-Mode")
		if newer := crc + h.Get("X-Amz-Mp-Object-Size"); mode == ChecksumMD5 && newer != "" {
			t.Errorf("%s: headers that are newer than some stores: %q", s.asked[i], newer)
		}
		if s.asked[i] != "PutObject" && !strings.HasPrefix(s.asked[i], "UploadPart") {
			continue
		}
		if mode != ChecksumMD5 && crc == "" {
			t.Errorf("%s: no CRC header", s.asked[i])
		}
		if md5 := h.Get("Content-Md5"); mode == ChecksumMD5 && md5 == "" || mode != ChecksumMD5 && mode != ChecksumAuto && md5 != "" {
			t.Errorf("%s: Content-MD5 %q", s.asked[i], md5)
		}
		if hash := h.Get("X-Amz-Content-Sha256"); (hash != unsignedPayload) != (mode == ChecksumSHA256) {
			t.Errorf("%s: the signature has %q for the body", s.asked[i], hash)
		}
	}
}

// TestEncryptionThatWasAskedFor: ETags of what is encrypted by KMS are not
// compared, even where the answers do not say that it was.
func TestEncryptionThatWasAskedFor(t *testing.T) {
	for _, size := range []int{1000, testPart + 1} {
		r := newRig(t)
		s := &peculiar{checksMD5: true, encrypts: true, secretly: true}
		s.in(r)
		path, _ := r.file(t, "f", size)
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k", Encryption: "aws:kms"})
		if err != nil || receipt.Verified.Algorithm != "md5" || receipt.Verified.By != "store" {
			t.Errorf("%d bytes: %v, receipt %+v, verified %+v", size, err, receipt, receipt.Verified)
		}
		receipt, err = r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		wantMismatch(t, r, s, receipt, err)
	}
}

// TestSecretEncryption: where an ETag that looks like an MD5 is none, and the
// store does not say so, nobody can tell that from other bytes. The log has what
// to do about it, and that does it.
func TestSecretEncryption(t *testing.T) {
	for _, size := range []int{1000, testPart + 1} {
		r := newRig(t)
		s := &peculiar{checksCRC: true, encrypts: true, secretly: true}
		s.in(r)
		path, _ := r.file(t, "f", size)
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		wantMismatch(t, r, s, receipt, err)
		if !strings.Contains(r.log.String(), "set S3DAEMON_CHECKSUM=crc64nvme") {
			t.Errorf("%d bytes: the log does not say what to do: %s", size, r.log)
		}
		r = newRig(t, withMode(ChecksumCRC64NVME))
		s.in(r)
		receipt, err = r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		if err != nil || receipt.Attempts != 1 || receipt.Verified.Algorithm != "crc64nvme" {
			t.Errorf("%d bytes: %v, receipt %+v, verified %+v", size, err, receipt, receipt.Verified)
		}
	}
}

// TestMirror has a store repeat the CRC64NVME that it is sent, which shows
// nothing, and tell the MD5 of what it has. Once the two have contradicted each
// other, the MD5 decides, for every push.
func TestMirror(t *testing.T) {
	for _, size := range []int{1000, inMemory + 1, testPart + 1} {
		r := newRig(t)
		s := &peculiar{mirrors: true, tellsMD5: true, spoil: func(_ int, body []byte) { body[len(body)/2] ^= 4 }}
		s.in(r)
		path, content := r.file(t, "f", size)
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		wantMismatch(t, r, s, receipt, err)
		s.mu.Lock()
		s.spoil = nil
		s.mu.Unlock()
		receipt, err = r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		if err != nil || receipt.Verified.Algorithm != "md5" || !bytes.Equal(s.object, content) {
			t.Errorf("%d bytes: %v, receipt %+v, verified %+v", size, err, receipt, receipt.Verified)
		}
	}
}

// TestFlippedBit has a bit flip on the way to stores that notice it in different
// ways, or not at all. Once: the push is done, with the right bytes. Always: it
// fails as a mismatch, after so many attempts, and nothing is deleted but the
// parts of an upload that was not completed. It does so too when nobody waits.
func TestFlippedBit(t *testing.T) {
	for _, tc := range []struct {
		name  string
		store func() *peculiar
		modes []Checksum
	}{
		{"tells the MD5 of what it got", func() *peculiar { return &peculiar{tellsMD5: true} }, modes},
		{"refuses another MD5", func() *peculiar { return &peculiar{checksMD5: true} }, []Checksum{ChecksumAuto, ChecksumMD5}},
		{"refuses another CRC", func() *peculiar { return &peculiar{checksCRC: true} }, []Checksum{ChecksumAuto, ChecksumCRC64NVME, ChecksumSHA256}},
		{"refuses another SHA-256", func() *peculiar { return &peculiar{checksSHA: true} }, []Checksum{ChecksumSHA256}},
	} {
		for _, mode := range tc.modes {
			for _, size := range []int{inMemory, testPart + 1} {
				for _, always := range []bool{false, true} {
					t.Run(fmt.Sprint(tc.name, " ", mode, " ", size, " always ", always), func(t *testing.T) {
						r := newRig(t, withMode(mode))
						s := tc.store()
						s.spoil = func(n int, body []byte) {
							if always || n == 1 {
								body[len(body)/2] ^= 4
							}
						}
						s.in(r)
						path, content := r.file(t, "f", size)
						receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
						if !always {
							if err != nil || receipt.Attempts != 2 || !bytes.Equal(s.object, content) {
								t.Errorf("%v, receipt %+v", err, receipt)
							}
							return
						}
						wantMismatch(t, r, s, receipt, err)
						receipt, err = r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}, push.Options{})
						if err != nil {
							t.Fatal(err)
						}
						id, _ := push.ParseID(receipt.ID)
						if receipt, err = r.Get(t.Context(), id, push.Forever); err != nil || receipt.State != push.Failed || receipt.Problem.Code != push.ChecksumMismatch {
							t.Errorf("while nobody waits: %v, receipt %+v", err, receipt)
						}
					})
				}
			}
		}
	}
}

// wantMismatch checks a push that failed as a mismatch.
func wantMismatch(t *testing.T, r *rig, s *peculiar, receipt push.Receipt, err error) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.ChecksumMismatch || receipt.State != push.Failed || receipt.Verified != nil {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
	if uploads, aborts := s.count("CreateMultipartUpload"), s.count("DELETE"); aborts > uploads {
		t.Errorf("%d deletions, of %d uploads", aborts, uploads)
	}
	counted := 0.0
	for _, operation := range []string{"PutObject", "UploadPart", completing} {
		counted += testutil.ToFloat64(r.metrics.mismatches.WithLabelValues(operation))
	}
	if n := strings.Count(r.log.String(), `"checksum mismatch"`); counted < float64(r.cfg.Attempts) || float64(n) != counted {
		t.Errorf("%v mismatches are counted and %d logged, of %d attempts", counted, n, r.cfg.Attempts)
	}
}

// TestEchoEnds has a store that tells the CRC64NVME once and then not any more,
// as behind a balancer: the next push has its proof from the MD5, at its second
// attempt.
func TestEchoEnds(t *testing.T) {
	for _, size := range []int{1000, testPart + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t, func(c *Config) { c.MaxConnections = 1 }) // one part after the other
			s := &peculiar{checksCRC: true, checksMD5: true, wholeCRC: ""}
			s.in(r)
			path, _ := r.file(t, "f", size)
			push1 := push.Request{File: path, Destination: "s3://bucket/k"}
			if receipt, err := r.Push(t.Context(), push1); err != nil || receipt.Verified.Algorithm != "crc64nvme" {
				t.Fatalf("%v, receipt %+v", err, receipt)
			}
			s.mu.Lock()
			s.checksCRC = false
			s.mu.Unlock()
			receipt, err := r.Push(t.Context(), push1)
			if err != nil || receipt.Attempts != 2 || receipt.Verified.Algorithm != "md5" || receipt.Verified.By != "store" {
				t.Errorf("%v, receipt %+v, verified %+v", err, receipt, receipt.Verified)
			}
			s.mu.Lock()
			s.checksCRC = true
			s.mu.Unlock()
			for range 2 { // whichever server answers, there is an MD5
				receipt, err = r.Push(t.Context(), push1)
				if h := s.headers[len(s.headers)-1]; err != nil || receipt.Attempts != 1 || size < testPart && h.Get("Content-Md5") == "" {
					t.Errorf("%v, receipt %+v", err, receipt)
				}
			}
		})
	}
}

// TestJoinedObject has what the completion of an upload says of the object, and
// what comes of it.
func TestJoinedObject(t *testing.T) {
	const other, three = "25f9e794323b453885f5181f1b624d0b-2", "25f9e794323b453885f5181f1b624d0b-3"
	for _, tc := range []struct {
		name  string
		store *peculiar
		etag  string // of the receipt; empty: what S3 makes
		what  string // that was verified; empty: a mismatch
	}{
		{"another CRC", &peculiar{tellsMD5: true, wholeCRC: "AAAAAAAAAAA="}, "", ""},
		{"another ETag, the object has ours", &peculiar{tellsMD5: true, joinedTag: other, headTag: "ours"}, "", "parts"},
		{"another ETag, and the object has it", &peculiar{tellsMD5: true, joinedTag: other}, "", ""},
		{"an ETag of other parts, and the object has it", &peculiar{tellsMD5: true, joinedTag: three}, three, "parts"},
		{"no ETag, and the object has ours", &peculiar{tellsMD5: true, joinedTag: " ", headTag: "ours"}, "", "parts"},
		{"no ETag, and the object has another", &peculiar{tellsMD5: true, joinedTag: " ", headTag: other}, "", ""},
		{"no ETag, and the object has one that is no MD5", &peculiar{tellsMD5: true, joinedTag: " ", headTag: "x"}, "x", "parts"},
		{"an ETag that is no MD5, and the object has another", &peculiar{tellsMD5: true, joinedTag: "x", headTag: "y"}, "", ""},
		{"no ETag, and the object is of another size", &peculiar{tellsMD5: true, joinedTag: " ", headTag: "ours", headSize: 1}, "", ""},
		{"another ETag, the object has a third", &peculiar{tellsMD5: true, joinedTag: other, headTag: "x"}, "", ""},
		{"an ETag that is no MD5", &peculiar{tellsMD5: true, joinedTag: "x"}, "x", "parts"},
		{"the MD5 of the whole", &peculiar{tellsMD5: true, joinedTag: other[:32]}, other[:32], "parts"},
		{"another ETag, and an object of another size has it", &peculiar{tellsMD5: true, joinedTag: other, headTag: other, headSize: 1}, "", ""},
		{"another ETag, encrypted", &peculiar{checksMD5: true, encrypts: true, joinedTag: other}, other, "parts"},
		{"our CRC", &peculiar{tellsMD5: true, checksCRC: true}, "", "object"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			tc.store.in(r)
			path, content := r.file(t, "f", testPart+1)
			ours := wantValue(&push.Verified{What: "parts", Algorithm: "md5"}, content)
			if tc.store.headTag == "ours" {
				tc.store.headTag = ours
			}
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			if tc.what == "" {
				wantMismatch(t, r, tc.store, receipt, err)
				if n := tc.store.count("DELETE"); n > 0 {
					t.Errorf("%d uploads that were completed are aborted", n)
				}
				if n := tc.store.count("CompleteMultipartUpload"); n != r.cfg.Attempts {
					t.Errorf("%d completions, want one for each of %d attempts", n, r.cfg.Attempts)
				}
				return
			}
			want := tc.etag
			if want == "" {
				want = ours
			}
			if err != nil || receipt.Attempts != 1 || receipt.ETag != want || receipt.Verified.What != tc.what {
				t.Errorf("%v, receipt %+v, verified %+v, want the ETag %s", err, receipt, receipt.Verified, want)
			}
		})
	}
}

// TestWrongObjectNeedsOtherParts: an upload that became another object than the file
// is not completed again, though the store still shows it.
func TestWrongObjectNeedsOtherParts(t *testing.T) {
	const other = "25f9e794323b453885f5181f1b624d0b-2"
	r := newRig(t)
	path, content := r.file(t, "f", testPart+1)
	var completions, begun, parts atomic.Int32
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		switch op, _, _ := strings.Cut(operationOf(req), " "); {
		case op == completing && completions.Add(1) == 1:
			fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>k</Key><ETag>%s</ETag></CompleteMultipartUploadResult>", other)
			return
		case op == asking && completions.Load() == 1:
			w.Header().Set("Etag", other)
			w.Header().Set("Content-Length", strconv.Itoa(len(content)))
			return
		case req.Method == http.MethodPost && req.URL.Query().Has("uploads"):
			begun.Add(1)
		case op == "UploadPart":
			parts.Add(1)
		}
		next.ServeHTTP(w, req)
	})
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.Attempts != 2 || begun.Load() != 2 || parts.Load() != 4 || completions.Load() != 2 {
		t.Errorf("%v, receipt %+v, after %d uploads, %d parts and %d completions", err, receipt, begun.Load(), parts.Load(), completions.Load())
	}
	r.wantObject(t, "k", content)
}

// TestStrayCompletion has a proxy take what stands in its way for the answer to
// a completion, which the store then refuses: an upload that was not completed is
// not done, whatever is there under its name.
func TestStrayCompletion(t *testing.T) {
	const stray = "<CompleteMultipartUploadResult><Key>k</Key>%s</CompleteMultipartUploadResult>"
	for _, etag := range []string{"", "<ETag>&quot;25f9e794323b453885f5181f1b624d0b-2&quot;</ETag>", "<ETag>x</ETag>"} {
		for _, older := range []string{"nothing", "an object of the size", "an object of another size"} {
			t.Run(etag+" over "+older, func(t *testing.T) {
				r := newRig(t, func(c *Config) { c.Attempts = 2 })
				s := &peculiar{tellsMD5: true, headTag: "0123456789abcdef0123456789abcdef-2"}
				switch older {
				case "an object of the size":
					s.object = make([]byte, testPart+1)
				case "an object of another size":
					s.object = make([]byte, testPart)
				}
				r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
					if operationOf(req) != completing {
						s.ServeHTTP(w, req)
						return
					}
					io.Copy(io.Discard, req.Body)
					hijack(t, w, func(conn net.Conn, _ *bufio.Reader) {
						body := fmt.Sprintf(stray, etag)
						fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
						// Which the next request may be given for its answer.
						io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 40\r\n\r\n<Error><Code>InvalidPart</Code></Error>\r\n")
					})
				})
				path, _ := r.file(t, "f", testPart+1)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				if e, ok := errors.AsType[*push.Error](err); !ok || e.Code != push.ChecksumMismatch && e.Code != push.StoreUnreachable || receipt.Attempts != 2 {
					t.Errorf("%v, receipt %+v", err, receipt)
				}
				if n := s.count("DELETE"); n != 0 {
					t.Errorf("%d uploads are aborted that may have been completed", n)
				}
			})
		}
	}
}

// TestJoinedInAnotherOrder has a store join the parts in another order and say
// so in all its answers.
func TestJoinedInAnotherOrder(t *testing.T) {
	r := newRig(t)
	s := &peculiar{tellsMD5: true}
	s.instead = func(operation string, _ http.ResponseWriter) bool {
		if operation == completing {
			s.parts[1], s.parts[2] = s.parts[2], s.parts[1]
		}
		return false
	}
	s.in(r)
	path, _ := r.file(t, "f", testPart+1)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	wantMismatch(t, r, s, receipt, err)
}

// TestCompletionCannotBeAsked has a store whose answer shows nothing refuse the
// question for the object: the error says so, and that the push may be repeated.
func TestCompletionCannotBeAsked(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Attempts = 1 })
	s := &peculiar{tellsMD5: true, joinedTag: " "}
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		if req.Method == http.MethodHead {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		s.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", testPart+1)
	_, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if e, ok := errors.AsType[*push.Error](err); !ok || e.Code != push.StoreUnreachable || !strings.Contains(e.Detail, "(HeadObject): 403 Forbidden") {
		t.Errorf("%v", err)
	}
}

// TestReadAnew has somebody write into the file behind the daemon's back, with
// its size and times kept, after a part was summed: what is read again is
// summed again.
func TestReadAnew(t *testing.T) {
	r := newRig(t)
	r.plan = plan{whole: 32 << 20, minPart: 32 << 20} // more than the sockets' buffers take
	size := 32<<20 + 1
	path, content := r.file(t, "f", size)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	s := &peculiar{tellsMD5: true}
	var once sync.Once
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		if req.URL.Query().Get("partNumber") == "1" {
			once.Do(func() {
				content[32<<20-1] ^= 1
				overwrite(t, path, content[32<<20-1:32<<20], 32<<20-1, info.ModTime())
			})
		}
		s.ServeHTTP(w, req)
	})
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || receipt.Attempts != 2 || !bytes.Equal(s.object, content) {
		t.Errorf("%v, receipt %+v", err, receipt)
	}
}

// overwrite changes bytes of a file and sets its time back.
func overwrite(t *testing.T, path string, content []byte, at int64, modified time.Time) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteAt(content, at)
		err = errors.Join(err, f.Close(), os.Chtimes(path, time.Time{}, modified))
	}
	if err != nil {
		t.Error(err)
	}
}

// TestUnclearCompletionIsProven loses the answer to a completion, in several
// ways, on stores whose ETags tell nothing, or all: what a question shows is the
// proof, and the upload is neither repeated nor aborted.
func TestUnclearCompletionIsProven(t *testing.T) {
	for name, answer := range map[string]func(http.ResponseWriter){
		"nothing":         func(http.ResponseWriter) {},
		"an error inside": func(w http.ResponseWriter) { io.WriteString(w, "<Error><Code>InternalError</Code></Error>") },
		"broken off":      func(w http.ResponseWriter) { io.WriteString(w, "<CompleteMultipartUploadResult><Key>k</Ke") },
		"about another object": func(w http.ResponseWriter) {
			io.WriteString(w, "<CompleteMultipartUploadResult><Key>l</Key><ETag>x</ETag></CompleteMultipartUploadResult>")
		},
		"no such upload, which an earlier attempt completed": func(w http.ResponseWriter) {
			w.WriteHeader(404)
			io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
		},
		"a conflict with an earlier attempt, which completed it": func(w http.ResponseWriter) { w.WriteHeader(409) },
	} {
		for _, tc := range []struct {
			store *peculiar
			what  string
		}{{&peculiar{checksCRC: true, encrypts: true, headTag: "25f9e794323b453885f5181f1b624d0b-2"}, "object"}, {&peculiar{tellsMD5: true, headTag: "ours"}, "parts"}} {
			t.Run(fmt.Sprint(name, ", ", tc.what), func(t *testing.T) {
				r := newRig(t)
				s := tc.store
				s.instead = func(operation string, w http.ResponseWriter) bool {
					if operation != completing {
						return false
					}
					if s.headTag == "ours" {
						s.headTag = s.tagOfParts()
					}
					answer(w)
					return true
				}
				s.in(r)
				path, content := r.file(t, "f", testPart+1)
				receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
				if err != nil || receipt.Verified.What != tc.what || receipt.Verified.Value != wantValue(receipt.Verified, content) || receipt.Attempts != 1 {
					t.Errorf("%v, receipt %+v, verified %+v", err, receipt, receipt.Verified)
				}
				if s.count(completing) != 1 || s.count("DELETE") != 0 {
					t.Errorf("%d completions, %d deletions", s.count(completing), s.count("DELETE"))
				}
			})
		}
	}
}

// TestUnclearCompletionIsNot loses the answer to a completion, and what is there
// is an older object of the same size: that proves nothing, and is no mismatch.
func TestUnclearCompletionIsNot(t *testing.T) {
	r := newRig(t, func(c *Config) { c.Attempts = 1 })
	s := &peculiar{checksCRC: true, encrypts: true, headTag: "x"}
	s.instead = func(operation string, _ http.ResponseWriter) bool {
		if operation == completing {
			s.object = bytes.Repeat([]byte{1}, len(s.object))
		}
		return operation == completing
	}
	s.in(r)
	path, _ := r.file(t, "f", testPart+1)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if e, ok := errors.AsType[*push.Error](err); !ok || e.Code != push.StoreUnreachable || s.count(completing) != 1 || s.count("DELETE") != 0 {
		t.Errorf("%v, receipt %+v, %d completions, %d deletions", err, receipt, s.count(completing), s.count("DELETE"))
	}
	if n := testutil.ToFloat64(r.metrics.mismatches.WithLabelValues(completing)); n != 0 {
		t.Errorf("%v mismatches are counted", n)
	}
}

// TestBeginningOfAnUpload has answers to it that are none, or about another
// object: nothing is sent to such an upload.
func TestBeginningOfAnUpload(t *testing.T) {
	for name, answer := range map[string]string{
		"nothing": "", "no id": "<InitiateMultipartUploadResult><Key>k</Key></InitiateMultipartUploadResult>",
		"another key": "<InitiateMultipartUploadResult><Key>l</Key><UploadId>u</UploadId></InitiateMultipartUploadResult>",
		"broken off":  "<InitiateMultipartUploadResult><UploadId>u</Uplo",
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			s := &peculiar{tellsMD5: true}
			s.instead = func(operation string, w http.ResponseWriter) bool {
				if operation == "CreateMultipartUpload" {
					io.WriteString(w, answer)
				}
				return operation == "CreateMultipartUpload"
			}
			s.in(r)
			path, _ := r.file(t, "f", testPart+1)
			receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
			var e *push.Error
			if !errors.As(err, &e) || e.Code != push.StoreUnreachable && e.Code != push.StoreRefused || s.count("UploadPart") != 0 {
				t.Errorf("%v, receipt %+v, %d parts", err, receipt, s.count("UploadPart"))
			}
		})
	}
	d := &delivery{dest: push.Destination{Bucket: "bucket", Key: "a b+c/é"}}
	for said, want := range map[string]bool{"": true, "a b+c/é": true, "a%20b%2Bc/%C3%A9": true, "a+b%2Bc%2F%C3%A9": true, "a b c/é": false, "a b+c": false, "%": false} {
		if d.named(&said) != want {
			t.Errorf("an answer that names %q: ours is %v, want %v", said, !want, want)
		}
	}
}

// TestCompletionRefused has a store that does not find the parts that it had
// answered for: that upload is given up, and the file goes by another one. It is
// a mismatch.
func TestCompletionRefused(t *testing.T) {
	for _, times := range []int{1, 1000} {
		r := newRig(t)
		s := &peculiar{tellsMD5: true}
		refused := 0
		s.instead = func(operation string, w http.ResponseWriter) bool {
			if operation != completing || refused == times {
				return false
			}
			refused++
			w.WriteHeader(http.StatusBadRequest)
			io.WriteString(w, "<Error><Code>InvalidPart</Code></Error>")
			return true
		}
		s.in(r)
		path, content := r.file(t, "f", testPart+1)
		receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
		uploads, ends := s.count("CreateMultipartUpload"), s.count(completing)
		if uploads != ends {
			t.Errorf("%d uploads, %d completions", uploads, ends)
		}
		until(t, "the janitor has given up those that were refused", func() bool { return len(r.recorded(t)) == 0 && s.count("DELETE") == refused })
		if times > 1 {
			wantMismatch(t, r, s, receipt, err)
			if detail := err.Error(); !strings.Contains(detail, "does not have all parts") || strings.Contains(detail, "hardware") {
				t.Errorf("the error is %q", detail)
			}
			if ends != r.cfg.Attempts {
				t.Errorf("%d completions, want one for each of %d attempts", ends, r.cfg.Attempts)
			}
			continue
		}
		if err != nil || receipt.Attempts != 2 || !bytes.Equal(s.object, content) {
			t.Errorf("%v, receipt %+v", err, receipt)
		}
		if n := testutil.ToFloat64(r.metrics.mismatches.WithLabelValues(completing)); n != 1 {
			t.Errorf("%v mismatches are counted, want 1", n)
		}
	}
}

// TestUploadIsGone has somebody abort an upload while its parts are sent: the
// file goes by a new one, without more tries of the old.
func TestUploadIsGone(t *testing.T) {
	r := newRig(t)
	s := &peculiar{tellsMD5: true}
	var once sync.Once
	r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
		gone := false
		if req.URL.Query().Get("partNumber") == "2" {
			once.Do(func() { gone = true })
		}
		if gone {
			io.Copy(io.Discard, req.Body)
			w.WriteHeader(404)
			io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
			return
		}
		s.ServeHTTP(w, req)
	})
	path, content := r.file(t, "f", testPart+1)
	receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"})
	if err != nil || s.count("CreateMultipartUpload") != 2 || !bytes.Equal(s.object, content) {
		t.Errorf("%v, receipt %+v, %d uploads", err, receipt, s.count("CreateMultipartUpload"))
	}
}
