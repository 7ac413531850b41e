package uploader

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// create pushes a file that may replace nothing.
func (r *rig) create(t *testing.T, path, key string) (push.Receipt, error) {
	t.Helper()
	return r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/" + key, Overwrite: new(bool)})
}

// journey counts what reaches the store, by operation: those of probes apart.
type journey struct {
	mu     sync.Mutex
	counts map[string]int
}

// watch counts requests before f answers them, or the store where f is nil.
func (r *rig) watch(f func(http.ResponseWriter, *http.Request, http.Handler)) *journey {
	j := &journey{counts: make(map[string]int)}
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		name, _, _ := strings.Cut(operationOf(req), " ")
		switch req.Method {
		case http.MethodDelete:
			name = "Delete"
		case http.MethodGet:
			name = "List"
		}
		if isProbe(req) {
			name = "probe " + name
		}
		j.mu.Lock()
		j.counts[name]++
		j.mu.Unlock()
		if f == nil {
			f = serve
		}
		f(w, req, next)
	})
	return j
}

func serve(w http.ResponseWriter, req *http.Request, next http.Handler) { next.ServeHTTP(w, req) }

func isProbe(req *http.Request) bool { return strings.Contains(req.URL.Path, probeName) }

// take returns the counts, and begins anew.
func (j *journey) take() map[string]int {
	j.mu.Lock()
	defer j.mu.Unlock()
	counts := j.counts
	j.counts = make(map[string]int)
	return counts
}

func (j *journey) want(t *testing.T, what string, want map[string]int) {
	t.Helper()
	if got := j.take(); !maps.Equal(got, want) {
		t.Errorf("%s: requests %v, want %v", what, got, want)
	}
}

// wantExists checks the end of a push that found another object.
func wantExists(t *testing.T, receipt push.Receipt, err error, says string) {
	t.Helper()
	if !isExists(err) || !strings.Contains(err.Error(), says) {
		t.Errorf("%v, %+v: want exists, and that it says %q", err, receipt, says)
	}
}

// wantNoProbes checks that probes have left nothing.
func (r *rig) wantNoProbes(t *testing.T) {
	t.Helper()
	drained := make(chan struct{})
	r.journal.Barrier(func() { close(drained) })
	<-drained
	err := r.journal.EachUpload(func(u *journal.Upload) error {
		if u.Probe {
			t.Errorf("the journal still has the probe %s", u.Key)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestCreate makes objects, and meets them.
func TestCreate(t *testing.T) {
	r := newRig(t)
	seen := r.watch(nil)
	probePut := map[string]int{"probe PutObject": 2, "probe Delete": 1}
	probeComplete := map[string]int{"probe PutObject": 1, "probe CreateMultipartUpload": 1, "probe UploadPart": 1, "probe CompleteMultipartUpload": 1, "probe Delete": 2}
	with := func(probe map[string]int, more map[string]int) map[string]int {
		all := maps.Clone(more)
		maps.Copy(all, probe)
		return all
	}
	small, content := r.file(t, "small", 1000)
	parts, partsContent := r.file(t, "parts", testPart+1)
	asLarge, _ := r.file(t, "as large", 2*testPart)
	if err := os.Truncate(asLarge, testPart+1); err != nil {
		t.Fatal(err)
	}
	sameSize, _ := r.file(t, "same size", 1256)
	if err := os.Truncate(sameSize, 1000); err != nil {
		t.Fatal(err)
	}

	if _, err := r.create(t, small, "d/small"); err != nil {
		t.Fatal(err)
	}
	seen.want(t, "the first", with(probePut, map[string]int{"PutObject": 1}))
	receipt, err := r.create(t, small, "d/small")
	if err != nil || receipt.Attempts != 1 || receipt.Verified.What != "object" || receipt.ETag == "" {
		t.Errorf("the same bytes: %v, %+v", err, receipt)
	}
	seen.want(t, "the same bytes", map[string]int{"PutObject": 1, "HeadObject": 1})
	receipt, err = r.create(t, sameSize, "d/small")
	wantExists(t, receipt, err, "another object (1000 bytes, ETag ")
	if !strings.Contains(err.Error(), "s3://bucket/d/small already") || receipt.Attempts != 1 || receipt.State != push.Failed || asPushError(err).Store.Status != http.StatusPreconditionFailed {
		t.Errorf("%v, %+v", err, receipt)
	}
	seen.want(t, "other bytes", map[string]int{"PutObject": 1, "HeadObject": 1})

	receipt, err = r.create(t, parts, "d/parts")
	if err != nil || receipt.Parts != 2 {
		t.Errorf("parts: %v, %+v", err, receipt)
	}
	seen.want(t, "parts", with(probeComplete, map[string]int{"HeadObject": 2, "CreateMultipartUpload": 1, "UploadPart": 2, "CompleteMultipartUpload": 1}))
	if receipt, err = r.create(t, parts, "d/parts"); err != nil || receipt.Parts != 1 { // as this store has it
		t.Errorf("the same parts: %v, %+v", err, receipt)
	}
	seen.want(t, "the same parts", map[string]int{"HeadObject": 1})
	receipt, err = r.create(t, asLarge, "d/parts")
	wantExists(t, receipt, err, "another object")
	receipt, err = r.create(t, parts, "d/small")
	wantExists(t, receipt, err, "another object")
	seen.want(t, "other parts", map[string]int{"HeadObject": 2})

	r.wantObject(t, "d/small", content)
	r.wantObject(t, "d/parts", partsContent)
	if receipt, err := r.Push(t.Context(), push.Request{File: parts, Destination: "s3://bucket/d/small"}); err != nil {
		t.Errorf("one that may overwrite: %v, %+v", err, receipt)
	}
	r.wantObject(t, "d/small", partsContent)
	if n := testutil.ToFloat64(r.metrics.pushes.WithLabelValues("failed")); n != 3 {
		t.Errorf("%v pushes have failed, want 3", n)
	}
	r.wantNoProbes(t)
}

// conditional is a store that may or may not heed If-None-Match.
type conditional struct {
	heedsPut, heedsComplete bool
	versions                bool                                                // it keeps versions, and gives each object one
	instead                 func(w http.ResponseWriter, req *http.Request) bool // answers in its place, if it returns true

	mu      sync.Mutex
	objects map[string][]byte
	kept    map[string]string // versions that were not deleted, and of what
	parts   map[string][]byte // by upload id and number
	uploads map[string]string // that are under way, and of what
	made    int
}

func (s *conditional) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := bodyOf(req)
	if err != nil || s.instead != nil && s.instead(w, req) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key, query := req.URL.Path, req.URL.Query()
	object, there := s.objects[key]
	id := query.Get("uploadId")
	wants := req.Header.Get("If-None-Match") == "*"
	switch operation, _, _ := strings.Cut(operationOf(req), " "); {
	case req.Method == http.MethodHead && there:
		w.Header().Set("Content-Length", strconv.Itoa(len(object)))
		w.Header().Set("Etag", etagOf(object))
	case req.Method == http.MethodHead, id != "" && s.uploads[id] != key:
		w.WriteHeader(http.StatusNotFound)
		if req.Method != http.MethodHead {
			io.WriteString(w, "<Error><Code>NoSuchUpload</Code></Error>")
		}
	case operation == "CreateMultipartUpload":
		s.made++
		id := strconv.Itoa(s.made)
		s.uploads[id] = key
		fmt.Fprintf(w, "<InitiateMultipartUploadResult><UploadId>%s</UploadId></InitiateMultipartUploadResult>", id)
	case operation == "UploadPart":
		s.parts[id+"/"+query.Get("partNumber")] = body
		w.Header().Set("Etag", etagOf(body))
	case req.Method == http.MethodDelete && id != "":
		delete(s.uploads, id)
		w.WriteHeader(http.StatusNoContent)
	case req.Method == http.MethodDelete && query.Has("versionId"):
		delete(s.kept, query.Get("versionId"))
		w.WriteHeader(http.StatusNoContent)
	case req.Method == http.MethodDelete:
		delete(s.objects, key)
		if s.versions {
			w.Header().Set("X-Amz-Delete-Marker", "true")
			s.keep(w, key)
		}
		w.WriteHeader(http.StatusNoContent)
	case query.Has("versions"):
		io.WriteString(w, "<ListVersionsResult>")
		for version, key := range s.kept {
			if key = strings.TrimPrefix(key, "/bucket/"); strings.HasPrefix(key, query.Get("prefix")) {
				fmt.Fprintf(w, "<Version><Key>%s</Key><VersionId>%s</VersionId></Version>", key, version)
			}
		}
		io.WriteString(w, "</ListVersionsResult>")
	case wants && there && (operation == "PutObject" && s.heedsPut || operation != "PutObject" && s.heedsComplete):
		w.WriteHeader(http.StatusPreconditionFailed)
		io.WriteString(w, "<Error><Code>PreconditionFailed</Code></Error>")
	case operation == "PutObject":
		w.Header().Set("Etag", etagOf(body))
		s.make(w, key, body)
	default:
		var joined, sums []byte
		n := 0
		for ; s.parts[fmt.Sprint(id, "/", n+1)] != nil; n++ {
			part := s.parts[fmt.Sprint(id, "/", n+1)]
			sum := md5.Sum(part)
			joined, sums = append(joined, part...), append(sums, sum[:]...)
		}
		delete(s.uploads, id)
		s.make(w, key, joined)
		fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>%s</Key><ETag>%x-%d</ETag></CompleteMultipartUploadResult>", strings.TrimPrefix(key, "/bucket/"), md5.Sum(sums), n)
	}
}

func etagOf(content []byte) string { return fmt.Sprintf("\"%x\"", md5.Sum(content)) }

func (s *conditional) make(w http.ResponseWriter, key string, content []byte) {
	s.objects[key] = content
	if s.versions {
		s.keep(w, key)
	}
}

// keep makes a version of what is at the key.
func (s *conditional) keep(w http.ResponseWriter, key string) {
	s.made++
	version := "v" + strconv.Itoa(s.made)
	s.kept[version] = key
	w.Header().Set("X-Amz-Version-Id", version)
}

// in puts the store in the place of the rig's.
func (s *conditional) in(r *rig) *journey {
	s.objects, s.kept, s.parts, s.uploads = make(map[string][]byte), make(map[string]string), make(map[string][]byte), make(map[string]string)
	return r.watch(func(w http.ResponseWriter, req *http.Request, _ http.Handler) { s.ServeHTTP(w, req) })
}

// left returns the keys that there are, and those of the uploads under way.
func (s *conditional) left() (keys []string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key := range s.objects {
		keys = append(keys, key)
	}
	for _, key := range s.uploads {
		keys = append(keys, "upload of "+key)
	}
	slices.Sort(keys)
	return keys
}

// TestConditionIsIgnored has stores that do not know the condition. Who would
// replace an object by that sends nothing.
func TestConditionIsIgnored(t *testing.T) {
	for _, versions := range []bool{false, true} {
		t.Run(fmt.Sprint("on CompleteMultipartUpload, versions ", versions), func(t *testing.T) {
			r, s := newRig(t), &conditional{heedsPut: true, versions: versions}
			seen := s.in(r)
			path, _ := r.file(t, "f", 3*testPart)
			receipt, err := r.create(t, path, "d/k")
			if err != nil || receipt.Parts != 1 {
				t.Errorf("%v, %+v", err, receipt)
			}
			if got := seen.take(); got["PutObject"] != 1 || got["UploadPart"] != 0 {
				t.Errorf("requests %v, want one PutObject", got)
			}
			if got := s.left(); !slices.Equal(got, []string{"/bucket/d/k"}) {
				t.Errorf("the store has %q", got)
			}
			if versions && len(s.kept) != 1 {
				t.Errorf("versions %v are left, want that of the object", s.kept)
			}
			r.wantNoProbes(t)

			if receipt, err := r.create(t, path, "d/k"); err != nil || receipt.Verified.What != "object" {
				t.Errorf("the same: %v, %+v", err, receipt)
			}
			seen.want(t, "the same", map[string]int{"HeadObject": 1})
			other, _ := r.file(t, "other", 4*testPart)
			receipt, err = r.create(t, other, "d/k")
			wantExists(t, receipt, err, "another object")
			seen.want(t, "another", map[string]int{"HeadObject": 1})

			sparse := filepath.Join(r.dir, "sparse")
			if err := os.WriteFile(sparse, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(sparse, largestPut+1); err != nil {
				t.Fatal(err)
			}
			if _, err = r.create(t, sparse, "large"); asPushError(err).Code != push.ConditionUnsupported || !strings.Contains(err.Error(), "5 GiB") {
				t.Errorf("beyond one request: %v", err)
			}
			seen.want(t, "beyond one request", map[string]int{"HeadObject": 1})
		})
	}
	t.Run("on PutObject", func(t *testing.T) {
		r, s := newRig(t), new(conditional)
		seen := s.in(r)
		for _, size := range []int{1, testPart + 1} {
			path, _ := r.file(t, "f", size)
			if _, err := r.create(t, path, "k"); asPushError(err).Code != push.ConditionUnsupported || !strings.Contains(err.Error(), "PutObject") {
				t.Errorf("%d bytes: %v", size, err)
			}
		}
		seen.want(t, "nothing is sent", map[string]int{"probe PutObject": 2, "probe Delete": 1, "HeadObject": 1})
		if got := s.left(); len(got) != 0 {
			t.Errorf("the store has %q", got)
		}
		r.wantNoProbes(t)
	})
}

// refuseWith answers as a store does that does not allow it.
func refuseWith(w http.ResponseWriter, status int, code string) bool {
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code></Error>", code)
	return true
}

// TestProbeIsRefused has credentials that may not do what a probe does. Small
// files go all the same, large ones as one request; each bucket is asked again
// after a while only.
func TestProbeIsRefused(t *testing.T) {
	for _, what := range []string{"PutObject", "CompleteMultipartUpload", "Delete"} {
		t.Run(what, func(t *testing.T) {
			r, s := newRig(t), &conditional{heedsPut: true, heedsComplete: true}
			s.instead = func(w http.ResponseWriter, req *http.Request) bool {
				name, _, _ := strings.Cut(operationOf(req), " ")
				if req.Method == http.MethodDelete {
					name = map[bool]string{true: "Abort", false: "Delete"}[req.URL.Query().Has("uploadId")]
				}
				return isProbe(req) && name == what && refuseWith(w, http.StatusForbidden, "AccessDenied")
			}
			seen := s.in(r)
			for i, size := range []int{100, testPart + 1, 100, 2 * testPart} {
				path, content := r.file(t, "f", size)
				receipt, err := r.create(t, path, fmt.Sprint("k", i))
				wantParts := 1
				if what == "Delete" && size > testPart {
					wantParts = 2
				}
				if err != nil || receipt.Parts != wantParts || receipt.Attempts != 1 {
					t.Errorf("%d bytes: %v, %+v", size, err, receipt)
				}
				if !bytes.Equal(s.objects[fmt.Sprint("/bucket/k", i)], content) {
					t.Errorf("%d bytes: the object is another", size)
				}
			}
			got := seen.take()
			if want := map[string]int{"PutObject": 2, "CompleteMultipartUpload": 3, "Delete": 3}[what]; got["probe PutObject"] != want {
				t.Errorf("requests %v, want %d for probes", got, want)
			}
			if what == "Delete" {
				if strings.Count(r.log.String(), "a probe is left behind for now") != 2 {
					t.Errorf("the log does not have both probes:\n%s", r.log)
				}
				return
			}
			if got := s.left(); len(got) != 4 {
				t.Errorf("the store has %q", got)
			}
			r.wantNoProbes(t)
		})
	}
}

// TestProbeCarriesChecksums: a bucket with Object Lock takes nothing without one,
// and so tells what it does with the condition.
func TestProbeCarriesChecksums(t *testing.T) {
	for _, mode := range []Checksum{ChecksumAuto, ChecksumMD5, ChecksumSHA256} {
		t.Run(string(mode), func(t *testing.T) {
			r, s := newRig(t, func(c *Config) { c.Checksum = mode }), &conditional{heedsPut: true, heedsComplete: true}
			s.instead = func(w http.ResponseWriter, req *http.Request) bool {
				name, _, _ := strings.Cut(operationOf(req), " ")
				carries := req.Header.Get("Content-Md5") != "" || req.Header.Get("X-Amz-Checksum-Crc64nvme") != ""
				return req.Method == http.MethodPut && name != completing && !carries && refuseWith(w, http.StatusBadRequest, "InvalidRequest")
			}
			s.in(r)
			path, content := r.file(t, "f", 2*testPart)
			if receipt, err := r.create(t, path, "k"); err != nil || receipt.Parts != 2 || !bytes.Equal(s.objects["/bucket/k"], content) {
				t.Errorf("%v, %+v", err, receipt)
			}
		})
	}
}

// TestProbeMeetsABadMoment: what passes is waited for, and nothing is concluded.
func TestProbeMeetsABadMoment(t *testing.T) {
	for _, tc := range []struct {
		status int
		code   string
		want   push.Code // of the push, at last
	}{
		{503, "SlowDown", push.StoreRefused}, {404, "NoSuchBucket", push.StoreRefused}, {403, "SignatureDoesNotMatch", push.StoreRefused},
		{404, "", push.StoreRefused}, {403, "", push.StoreRefused}, // the page of a proxy
	} {
		for _, what := range []string{"PutObject", "CreateMultipartUpload", "UploadPart"} {
			t.Run(fmt.Sprint(tc.status, tc.code, " at ", what), func(t *testing.T) {
				r := newRig(t)
				var bad atomic.Bool
				bad.Store(true)
				r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
					if name, _, _ := strings.Cut(operationOf(req), " "); bad.Load() && isProbe(req) && name == what && req.Method != http.MethodDelete {
						io.Copy(io.Discard, req.Body)
						if tc.code == "" {
							http.Error(w, "<html>there is nothing here</html>", tc.status)
							return
						}
						refuseWith(w, tc.status, tc.code)
						return
					}
					next.ServeHTTP(w, req)
				})
				path, _ := r.file(t, "f", testPart+1)
				if _, err := r.create(t, path, "k"); asPushError(err) == nil || asPushError(err).Code != tc.want || tc.code != "" && asPushError(err).Store.Code != tc.code {
					t.Errorf("in a bad moment: %v, want %s", err, tc.want)
				}
				bad.Store(false)
				if receipt, err := r.create(t, path, "k"); err != nil || receipt.Parts != 2 {
					t.Errorf("after it: %v, %+v", err, receipt)
				}
				until(t, "only the object is left", func() bool { return slices.Equal(r.keysLeft(t), []string{"k"}) })
			})
		}
	}
}

// TestProbeIsCancelled: its push ends at once, and the janitor removes what it had
// made.
func TestProbeIsCancelled(t *testing.T) {
	r := newRig(t)
	arrived, hold := make(chan struct{}), make(chan struct{})
	r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isProbe(req) && operationOf(req) == "UploadPart 1" {
			close(arrived)
			<-hold
		}
		next.ServeHTTP(w, req)
	})
	defer close(hold)
	path, _ := r.file(t, "f", testPart+1)
	receipt, err := r.Uploader.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k", Overwrite: new(bool)}, push.Options{})
	if err != nil {
		t.Fatal(err)
	}
	<-arrived
	id, err := push.ParseID(receipt.ID)
	if err != nil {
		t.Fatal(err)
	}
	if receipt, err = r.Cancel(t.Context(), id); err != nil || receipt.State != push.Cancelled {
		t.Errorf("%v, %+v", err, receipt)
	}
	until(t, "the janitor", func() bool { return len(r.keysLeft(t))+len(r.uploadsLeft(t)) == 0 })
}

// TestProbeLosesAnswers: what a request made whose answer nobody heard is removed
// all the same.
func TestProbeLosesAnswers(t *testing.T) {
	for _, what := range []string{"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			var once sync.Once
			r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if name, _, _ := strings.Cut(operationOf(req), " "); isProbe(req) && name == what && req.Method != http.MethodDelete {
					once.Do(func() {
						next.ServeHTTP(discard{make(http.Header)}, req)
						panic(http.ErrAbortHandler)
					})
				}
				next.ServeHTTP(w, req)
			})
			path, content := r.file(t, "f", testPart+1)
			if receipt, err := r.create(t, path, "k"); err != nil || receipt.Parts != 2 {
				t.Errorf("%v, %+v", err, receipt)
			}
			r.wantObject(t, "k", content)
			if left := r.uploadsLeft(t); len(left) > 0 {
				t.Errorf("uploads are left: %q", left)
			}
			if keys := r.keysLeft(t); !slices.Equal(keys, []string{"k"}) {
				t.Errorf("the store has %q", keys)
			}
			if what == "UploadPart" {
				r.wantNoProbes(t)
			} else if left := r.recorded(t); len(left) != 1 || !left[0].Probe { // more may yet appear
				t.Errorf("the journal has %+v, want the probe", left)
			}
		})
	}
}

// keysLeft lists the objects in the store.
func (r *rig) keysLeft(t *testing.T) (keys []string) {
	t.Helper()
	out, err := r.client.ListObjectsV2(t.Context(), &s3.ListObjectsV2Input{Bucket: aws.String("bucket")})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range out.Contents {
		keys = append(keys, aws.ToString(o.Key))
	}
	return keys
}

func TestPartsByETag(t *testing.T) {
	const sum = "0123456789abcdef0123456789abcdef"
	for etag, want := range map[string]int{sum: 1, sum + "-1": 1, sum + "-9987": 9987, sum + "-": 0, sum + "-99999999999999999999": 0, "0x8DBC": 0, "0x8DBC-7": 0, "": 0} {
		if got := partsByETag(etag); got != want {
			t.Errorf("%q: %d, want %d", etag, got, want)
		}
	}
}

// TestFindingOut asks once for each bucket and operation, and again after an hour
// where that did not tell.
func TestFindingOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, asked := newConditions(4), 0
		want := func(bucket, operation string, h heeding, err error, wantHeeding heeding, wantAsked int) {
			t.Helper()
			got, gotErr := c.find(trait{bucket, operation}, func() (heeding, error) { asked++; return h, err })
			if got != wantHeeding || asked != wantAsked || gotErr != nil && gotErr != err {
				t.Errorf("%v, %v after %d questions, want %v after %d", got, gotErr, asked, wantHeeding, wantAsked)
			}
		}
		lost := errors.New("no answer")
		want("a", putting, unsure, lost, unsure, 1)
		want("a", putting, unsure, nil, unsure, 2)
		want("a", putting, heeded, nil, unsure, 2)
		time.Sleep(askHeedAgain)
		want("a", putting, heeded, nil, heeded, 3)
		want("a", putting, ignored, nil, heeded, 3)
		time.Sleep(askHeedAgain)
		want("a", putting, ignored, nil, heeded, 3)
		want("a", completing, ignored, nil, ignored, 4)
		want("b", putting, ignored, nil, ignored, 5) // there may be another store behind the endpoint
		want("a", putting, ignored, nil, heeded, 5)

		for n := range mostFindings {
			c.find(trait{strconv.Itoa(n), putting}, func() (heeding, error) { return heeded, nil })
		}
		if len(c.found) != mostFindings {
			t.Errorf("%d findings are kept", len(c.found))
		}
	})
}

// TestWhoWaitsForAQuestion hears at once that another asks, and what to wait for.
func TestWhoWaitsForAQuestion(t *testing.T) {
	c := newConditions(8) // two questions at once
	waits := func(bucket string) <-chan struct{} {
		t.Helper()
		_, err := c.find(trait{bucket, putting}, func() (heeding, error) { t.Error("asked"); return unsure, nil })
		awaits, is := errors.AsType[*awaitsError](err)
		if !is || isClosed(awaits.over) {
			t.Fatalf("%v, want one that waits", err)
		}
		return awaits.over
	}
	var a, b <-chan struct{}
	c.find(trait{"a", putting}, func() (heeding, error) {
		a = waits("a")
		c.find(trait{"b", putting}, func() (heeding, error) {
			a, b = waits("a"), waits("b")
			waits("c") // for either
			return heeded, nil
		})
		if isClosed(a) || !isClosed(b) {
			t.Error("it waits for another question")
		}
		return unsure, errors.New("no answer")
	})
	if !isClosed(a) {
		t.Error("it waits though the question is over")
	}
}

// TestOneProbeForAll: while a store is silent to the one probe, the others that
// need to know are put off, and nobody else waits.
func TestOneProbeForAll(t *testing.T) {
	for _, size := range []int{100, testPart + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r := newRig(t)
			arrived, hold := make(chan struct{}, 100), make(chan struct{})
			let := sync.OnceFunc(func() { close(hold) })
			defer let()
			seen := r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if name, _, _ := strings.Cut(operationOf(req), " "); isProbe(req) && name == "PutObject" {
					arrived <- struct{}{}
					<-hold
				}
				next.ServeHTTP(w, req)
			})
			path, _ := r.file(t, "f", size)
			var ids []push.ID
			for n := range 8 {
				ids = append(ids, r.later(t, push.Request{File: path, Destination: fmt.Sprint("s3://bucket/k", n), Overwrite: new(bool)}))
			}
			<-arrived
			if receipt, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/ordinary"}); err != nil || receipt.Attempts != 1 {
				t.Errorf("an ordinary push: %v, %+v", err, receipt)
			}
			let()
			for _, id := range ids {
				if receipt := r.ended(t, id, push.Done); receipt.Attempts != 1 {
					t.Errorf("%+v, want one attempt", receipt)
				}
			}
			if got := seen.take(); got["probe PutObject"] > 3 {
				t.Errorf("requests %v", got)
			}
		})
	}
}

// TestSilentProbe: a store that does not answer a probe does not tell, and costs
// no more than its time.
func TestSilentProbe(t *testing.T) {
	for _, what := range []string{"PutObject", "CompleteMultipartUpload"} {
		t.Run(what, func(t *testing.T) {
			r := newRig(t)
			r.conditions.takes = 500 * time.Millisecond
			var silent atomic.Int32
			hold := make(chan struct{})
			defer close(hold)
			r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if name, _, _ := strings.Cut(operationOf(req), " "); isProbe(req) && name == what && req.Method != http.MethodDelete {
					silent.Add(1)
					io.Copy(io.Discard, req.Body)
					<-hold
					return
				}
				next.ServeHTTP(w, req)
			})
			path, content := r.file(t, "f", testPart+1)
			for _, key := range []string{"k", "second"} {
				if receipt, err := r.create(t, path, key); err != nil || receipt.Parts != 1 || receipt.Attempts != 1 {
					t.Errorf("%v, %+v", err, receipt)
				}
			}
			r.wantObject(t, "k", content)
			if got, want := int(silent.Load()), map[string]int{"PutObject": 2, "CompleteMultipartUpload": 1}[what]; got > want { // PutObject is tried for either
				t.Errorf("%d requests were not answered, want %d", got, want)
			}
			if strings.Contains(r.log.String(), "cannot be reached") {
				t.Errorf("the store is taken for away:\n%s", r.log)
			}
		})
	}
}

// TestProbeFailureIsAnAttempt: a caller who waits is told at last.
func TestProbeFailureIsAnAttempt(t *testing.T) {
	r := newRig(t)
	seen := r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if isProbe(req) {
			refuseWith(w, 503, "SlowDown")
			return
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 100)
	receipt, err := r.create(t, path, "k")
	if asPushError(err) == nil || asPushError(err).Code != push.StoreRefused || receipt.Attempts != r.cfg.Attempts {
		t.Errorf("%v, %+v", err, receipt)
	}
	if got := seen.take(); got["probe PutObject"] != r.cfg.Attempts || got["PutObject"] != 0 {
		t.Errorf("requests %v, want a probe for each attempt", got)
	}
}

// TestMeeting has what happens around an object that is in the way.
func TestMeeting(t *testing.T) {
	const small, large = 1000, testPart + 1
	fail := func(n int, match string, f func(w http.ResponseWriter, req *http.Request, next http.Handler)) func(http.ResponseWriter, *http.Request, http.Handler) {
		var mu sync.Mutex
		return func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			name, _, _ := strings.Cut(operationOf(req), " ")
			mu.Lock()
			hit := !isProbe(req) && name == match && n > 0
			if hit {
				n--
			}
			mu.Unlock()
			if hit {
				f(w, req, next)
				return
			}
			next.ServeHTTP(w, req)
		}
	}
	with := func(status int, code string) func(http.ResponseWriter, *http.Request, http.Handler) {
		return func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
			io.Copy(io.Discard, req.Body)
			refuseWith(w, status, code)
		}
	}
	lose := func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		next.ServeHTTP(discard{make(http.Header)}, req)
		panic(http.ErrAbortHandler)
	}
	for _, tc := range []struct {
		name   string
		size   int
		before int // bytes of an object that is there; 0 for none, and the size for that of the file
		fault  func(http.ResponseWriter, *http.Request, http.Handler)
		code   push.Code // of the end; "" for done
		says   string
	}{
		{"it vanishes", small, 0, fail(1, "PutObject", with(412, "PreconditionFailed")), "", ""},
		{"it is never seen", small, 0, fail(100, "PutObject", with(412, "PreconditionFailed")), push.StoreRefused, "shows none when asked (HeadObject): see whether a proxy"},
		{"it vanishes, without a code", small, 0, fail(1, "PutObject", with(412, "")), "", ""},
		{"a conflict", small, 0, fail(1, "PutObject", with(409, "ConditionalRequestConflict")), "", ""},
		{"a conflict at the end", large, 0, fail(1, "CompleteMultipartUpload", with(409, "ConditionalRequestConflict")), "", ""},
		{"our own first try", small, 0, fail(1, "PutObject", lose), "", ""},
		{"our own first try, in parts", large, 0, fail(1, "CompleteMultipartUpload", lose), "", ""},
		{"it may not be looked at", small, small + 1, fail(100, "HeadObject", with(403, "")), push.Exists, "may not look at (HeadObject) at s3://bucket/k already"},
		{"it may not be looked at, in parts", large, small, fail(100, "HeadObject", with(403, "")), push.Exists, "may not look at"},
		{"no answer about it", small, small, fail(1, "HeadObject", with(503, "")), "", ""},
		{"no answer about it, in parts", large, large, fail(1, "HeadObject", with(503, "")), "", ""},
		{"never an answer about it", small, small, fail(100, "HeadObject", with(503, "")), push.StoreRefused, ""},
		{"another, found at the end", large, small, fail(1, "HeadObject", with(404, "")), push.Exists, "another object (1000 bytes"},
		{"the same, found at the end", large, large, fail(1, "HeadObject", with(404, "")), "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			path, content := r.file(t, "f", tc.size)
			if tc.before > 0 {
				_, there := r.file(t, "before", tc.before)
				if err := r.store.Put("bucket", "k", there); err != nil {
					t.Fatal(err)
				}
				content = there
			}
			r.watch(tc.fault)
			receipt, err := r.create(t, path, "k")
			if tc.code == "" && err != nil || tc.code != "" && asPushError(err).Code != tc.code || err != nil && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v, %+v: want %q", err, receipt, tc.code)
			}
			if tc.before > 0 || tc.code == "" {
				r.wantObject(t, "k", content)
			}
			r.wantNoProbes(t)
		})
	}
}

// TestWhatIsInTheWay: what is said of the object is no more than is known.
func TestWhatIsInTheWay(t *testing.T) {
	const ofParts = "0123456789abcdef0123456789abcdef-2"
	for _, tc := range []struct {
		name string
		etag string
		lost bool // the answer to the first PutObject is
		size int
		says []string
		not  string
	}{
		{"other parts", ofParts, false, testPart + 1, []string{"an object of the same size and another ETag", "the same sent in other parts"}, "another object"},
		{"it cannot be compared", "0x8DBC", false, 100, []string{"cannot be compared"}, "this push's own"},
		{"it cannot be compared, and a try was lost", "0x8DBC", true, 100, []string{"cannot be compared", "it may be this push's own"}, "another object"},
		{"another, though a try was lost", "0123456789abcdef0123456789abcdef", true, 100, []string{"another object"}, "this push's own"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRig(t)
			var lost atomic.Bool
			r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				name, _, _ := strings.Cut(operationOf(req), " ")
				switch {
				case isProbe(req):
					next.ServeHTTP(w, req)
				case name == "HeadObject":
					w.Header().Set("Etag", strconv.Quote(tc.etag))
					w.Header().Set("Content-Length", strconv.Itoa(tc.size))
				case name == "PutObject" && tc.lost && lost.CompareAndSwap(false, true):
					io.Copy(io.Discard, req.Body)
					panic(http.ErrAbortHandler)
				default:
					refuseWith(w, http.StatusPreconditionFailed, "PreconditionFailed")
				}
			})
			path, _ := r.file(t, "f", tc.size)
			receipt, err := r.create(t, path, "k")
			for _, says := range tc.says {
				wantExists(t, receipt, err, says)
			}
			if err != nil && strings.Contains(err.Error(), tc.not) {
				t.Errorf("%v: it should not say %q", err, tc.not)
			}
		})
	}
}

// TestExistsIsNoFailureOfTheBucket: the bucket answers, so others are not put off.
func TestExistsIsNoFailureOfTheBucket(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 10)
	if err := r.store.Put("bucket", "k", []byte("other")); err != nil {
		t.Fatal(err)
	}
	for range 2 * failuresForTrial {
		if receipt, err := r.create(t, path, "k"); !isExists(err) || receipt.Attempts != 1 {
			t.Errorf("%v, %+v", err, receipt)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue.onTrial) > 0 {
		t.Error("the bucket is on trial")
	}
}

// TestRefusedUnread meets an object with a file whose bytes the store does not
// read before it answers, and closes the connection on.
func TestRefusedUnread(t *testing.T) {
	for _, reset := range []bool{false, true} {
		t.Run(fmt.Sprint("reset ", reset), func(t *testing.T) {
			r := newRig(t)
			r.plan.whole = 16 * testPart
			path, _ := r.file(t, "f", 8*testPart)
			if err := r.store.Put("bucket", "k", []byte("other")); err != nil {
				t.Fatal(err)
			}
			seen := r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
				if isProbe(req) || req.Method != http.MethodPut {
					next.ServeHTTP(w, req)
					return
				}
				w.Header().Set("Connection", "close")
				if reset {
					conn, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					conn.(*net.TCPConn).SetLinger(0)
					conn.Close()
					return
				}
				refuseWith(w, 412, "PreconditionFailed")
			})
			receipt, err := r.create(t, path, "k")
			wantExists(t, receipt, err, "another object (5 bytes")
			if got := seen.take(); got["HeadObject"] != 1 || got["PutObject"] > 3 { // on two connections that had carried others, and a new one
				t.Errorf("requests %v", got)
			}
		})
	}
}

// TestMadeWrong has a store that keeps other bytes than it was sent. The object
// stands, so no other attempt can put it right.
func TestMadeWrong(t *testing.T) {
	for _, size := range []int{100, testPart + 1} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			r, s := newRig(t), &conditional{heedsPut: true, heedsComplete: true}
			seen := s.in(r)
			path, _ := r.file(t, "f", size)
			if _, err := r.create(t, path, "first"); err != nil { // so that there are no probes any more
				t.Fatal(err)
			}
			seen.take()
			s.instead = func(w http.ResponseWriter, req *http.Request) bool {
				name, _, _ := strings.Cut(operationOf(req), " ")
				switch name {
				case "PutObject":
					w.Header().Set("Etag", etagOf([]byte("other")))
				case "CompleteMultipartUpload":
					fmt.Fprintf(w, "<CompleteMultipartUploadResult><Key>k</Key><ETag>%x-2</ETag></CompleteMultipartUploadResult>", md5.Sum(nil))
				case "HeadObject":
					if seen.mu.Lock(); seen.counts["CompleteMultipartUpload"] > 0 {
						w.Header().Set("Etag", fmt.Sprintf("%x-2", md5.Sum(nil)))
						w.Header().Set("Content-Length", strconv.Itoa(size))
						seen.mu.Unlock()
						return true
					}
					seen.mu.Unlock()
					return false
				default:
					return false
				}
				return true
			}
			receipt, err := r.create(t, path, "k")
			if known := asPushError(err); known == nil || known.Code != push.ChecksumMismatch || !strings.Contains(known.Detail, "remove it and push again") || receipt.Attempts != 1 {
				t.Errorf("%v, %+v", err, receipt)
			}
			if got := seen.take(); got["PutObject"] > 1 || got["CompleteMultipartUpload"] > 1 {
				t.Errorf("requests %v", got)
			}
		})
	}
}

// TestObjectAppearsMeanwhile: an object that is made while the parts of a file are
// sent stays as it is.
func TestObjectAppearsMeanwhile(t *testing.T) {
	r := newRig(t)
	r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == "UploadPart 1" && !isProbe(req) {
			if err := r.store.Put("bucket", "k", []byte("the winner")); err != nil {
				t.Error(err)
			}
		}
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", testPart+1)
	receipt, err := r.create(t, path, "k")
	wantExists(t, receipt, err, "another object (10 bytes")
	r.wantObject(t, "k", []byte("the winner"))
	until(t, "its upload to be aborted", func() bool { return len(r.uploadsLeft(t)) == 0 })
}

// TestMetWhileCancelled: a push that was cancelled, and whose bytes the store says are
// there, is done.
func TestMetWhileCancelled(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 1000)
	if _, err := r.create(t, path, "k"); err != nil { // so that there are no probes any more
		t.Fatal(err)
	}
	g := r.hold(t, false, pass)
	held := *r.fault.Load()
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if req.Method == http.MethodPut {
			held(w, req, next)
			return
		}
		next.ServeHTTP(w, req)
	})
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k", Overwrite: new(bool)})
	<-g.arrived
	cancelled := make(chan push.Receipt, 1)
	go func() {
		receipt, _ := r.Cancel(context.Background(), id)
		cancelled <- receipt
	}()
	r.untilCancelled(t, id)
	g.let()
	if receipt := <-cancelled; receipt.State != push.Done {
		t.Errorf("%+v", receipt)
	}
	r.wantObject(t, "k", content)
}

// TestMetInParts: where the object appears between two runs of a push in parts, what
// the first has begun is given up at once.
func TestMetInParts(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", testPart+1)
	var failures atomic.Int32
	r.watch(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		if operationOf(req) == "UploadPart 2" && !isProbe(req) {
			if int(failures.Add(1)) == r.cfg.Attempts {
				if err := r.store.Put("bucket", "k", content); err != nil {
					t.Error(err)
				}
			}
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		next.ServeHTTP(w, req)
	})
	id := r.later(t, push.Request{File: path, Destination: "s3://bucket/k", Overwrite: new(bool)})
	r.ended(t, id, push.Done)
	until(t, "its upload to be aborted", func() bool { return len(r.uploadsLeft(t)) == 0 })
	if n := int(failures.Load()); n != r.cfg.Attempts {
		t.Errorf("the second part was sent %d times", n)
	}
}

// TestProbesStayWithinThePlace: a probe is where the push may go, by a prefix that is no
// directory too, and is a key that the store takes.
func TestProbesStayWithinThePlace(t *testing.T) {
	for key, want := range map[string]string{ // before what is the probe's own
		"a.fits": "a.fits", "d/night12-a.fits": "d/night12-a.fits", "d/": "d/", "a/../b/..": "a/../b/..",
		"d/" + strings.Repeat("k", 255):                                 "d/" + strings.Repeat("k", 255-42),
		"d/" + strings.Repeat("\u00fc", 127):                            "d/" + strings.Repeat("\u00fc", 106),
		strings.Repeat(strings.Repeat("k", 99)+"/", 10) + "night12-abc": (strings.Repeat(strings.Repeat("k", 99)+"/", 10) + "night12-abc")[:1024-42],
	} {
		got := probeKey(key)
		if before, random, is := strings.Cut(got, probeName); !is || before != want || len(random) != 26 || len(got) > push.MaxKeyBytes || got == probeKey(key) {
			t.Errorf("%q: %q", key, got)
		}
		if dest, err := push.ParseDestination("s3://bucket/" + got); err != nil || dest.Key != got {
			t.Errorf("%q: %v", got, err)
		}
	}

	places, err := push.ParsePlaces([]string{"bucket/night12-", "bucket/" + strings.Repeat("p", 250)})
	if err != nil {
		t.Fatal(err)
	}
	r := newRig(t, func(c *Config) { c.Places = places })
	var mu sync.Mutex
	var keys []string
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		mu.Lock()
		keys = append(keys, req.URL.Path)
		mu.Unlock()
		next.ServeHTTP(w, req)
	})
	long := strings.Repeat("p", 250) // no probe of this one is within its place
	small, _ := r.file(t, "small", 10)
	parts, _ := r.file(t, "parts", testPart+1)
	for _, push := range []struct{ path, key string }{{small, long}, {small, "night12-a"}, {parts, "night12-b"}} {
		if receipt, err := r.create(t, push.path, push.key); err != nil {
			t.Errorf("%v, %+v", err, receipt)
		}
	}
	probes := 0
	mu.Lock()
	defer mu.Unlock()
	for _, key := range keys {
		if !strings.HasPrefix(key, "/bucket/night12-") && key != "/bucket/"+long {
			t.Errorf("the store is asked for %s", key)
		}
		if strings.Contains(key, probeName) {
			probes++
		}
	}
	if probes != 3+6 { // about PutObject and about CompleteMultipartUpload, though nothing could be asked for the first push
		t.Errorf("%d requests of probes", probes)
	}
	r.wantNoProbes(t)
}
