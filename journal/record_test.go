package journal

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/lsst-dm/s3daemon/push"
)

// full is a record with everything in it.
func full() *Record {
	return &Record{
		State: push.Failed,
		Request: push.Request{
			File: "/data/\xff not UTF-8", Destination: "s3://b/k", Label: "night-1",
			ContentType: "image/fits", StorageClass: "STANDARD_IA", Encryption: "aws:kms", KMSKeyID: "alias/raw", Overwrite: new(bool),
			Metadata: map[string]string{"a": "1", "empty": "", "zz": strings.Repeat("x", 300)},
			Tags:     map[string]string{"tag": "value"},
		},
		Size: 1 << 42, ModTime: time.Unix(1795600000, 999999999).UTC(), Device: 1<<64 - 1, Inode: 1<<64 - 2,
		AcceptedAt: time.Unix(1795600001, 1).UTC(), RetriedAt: time.Unix(1795600002, 2).UTC(),
		IdempotencyKey: "key", RequestHash: [32]byte{1, 2, 31: 3}, Traceparent: "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
		FailedAttempts: []push.Attempt{
			{At: time.Unix(1795600003, 5).UTC(), Seconds: 1.0 / 3, Operation: "UploadPart", Part: 10000, Reason: "5xx", Detail: "503 Service Unavailable"},
			{At: time.Unix(1795600004, 0).UTC(), Reason: "file_changed", Detail: "the file"},
		},
		StartedAt: time.Unix(1795600003, 3).UTC(), FinishedAt: time.Unix(1795600004, 4).UTC(),
		Attempts: 5, Parts: 10000, ETag: "etag", VersionID: "v",
		Checksum: &push.Checksum{Algorithm: "crc64nvme", Value: "AAAAAAAAAAA="},
		Verified: &push.Verified{What: "parts", Algorithm: "md5", By: "daemon", Value: "d41d8cd98f00b204e9800998ecf8427e-2"},
		Spent:    &Spent{Connect: 1, Send: 1<<62 + 1, Store: 3 * time.Second},
		Problem: &push.Problem{Code: push.StoreRefused, Detail: "no",
			Store: &push.StoreAnswer{Status: 403, Code: "AccessDenied", Message: "Access Denied", RequestID: "r"}},
	}
}

func TestRecordSurvivesEncoding(t *testing.T) {
	tests := map[string]func(r *Record){
		"everything":               func(*Record) {},
		"a queued one":             func(r *Record) { *r = *example(7) },
		"nothing but a state":      func(r *Record) { *r = Record{State: push.Cancelled} },
		"a file of 1970":           func(r *Record) { r.ModTime = time.Unix(0, 0).UTC() },
		"an empty problem":         func(r *Record) { r.Problem = &push.Problem{} },
		"an empty answer":          func(r *Record) { r.Problem.Store = &push.StoreAnswer{} },
		"a file of the year 1":     func(r *Record) { r.ModTime = time.Time{}.Add(time.Nanosecond).UTC() },
		"a file of the year 9999":  func(r *Record) { r.ModTime = time.Date(9999, 12, 31, 23, 59, 59, 999999999, time.UTC) },
		"a file from before 1970":  func(r *Record) { r.ModTime = time.Unix(-5, 5).UTC() },
		"of an earlier version":    func(r *Record) { r.Spent = nil },
		"never sent":               func(r *Record) { r.Spent = &Spent{} },
		"a checksum without value": func(r *Record) { r.Checksum = &push.Checksum{Algorithm: "crc64nvme"} },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			want := full()
			change(want)
			want.ID = push.NewID(time.UnixMilli(1), 2, [8]byte{3})
			value := encode(want, want.State)
			seal(value, want.ID[:])
			got, err := decode(want.ID, value)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v\nwant %+v", got, want)
			}
			b := brief(want.ID, value)
			if b.ID != want.ID || b.State != want.State || string(b.Destination) != want.Request.Destination || string(b.Label) != want.Request.Label || string(b.File) != want.Request.File {
				t.Errorf("brief is %+v", b)
			}
			if got := string(idempotencyKey(value)); got != want.IdempotencyKey {
				t.Errorf("idempotency key is %q", got)
			}
			if got := finishedAt(value); !got.Equal(want.FinishedAt) {
				t.Errorf("finished at %v", got)
			}
		})
	}
}

// TestUnencodedProblem: what package api makes anew is not kept.
func TestUnencodedProblem(t *testing.T) {
	r := full()
	r.Problem.Title, r.Problem.Status, r.Problem.ID = "Bad Gateway", 502, "id"
	if !slices.Equal(encode(r, r.State), encode(full(), push.Failed)) {
		t.Error("title, status or id of the problem are in the record")
	}
}

// TestFieldNumbers pins the numbers that the package comment promises, by a
// value as an s3daemon of format 1 has written it.
func TestFieldNumbers(t *testing.T) {
	var numbers []string
	for body := encode(full(), push.Failed)[sumSize:]; len(body) > 0; {
		f, n := nextField(body)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		numbers = append(numbers, fmt.Sprint(f.number))
		body = body[n:]
	}
	want := "1 2 3 4 5 6 6 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30 31 32 33 34 35 36 37 38 39 40 41 42 43 43"
	if got := strings.Join(numbers, " "); got != want {
		t.Errorf("fields are %s\nwant      %s", got, want)
	}
}

// TestUnknownField: a later version may add fields without another format.
func TestUnknownField(t *testing.T) {
	value := encode(example(1), push.Queued)
	value = protowire.AppendVarint(protowire.AppendTag(value, 1000, protowire.VarintType), 5)
	value = protowire.AppendString(protowire.AppendTag(value, 1001, protowire.BytesType), "new")
	value = protowire.AppendFixed32(protowire.AppendTag(value, 1002, protowire.Fixed32Type), 5)
	var id push.ID
	seal(value, id[:])
	got, err := decode(id, value)
	if err != nil || !reflect.DeepEqual(got, example(1)) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	id := push.NewID(time.UnixMilli(1), 2, [8]byte{3})
	sealed := func(b []byte) []byte {
		b = append(make([]byte, sumSize), b...)
		seal(b, id[:])
		return b
	}
	good := encode(full(), push.Failed)
	seal(good, id[:])
	flipped := slices.Clone(good)
	flipped[20] ^= 1
	other := slices.Clone(good)
	seal(other, make([]byte, 16))
	tests := map[string][]byte{
		"nothing":            nil,
		"a short value":      {1, 2, 3},
		"a flipped bit":      flipped,
		"another's value":    other,
		"half of it":         good[:len(good)/2],
		"no state":           sealed(nil),
		"an unknown state":   sealed([]byte{1 << 3, 9}),
		"a cut field":        sealed([]byte{1 << 3, 1, 2<<3 | 2, 5, 'a'}),
		"a short hash":       sealed([]byte{1 << 3, 1, 17<<3&0x7f | 0x80 | 2, 1, 1, 'a'}),
		"a pair that is cut": sealed([]byte{1 << 3, 1, 6<<3 | 2, 2, 1<<3 | 2, 5}),
	}
	for name, value := range tests {
		t.Run(name, func(t *testing.T) {
			if r, err := decode(id, value); err == nil {
				t.Errorf("decoded %+v", r)
			}
		})
	}
	if _, err := decode(id, flipped); !errors.Is(err, errSum) {
		t.Errorf("a flipped bit gives %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range []*Record{full(), example(1), {State: push.Queued}} {
		f.Add(encode(r, r.State)[sumSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var id push.ID
		value := append(make([]byte, sumSize), body...)
		seal(value, id[:])
		brief(id, value)
		idempotencyKey(value)
		finishedAt(value)
		r, err := decode(id, value)
		if err != nil {
			return
		}
		// What was read can be written, and is the same when it is read again.
		again := encode(r, r.State)
		seal(again, id[:])
		r2, err := decode(id, again)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(r2.Request, r.Request) || r2.State != r.State || r2.Size != r.Size {
			t.Errorf("%+v became %+v", r, r2)
		}
		if b := brief(id, again); b.State != r.State || string(b.Destination) != r.Request.Destination || string(b.Label) != r.Request.Label || string(b.File) != r.Request.File {
			t.Errorf("of %+v the brief says %+v", r, b)
		}
	})
}

func TestSequence(t *testing.T) {
	var s sequence
	at := time.UnixMilli(1795600000000)
	first := s.next(at)
	if !first.Time().Equal(at) {
		t.Errorf("the id is of %v, not of %v", first.Time(), at)
	}
	ids := []push.ID{first,
		s.next(at),                             // the same moment
		s.next(at.Add(-time.Hour)),             // the clock set back
		s.next(at.Add(300 * time.Microsecond)), // within the millisecond
		s.next(at.Add(time.Millisecond)),
	}
	for range 10_000 {
		ids = append(ids, s.next(at)) // more than a millisecond has room for
	}
	for i := 1; i < len(ids); i++ {
		if ids[i-1].Compare(ids[i]) >= 0 {
			t.Fatalf("id %d, %s, does not come before id %d, %s", i-1, ids[i-1], i, ids[i])
		}
		if id, err := push.ParseID(ids[i].String()); err != nil || id != ids[i] {
			t.Fatalf("%s is read as %s, %v", ids[i], id, err)
		}
	}
	var later sequence
	later.seen(ids[len(ids)-1])
	if id := later.next(at); id.Compare(ids[len(ids)-1]) <= 0 {
		t.Errorf("after a restart, %s does not come after %s", id, ids[len(ids)-1])
	}
}
