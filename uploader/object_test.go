package uploader

import (
	"context"
	"errors"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/s3"
	"github.com/aws/aws-sdk-go-v2/service/s3/types"
	"github.com/minio/crc64nvme"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/source"
)

// TestCompare compares files with what a store says of an object.
func TestCompare(t *testing.T) {
	r := newRig(t)
	for _, size := range []int{0, 1000, testPart + 1} {
		path, content := r.file(t, "f", size)
		file, err := source.New(source.Rules{}).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		d := &delivery{up: r.Uploader, file: file}
		inParts := wantValue(&push.Verified{What: "parts", Algorithm: "md5"}, content)
		whole := wantValue(&push.Verified{What: "object", Algorithm: "md5"}, content)
		other := strings.Repeat("0", 32)
		crc := crcText(crc64nvme.Checksum(content))
		const full, kms = types.ChecksumTypeFullObject, types.ServerSideEncryptionAwsKms
		for _, tc := range []struct {
			name       string
			etag, crc  string
			kind       types.ChecksumType
			encryption types.ServerSideEncryption
			longer     int64
			want       standing
			what, by   string // of the proof
		}{
			{"our CRC", "x", crc, full, "", 0, ourObject, "object", "crc64nvme"},
			{"our CRC, and it is longer", "x", crc, full, "", 1, otherObject, "", ""},
			{"another CRC", whole, crcText(1), full, "", 0, otherObject, "", ""},
			{"our CRC and two ETags", whole + ", " + other, crc, full, "", 0, otherObject, "", ""},
			{"the MD5", whole, "", "", "", 0, ourObject, "object", "md5"},
			{"the MD5, in capitals", strings.ToUpper(whole), "", "", "", 0, ourObject, "object", "md5"},
			{"the MD5, and a sum of sums", whole, crcText(1), types.ChecksumTypeComposite, "", 0, ourObject, "object", "md5"},
			{"another MD5", other, "", "", "", 0, otherObject, "", ""},
			{"another MD5, encrypted", other, "", "", kms, 0, someObject, "", ""},
			{"the ETag of our parts", inParts, "", "", "", 0, ourObject, "parts", "md5"},
			{"another ETag of as many parts", other + inParts[32:], "", "", "", 0, otherObject, "", ""},
			{"an ETag of more parts", other + "-77", "", "", "", 0, someObject, "", ""},
			{"an ETag that tells nothing", "x", "", "", "", 0, someObject, "", ""},
		} {
			if size == 0 && strings.Contains(tc.name, "parts") {
				continue // which has none
			}
			head := &s3.HeadObjectOutput{ETag: aws.String(`"` + tc.etag + `"`), ContentLength: aws.Int64(int64(size) + tc.longer), ChecksumType: tc.kind, ServerSideEncryption: tc.encryption}
			if tc.crc != "" {
				head.ChecksumCRC64NVME = &tc.crc
			}
			s := d.compare(head, nil)
			if s.is != tc.want || (s.differs != nil) != (tc.want == otherObject) {
				t.Errorf("%d bytes, %s: %d (%+v), want %d", size, tc.name, s.is, s.differs, tc.want)
			}
			if s.is != ourObject {
				continue
			}
			if v := s.got.verified; v.What != tc.what || v.Algorithm != tc.by || v.By != byDaemon || !strings.EqualFold(v.Value, wantValue(v, content)) {
				t.Errorf("%d bytes, %s: the proof is %+v", size, tc.name, v)
			}
			if s.got.etag != tc.etag || s.got.checksum.Value != crc {
				t.Errorf("%d bytes, %s: %+v", size, tc.name, s.got)
			}
		}
	}
}

// TestCompareDoubted: a CRC64NVME of a store that repeats what it hears is no
// proof; an ETag is.
func TestCompareDoubted(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 1000)
	file, err := source.New(source.Rules{}).Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &delivery{up: r.Uploader, file: file}
	d.up.verifies.put.Store(doubted)
	crc := crcText(crc64nvme.Checksum(content))
	for etag, want := range map[string]standing{
		wantValue(&push.Verified{What: "object", Algorithm: "md5"}, content): ourObject, strings.Repeat("0", 32): otherObject, "x": someObject,
	} {
		s := d.compare(&s3.HeadObjectOutput{ETag: &etag, ContentLength: aws.Int64(1000), ChecksumCRC64NVME: &crc}, nil)
		if s.is != want || s.is == ourObject && s.got.verified.Algorithm != "md5" {
			t.Errorf("%s: %+v, want %d", etag, s, want)
		}
	}
}

// TestComparePartsOfARecord: what is compared with parts needs no file, and goes
// by the ETags that the store gave them.
func TestComparePartsOfARecord(t *testing.T) {
	parts := []sentPart{
		{size: 4, etag: "81dc9bdb52d04dc20036dbd8313ed055", ours: digests{have: withCRC, crc: crc64nvme.Checksum([]byte("1234"))}, proof: proof{"crc64nvme", byDaemon}},
		{size: 5, etag: "dd9cc5ddda9b1b2e2bc8a8e2d4f5a3c1", ours: digests{have: withCRC, crc: crc64nvme.Checksum([]byte("56789"))}, proof: proof{"crc64nvme", byDaemon}},
	}
	d := &delivery{up: new(Uploader)}
	etag, other := joinedETag(parts), strings.Repeat("0", 32)+"-2"
	crc := crcText(crc64nvme.Checksum([]byte("123456789")))
	for _, tc := range []struct {
		name string
		head s3.HeadObjectOutput
		want standing
	}{
		{"our ETag", s3.HeadObjectOutput{ETag: &etag, ContentLength: aws.Int64(9)}, ourObject},
		{"our CRC", s3.HeadObjectOutput{ETag: aws.String("x"), ContentLength: aws.Int64(9), ChecksumCRC64NVME: &crc}, ourObject},
		{"another ETag", s3.HeadObjectOutput{ETag: &other, ContentLength: aws.Int64(9)}, otherObject},
		{"another size", s3.HeadObjectOutput{ETag: &etag, ContentLength: aws.Int64(8)}, otherObject},
		{"nothing", s3.HeadObjectOutput{ETag: aws.String("x"), ContentLength: aws.Int64(9)}, someObject},
	} {
		if s := d.compare(&tc.head, parts); s.is != tc.want {
			t.Errorf("%s: %+v, want %d", tc.name, s, tc.want)
		}
	}
}

// TestLook asks a store for what it has, and for who made it.
func TestLook(t *testing.T) {
	r := newRig(t)
	path, content := r.file(t, "f", 1000)
	began := time.Now()
	request := push.Request{File: path, Destination: "s3://bucket/there", ContentType: "image/fits", Metadata: map[string]string{"Exposure": "12"}}
	if _, err := r.Push(t.Context(), request); err != nil {
		t.Fatal(err)
	}
	look := func(key string, change func(*push.Request)) (*delivery, sight) {
		t.Helper()
		req := request
		change(&req)
		file, err := source.New(source.Rules{}).Open(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		d := &delivery{up: r.Uploader, req: req, dest: push.Destination{Bucket: "bucket", Key: key}, file: file}
		s, err := d.look(nil)
		if err != nil {
			t.Fatal(err)
		}
		return d, s
	}
	if _, s := look("elsewhere", func(*push.Request) {}); s.is != noObject {
		t.Errorf("what was never sent: %+v", s)
	}
	for _, tc := range []struct {
		name   string
		change func(*push.Request)
		since  time.Time
		made   bool
	}{
		{"as it was asked for", func(*push.Request) {}, began, true},
		{"names in other letters", func(r *push.Request) { r.Metadata = map[string]string{"exposure": "12"} }, began, true},
		{"since nobody knows", func(*push.Request) {}, time.Time{}, false},
		{"since later than it was written", func(*push.Request) {}, began.Add(time.Hour), false},
		{"another type", func(r *push.Request) { r.ContentType = "text/plain" }, began, false},
		{"other metadata", func(r *push.Request) { r.Metadata = map[string]string{"exposure": "13"} }, began, false},
		{"more metadata", func(r *push.Request) { r.Metadata = map[string]string{"exposure": "12", "filter": "r"} }, began, false},
	} {
		d, s := look("there", tc.change)
		if s.is != ourObject || s.got.etag != wantValue(&push.Verified{What: "object", Algorithm: "md5"}, content) {
			t.Fatalf("%s: %+v", tc.name, s)
		}
		if made := d.madeByUs(s, tc.since); made != tc.made {
			t.Errorf("%s: made by us: %v, want %v", tc.name, made, tc.made)
		}
	}
}

// TestAge: the age of an object is by the clock of the store, whatever that is,
// and one whose age is not told was not shown to be made by us.
func TestAge(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 1000)
	began := time.Now()
	if _, err := r.Push(t.Context(), push.Request{File: path, Destination: "s3://bucket/k"}); err != nil {
		t.Fatal(err)
	}
	file, err := source.New(source.Rules{}).Open(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := &delivery{up: r.Uploader, req: push.Request{File: path}, dest: push.Destination{Bucket: "bucket", Key: "k"}, file: file}
	noon := time.Now().UTC().Add(-5 * time.Minute) // no further away: the SDK would sign with it
	for _, tc := range []struct {
		name           string
		written, asked string
		made           bool
	}{
		{"just now, by a clock of its own", noon.Format(http.TimeFormat), noon.Format(http.TimeFormat), true},
		{"an hour before", noon.Add(-time.Hour).Format(http.TimeFormat), noon.Format(http.TimeFormat), false},
		{"it does not say when it was asked", noon.Format(http.TimeFormat), "", false},
		{"it does not say when it was written", "", noon.Format(http.TimeFormat), false},
	} {
		r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
			answer := httptest.NewRecorder()
			next.ServeHTTP(answer, req)
			maps.Copy(w.Header(), answer.Header())
			for name, value := range map[string]string{"Last-Modified": tc.written, "Date": tc.asked} {
				w.Header()[name] = []string{value}
				if value == "" {
					w.Header()[name] = nil // or the server sets it
				}
			}
			w.WriteHeader(answer.Code)
		})
		s, err := d.look(nil)
		if err != nil || s.is != ourObject {
			t.Fatalf("%s: %+v, %v", tc.name, s, err)
		}
		if made := d.madeByUs(s, began); made != tc.made {
			t.Errorf("%s: made by us: %v, want %v", tc.name, made, tc.made)
		}
	}
}

// TestCompareInThePartsOfTheRecord: an ETag of parts is compared in the size that
// the upload has, whatever the plan is by now.
func TestCompareInThePartsOfTheRecord(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 2*testPart)
	d := r.deliveryOf(t, path)
	d.partSize = testPart / 2
	parts, err := d.readParts(d.partSize, withCRC|withMD5)
	if err != nil {
		t.Fatal(err)
	}
	etag := joinedETag(parts)
	if s := d.compare(&s3.HeadObjectOutput{ETag: &etag, ContentLength: aws.Int64(2 * testPart)}, nil); len(parts) != 4 || s.is != ourObject {
		t.Errorf("%d parts, %+v", len(parts), s)
	}
}

// TestFirstUnclearAttemptCounts: the object may be that of the first.
func TestFirstUnclearAttemptCounts(t *testing.T) {
	d, first := new(delivery), time.Now()
	d.mayHaveMade(first)
	if d.mayHaveMade(first.Add(time.Minute)); !d.unclearSince.Equal(first) || !d.maybe {
		t.Errorf("since %v, want %v", d.unclearSince, first)
	}
}

// TestSomeObjectIsNotMadeByUs: what cannot be compared is no proof, be it as new as
// ours.
func TestSomeObjectIsNotMadeByUs(t *testing.T) {
	r := newRig(t)
	path, _ := r.file(t, "f", 1000)
	d, began := r.deliveryOf(t, path), time.Now()
	if _, err := r.Push(t.Context(), d.req); err != nil {
		t.Fatal(err)
	}
	s, err := d.look(nil)
	if err != nil || !d.madeByUs(s, began) {
		t.Fatalf("%+v, %v", s, err)
	}
	for _, s.is = range []standing{noObject, otherObject, someObject} {
		if d.madeByUs(s, began) {
			t.Errorf("standing %d counts as made by us", s.is)
		}
	}
}

// TestQuestionsThatGoFirst: a store that does not answer what a run asks before it
// sends anything is asked once, and the push gives its place back.
func TestQuestionsThatGoFirst(t *testing.T) {
	for name, ask := range map[string]func(*delivery, context.Context) error{
		"whether there is an object": func(d *delivery, ctx context.Context) error {
			d.req.Overwrite = new(bool)
			_, err := d.create(ctx)
			return err
		},
		"whether it was made in one request": func(d *delivery, ctx context.Context) error {
			d.unclearSince = time.Now()
			_, err := d.wasMade(ctx)
			return err
		},
		"whether it was made of parts": func(d *delivery, ctx context.Context) error {
			d.forget()
			d.upload = d.newUpload()
			_, err := d.lookForCompleted(ctx)
			return err
		},
		"whether an orphan was completed": func(d *delivery, ctx context.Context) error {
			d.forget()
			up := d.newUpload()
			up.ID, up.CompletedAt = "u", time.Now().Add(-2*completionTakes)
			return d.abortUnlessCompleted(ctx, up)
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			path, _ := r.file(t, "f", 2*testPart)
			d := r.deliveryOf(t, path)
			heads := 0
			r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
				if req.Method == http.MethodHead {
					heads++
				}
				w.WriteHeader(http.StatusServiceUnavailable)
			})
			if err := ask(d, t.Context()); answerOf(err).Status != http.StatusServiceUnavailable || heads != 1 {
				t.Errorf("%v, the store was asked for the object %d times", err, heads)
			}
			if n := d.mostAttempts(); n == 0 {
				t.Error("that is no attempt")
			}
			over, cancel := context.WithCancel(t.Context())
			r.spoil(func(w http.ResponseWriter, req *http.Request, _ http.Handler) {
				cancel()
				<-req.Context().Done()
			})
			if err := ask(d, over); !errors.Is(err, context.Canceled) {
				t.Errorf("once the run has ended: %v", err)
			}
		})
	}
}
