package journal

import (
	"encoding/binary"
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

// fullUpload and fullPart have everything in them.
func fullUpload() *Upload {
	u := exampleUpload(push.NewID(time.UnixMilli(1), 2, [8]byte{3}), 123456789)
	u.Key, u.Device, u.Inode, u.Size = "a/\xff not UTF-8", 1<<64-1, 1<<64-2, 5<<40
	u.CompletedAt, u.Probe, u.ChangedAt = u.BegunAt.Add(time.Hour), true, u.BegunAt.Add(-time.Hour)
	return u
}

func fullPart() *Part {
	return &Part{
		Number: 10_000, Size: 5 << 30, ETag: "etag", CRC64NVME: 1<<64 - 1,
		MD5: []byte("0123456789abcdef"), SHA256: []byte("0123456789abcdef0123456789abcdef"), Algorithm: "sha256", By: "store", Told: true,
	}
}

func TestUploadSurvivesEncoding(t *testing.T) {
	for name, change := range map[string]func(*Upload){
		"everything":           func(*Upload) {},
		"an intent":            func(u *Upload) { u.ID = "" },
		"next to nothing":      func(u *Upload) { *u = Upload{Push: u.Push, BegunAt: u.BegunAt} },
		"a file of 1970":       func(u *Upload) { u.ModTime = time.Unix(0, 0).UTC() },
		"a file of the year 1": func(u *Upload) { u.ModTime = time.Time{}.Add(time.Nanosecond).UTC() },
	} {
		t.Run(name, func(t *testing.T) {
			want := fullUpload()
			change(want)
			key := uploadKey(want)
			got, err := decodeUpload(key, encodeUpload(key, want))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

func TestPartSurvivesEncoding(t *testing.T) {
	for name, want := range map[string]*Part{
		"everything":      fullPart(),
		"next to nothing": {Number: 1},
	} {
		t.Run(name, func(t *testing.T) {
			key := partKey(fullUpload(), want.Number)
			got, err := decodePart(key, encodePart(key, want))
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("got  %+v, %v\nwant %+v", got, err, want)
			}
		})
	}
}

// TestUploadFieldNumbers pins the numbers that the package comment promises.
func TestUploadFieldNumbers(t *testing.T) {
	u := fullUpload()
	for what, test := range map[string]struct {
		value []byte
		want  int
	}{
		"an upload": {encodeUpload(uploadKey(u), u), 15},
		"a part":    {encodePart(partKey(u, 1), fullPart()), 8},
	} {
		var got, want []string
		for body := test.value[sumSize:]; len(body) > 0; {
			f, n := nextField(body)
			if n < 0 {
				t.Fatal(protowire.ParseError(n))
			}
			got = append(got, fmt.Sprint(f.number))
			body = body[n:]
		}
		for n := range test.want {
			want = append(want, fmt.Sprint(n+1))
		}
		if !slices.Equal(got, want) {
			t.Errorf("the fields of %s are %s, want %s", what, got, want)
		}
	}
}

// TestUploadOfALaterVersion: fields may be added without another format.
func TestUploadOfALaterVersion(t *testing.T) {
	u, p := fullUpload(), fullPart()
	more := func(key, value []byte) []byte {
		value = protowire.AppendString(protowire.AppendTag(value, 1000, protowire.BytesType), "new")
		seal(value, key)
		return value
	}
	key := uploadKey(u)
	if got, err := decodeUpload(key, more(key, encodeUpload(key, u))); err != nil || !reflect.DeepEqual(got, u) {
		t.Errorf("got %+v, %v", got, err)
	}
	key = partKey(u, p.Number)
	if got, err := decodePart(key, more(key, encodePart(key, p))); err != nil || !reflect.DeepEqual(got, p) {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestDecodeUploadRefuses(t *testing.T) {
	u := fullUpload()
	key := uploadKey(u)
	good := encodeUpload(key, u)
	flipped := slices.Clone(good)
	flipped[20] ^= 1
	cut := append(make([]byte, sumSize), 1<<3|2, 5, 'a')
	seal(cut, key)
	for what, test := range map[string]struct{ key, value []byte }{
		"nothing":        {key, nil},
		"a flipped bit":  {key, flipped},
		"another's":      {partKey(u, 1)[4:], good},
		"a short key":    {key[:23], good},
		"a part's key":   {partKey(u, 1), good},
		"a cut field":    {key, cut},
		"half of it":     {key, good[:len(good)/2]},
		"without a key":  {nil, good},
		"another moment": {binary.BigEndian.AppendUint64(key[:16:16], 1), good},
	} {
		if got, err := decodeUpload(test.key, test.value); err == nil {
			t.Errorf("%s: decoded %+v", what, got)
		}
	}
	if _, err := decodeUpload(key, flipped); !errors.Is(err, errSum) || !strings.Contains(err.Error(), u.Push.String()) {
		t.Errorf("a flipped bit gives %v", err)
	}
}

func TestDecodePartRefuses(t *testing.T) {
	u, p := fullUpload(), fullPart()
	key := partKey(u, p.Number)
	good := encodePart(key, p)
	flipped := slices.Clone(good)
	flipped[10] ^= 1
	for what, test := range map[string]struct{ key, value []byte }{
		"nothing":         {key, nil},
		"a flipped bit":   {key, flipped},
		"another's":       {partKey(u, 1), good},
		"an upload's key": {uploadKey(u), good},
		"without a key":   {nil, good},
	} {
		if got, err := decodePart(test.key, test.value); err == nil {
			t.Errorf("%s: decoded %+v", what, got)
		}
	}
}

// sealedAs is a value with this body, sealed under a key.
func sealedAs(key, body []byte) []byte {
	value := append(make([]byte, sumSize), body...)
	seal(value, key)
	return value
}

func FuzzDecodeUpload(f *testing.F) {
	key := uploadKey(fullUpload())
	for _, u := range []*Upload{fullUpload(), exampleUpload(push.ID{}, 1), {}} {
		f.Add(encodeUpload(key, u)[sumSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		u, err := decodeUpload(key, sealedAs(key, body))
		if err != nil {
			return
		}
		// What was read can be written, and is the same when it is read again.
		again, err := decodeUpload(key, encodeUpload(key, u))
		if err != nil || !sameUpload(u, again) {
			t.Errorf("%+v became %+v, %v", u, again, err)
		}
	})
}

// sameUpload compares two that were read. Times that no s3daemon writes may have
// changed.
func sameUpload(a, b *Upload) bool {
	x, y := *a, *b
	for _, u := range []*Upload{&x, &y} {
		u.ModTime, u.CompletedAt, u.ChangedAt = time.Time{}, time.Time{}, time.Time{}
	}
	return x == y
}

func FuzzDecodePart(f *testing.F) {
	key := partKey(fullUpload(), 7)
	for _, p := range []*Part{fullPart(), examplePart(1), {}} {
		f.Add(encodePart(key, p)[sumSize:])
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		p, err := decodePart(key, sealedAs(key, body))
		if err != nil {
			return
		}
		again, err := decodePart(key, encodePart(key, p))
		if err != nil || fmt.Sprintf("%+v", p) != fmt.Sprintf("%+v", again) {
			t.Errorf("%+v became %+v, %v", p, again, err)
		}
	})
}
