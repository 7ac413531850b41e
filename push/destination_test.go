package push_test

import (
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

// long returns a text of n bytes.
func long(n int) string { return strings.Repeat("k", n) }

func TestParseDestination(t *testing.T) {
	for _, tt := range []struct {
		name, in    string
		bucket, key string
	}{
		{"uri", "s3://bucket/key", "bucket", "key"},
		{"alias", "store/bucket/key", "bucket", "key"},
		{"alias, key with slashes", "store/bucket/2026/11/a.fits", "bucket", "2026/11/a.fits"},
		{"spaces", "s3://bucket/first light.fits", "bucket", "first light.fits"},
		{"spaces at both ends", "s3://bucket/ k ", "bucket", " k "},
		{"plus", "s3://bucket/a+b", "bucket", "a+b"},
		{"percent", "s3://bucket/100%", "bucket", "100%"},
		{"percent code is not decoded", "s3://bucket/a%2Fb%20c", "bucket", "a%2Fb%20c"},
		{"query and fragment are key", "s3://bucket/a?b=c#d", "bucket", "a?b=c#d"},
		{"a URI in the key", "s3://bucket/s3://other/x", "bucket", "s3://other/x"},
		{"double slash", "s3://bucket/a//b", "bucket", "a//b"},
		{"key begins with a slash", "s3://bucket//key", "bucket", "/key"},
		{"only slashes", "s3://bucket///", "bucket", "//"},
		{"trailing slash", "s3://bucket/dir/", "bucket", "dir/"},
		{"UTF-8", "s3://bucket/Größe/日本/🔭", "bucket", "Größe/日本/🔭"},
		{"1024 bytes", "s3://bucket/" + long(1024), "bucket", long(1024)},
		{"1024 bytes, 512 characters", "s3://bucket/" + strings.Repeat("é", 512), "bucket", strings.Repeat("é", 512)},
		{"1024 bytes by alias", "a/bucket/" + long(1024), "bucket", long(1024)},
		{"dots in a name", "s3://bucket/..a/b../...", "bucket", "..a/b../..."},
		{"dot", "s3://bucket/./a", "bucket", "./a"},
		{"up and down again", "s3://bucket/a/../b", "bucket", "a/../b"},
		{"up as far as down", "s3://bucket/a/b/../../c", "bucket", "a/b/../../c"},
		{"shortest bucket", "s3://abc/k", "abc", "k"},
		{"longest bucket", "s3://" + long(255) + "/k", long(255), "k"},
		{"bucket with every kind of character", "s3://My_Raw-data.v1/k", "My_Raw-data.v1", "k"},
		{"Ceph tenant", "s3://rubin:raw/k", "rubin:raw", "k"},
		{"Ceph tenant by alias", "ceph/rubin:raw/k", "rubin:raw", "k"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := push.ParseDestination(tt.in)
			if err != nil {
				t.Fatalf("ParseDestination(%q): %v", tt.in, err)
			}
			if want := (push.Destination{Bucket: tt.bucket, Key: tt.key}); got != want {
				t.Errorf("ParseDestination(%q) = %+v, want %+v", tt.in, got, want)
			}
			if want := "s3://" + tt.bucket + "/" + tt.key; got.String() != want {
				t.Errorf("String() = %q, want %q", got, want)
			}
		})
	}
}

func TestParseDestinationRefuses(t *testing.T) {
	for _, tt := range []struct{ name, in, says string }{
		{"nothing", "", "neither bucket nor key"},
		{"one word", "bucket-only", "neither bucket nor key"},
		{"no scheme's slashes", "s3:bucket", "neither bucket nor key"},
		{"uri without key", "s3://bucket", "no key"},
		{"uri with an empty key", "s3://bucket/", "no key"},
		{"uri without bucket", "s3:///key", "no bucket"},
		{"scheme alone", "s3://", "no bucket"},
		{"scheme and slash", "s3:///", "no bucket"},
		{"alias without key", "store/bucket", "no key"},
		{"alias with an empty key", "store/bucket/", "no key"},
		{"alias without bucket", "store//key", "no bucket"},
		{"alias alone", "store/", "no bucket"},
		{"slash", "/", "no bucket"},
		{"slashes", "//", "no bucket"},
		{"https", "https://s3.example.org/bucket/key", "no bucket"},
		{"s3a", "s3a://bucket/key", "no bucket"},
		{"upper-case scheme", "S3://bucket/key", "no bucket"},
		{"file", "file:///data/a.fits", "no bucket"},

		{"1025 bytes", "s3://bucket/" + long(1025), "1025 bytes long"},
		{"1025 bytes, 513 characters", "s3://bucket/" + strings.Repeat("é", 512) + "k", "1025 bytes long"},
		{"up at once", "s3://bucket/../k", "leaves the bucket"},
		{"nothing but up", "s3://bucket/..", "leaves the bucket"},
		{"further up than down", "s3://bucket/a/../../b/c/d", "leaves the bucket"},
		{"NUL", "s3://bucket/a\x00b", "control character"},
		{"newline", "s3://bucket/a\nb", "control character"},
		{"tab", "s3://bucket/a\tb", "control character"},
		{"last control character below space", "s3://bucket/\x1f", "control character"},
		{"DEL", "s3://bucket/\x7f", "control character"},
		{"invalid UTF-8", "s3://bucket/\xff", "not valid UTF-8"},
		{"half a character", "s3://bucket/" + "é"[:1], "not valid UTF-8"},
		{"surrogate", "s3://bucket/\xed\xa0\x80", "not valid UTF-8"},

		{"bucket of 2", "s3://ab/k", "3 to 255"},
		{"bucket of 256", "s3://" + long(256) + "/k", "3 to 255"},
		{"bucket begins with a hyphen", "s3://-abc/k", "begin and end"},
		{"bucket ends with a dot", "s3://abc./k", "begin and end"},
		{"bucket begins with a colon", "s3://:abc/k", "begin and end"},
		{"bucket ends with an underscore", "s3://abc_/k", "begin and end"},
		{"bucket with a space", "s3://my bucket/k", `' '`},
		{"bucket with a percent code", "s3://my%20bucket/k", `'%'`},
		{"bucket with a query", "s3://bucket?x/k", `'?'`},
		{"bucket with user and host", "s3://user@bucket/k", `'@'`},
		{"bucket with NUL", "s3://buc\x00ket/k", `'\x00'`},
		{"bucket with a newline", "s3://buc\nket/k", `'\n'`},
		{"bucket in another script", "s3://bücket/k", "has the character"},
		{"bucket of invalid UTF-8", "s3://buc\xffket/k", "has the character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := push.ParseDestination(tt.in)
			if err == nil {
				t.Fatalf("ParseDestination(%q) = %+v, want an error", tt.in, got)
			}
			if got != (push.Destination{}) {
				t.Errorf("ParseDestination(%q) = %+v beside an error", tt.in, got)
			}
			checkError(t, err, push.InvalidDestination)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ParseDestination(%q) says %q, want %q in it", tt.in, err, tt.says)
			}
		})
	}
}

// checkError checks that the error is one that a caller can be told: a
// *push.Error with one of these codes and a detail of one short line.
func checkError(t *testing.T, err error, codes ...push.Code) {
	t.Helper()
	var e *push.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is a %T, want a *push.Error", err, err)
	}
	known := false
	for _, c := range codes {
		known = known || e.Code == c
	}
	if !known {
		t.Errorf("code %q (%s), want one of %q", e.Code, e.Detail, codes)
	}
	checkLine(t, e.Detail)
}

// checkLine checks that s is one line that can be printed anywhere.
func checkLine(t *testing.T, s string) {
	t.Helper()
	// Two quoted texts at most, each byte of which can need six.
	if s == "" || len(s) > 2*6*80+300 {
		t.Errorf("a text of %d bytes is no line to read", len(s))
	}
	if !utf8.ValidString(s) {
		t.Errorf("%q is not UTF-8", s)
	}
	if i := strings.IndexFunc(s, func(r rune) bool {
		return r < ' ' || 0x7f <= r && r < 0xa0 || r == '\u2028' || r == '\u2029'
	}); i >= 0 {
		t.Errorf("%q breaks the line at byte %d", s, i)
	}
}

func FuzzParseDestination(f *testing.F) {
	for _, s := range []string{
		"", "/", "//", "s3://", "s3:///key", "s3://bucket", "s3://bucket/", "s3://bucket/key", "alias/bucket/key",
		"s3://bucket/a b+c%2F?d#e", "s3://bucket//x//", "s3://bucket/../k", "s3://bucket/a/../b", "s3://rubin:raw/Größe/🔭",
		"s3://bucket/\xff", "s3://bucket/\u2028\u0085", "s3://b\x00cket/k", "s3:/bucket/key", "s3://bucket/" + long(1025),
		"s3://" + strings.Repeat("\x80", 100) + "/k", strings.Repeat("🔭", 30),
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := push.ParseDestination(s)
		if err != nil {
			checkError(t, err, push.InvalidDestination)
			if d != (push.Destination{}) {
				t.Errorf("%+v beside an error", d)
			}
			return
		}
		again, err := push.ParseDestination(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %+v, which prints as %q and reads back as %+v, %v", s, d, d, again, err)
		}
		byAlias, err := push.ParseDestination("alias/" + d.Bucket + "/" + d.Key)
		if err != nil || byAlias != d {
			t.Errorf("%+v by alias is %+v, %v", d, byAlias, err)
		}
		if !strings.HasSuffix(s, d.Bucket+"/"+d.Key) {
			t.Errorf("%q does not have %+v to the letter", s, d)
		}
		if d.Key == "" || len(d.Key) > push.MaxKeyBytes || !utf8.ValidString(d.Key) || strings.ContainsAny(d.Key, "\x00\r\n") {
			t.Errorf("key %q is one that S3 cannot hold", d.Key)
		}
		if len(d.Bucket) < 3 || strings.ContainsAny(d.Bucket, "/ %?#@\x00\r\n") {
			t.Errorf("bucket %q is none", d.Bucket)
		}
	})
}

// TestDetailsSpeakOfWhatWasWritten has mistakes whose message once named
// something that the caller had not written.
func TestDetailsSpeakOfWhatWasWritten(t *testing.T) {
	for destination, says := range map[string]string{
		"s3://bücket/k":                                `'ü'`,
		"s3://bucket/a\uFFFEb":                         "no characters",
		"s3://bucket/./../k":                           "leaves the bucket",
		"s3://bucket//../../k":                         "leaves the bucket",
		"s3://bucket/a/..":                             "the bucket itself",
		"s3://bucket/a/../":                            "the bucket itself",
		"s3://" + strings.Repeat("\x80", 100) + "/key": `\x80`,
	} {
		_, err := push.ParseDestination(destination)
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", destination, err, says)
		}
	}
}
