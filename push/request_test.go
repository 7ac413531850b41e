package push_test

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/textproto"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

// good is a request with every field set.
func good() push.Request {
	return push.Request{
		File: "/data/a.fits", Destination: "s3://raw/a.fits", Label: "night 12", ContentType: "image/fits",
		Metadata: map[string]string{"exposure": "12", "filter": "r"}, Tags: map[string]string{"kind": "raw"}, StorageClass: "STANDARD_IA",
		Encryption: "aws:kms", KMSKeyID: "arn:aws:kms:us-east-1:111122223333:key/1234abcd", Overwrite: new(bool),
	}
}

func TestCreateOnly(t *testing.T) {
	no, yes := false, true
	for overwrite, want := range map[*bool]bool{nil: false, &yes: false, &no: true} {
		if got := (push.Request{Overwrite: overwrite}).CreateOnly(); got != want {
			t.Errorf("create only: %v, want %v", got, want)
		}
	}
}

func TestRequestCheck(t *testing.T) {
	dest, err := good().Check()
	if want := (push.Destination{Bucket: "raw", Key: "a.fits"}); err != nil || dest != want {
		t.Errorf("Check() = %+v, %v, want %+v", dest, err, want)
	}
	dest, err = push.Request{File: "/a", Destination: "x/raw/k"}.Check()
	if want := (push.Destination{Bucket: "raw", Key: "k"}); err != nil || dest != want {
		t.Errorf("with the required fields only, Check() = %+v, %v, want %+v", dest, err, want)
	}
}

// tags returns n tags.
func tags(n int) map[string]string {
	m := make(map[string]string, n)
	for i := range n {
		m[fmt.Sprint("tag", i)] = "v"
	}
	return m
}

// TestRequestCheckFields has both sides of every limit. code is empty where the
// request is good.
func TestRequestCheckFields(t *testing.T) {
	meta := func(name, value string) func(*push.Request) {
		return func(r *push.Request) { r.Metadata = map[string]string{name: value} }
	}
	tag := func(name, value string) func(*push.Request) {
		return func(r *push.Request) { r.Tags = map[string]string{name: value} }
	}
	label := func(s string) func(*push.Request) { return func(r *push.Request) { r.Label = s } }
	media := func(s string) func(*push.Request) { return func(r *push.Request) { r.ContentType = s } }
	class := func(s string) func(*push.Request) { return func(r *push.Request) { r.StorageClass = s } }
	encrypted := func(how, key string) func(*push.Request) {
		return func(r *push.Request) { r.Encryption, r.KMSKeyID = how, key }
	}
	file := func(s string) func(*push.Request) { return func(r *push.Request) { r.File = s } }
	dest := func(s string) func(*push.Request) { return func(r *push.Request) { r.Destination = s } }

	for _, tt := range []struct {
		name string
		set  func(*push.Request)
		code push.Code
		says string
	}{
		{"no file", file(""), push.MissingField, `"file" is missing`},
		{"relative file", file("a.fits"), push.InvalidFile, "absolute"},
		{"no destination", dest(""), push.MissingField, `"destination" is missing`},
		{"no such destination", dest("raw"), push.InvalidDestination, "neither bucket nor key"},

		{"no encryption", encrypted("", ""), "", ""},
		{"encrypted by the store's key", encrypted("AES256", ""), "", ""},
		{"encrypted by KMS' default key", encrypted("aws:kms", ""), "", ""},
		{"encrypted twice by KMS", encrypted("aws:kms:dsse", "alias/raw"), "", ""},
		{"unknown encryption", encrypted("aes256", ""), push.InvalidField, "none of AES256, aws:kms, aws:kms:dsse"},
		{"a key without encryption", encrypted("", "k"), push.InvalidField, "sse_kms_key_id needs"},
		{"a key without KMS", encrypted("AES256", "k"), push.InvalidField, "sse_kms_key_id needs"},
		{"key of 2048 bytes", encrypted("aws:kms", long(2048)), "", ""},
		{"key of 2049 bytes", encrypted("aws:kms", long(2049)), push.InvalidField, "2048"},
		{"key with a space", encrypted("aws:kms", "a b"), push.InvalidField, "sse_kms_key_id"},
		{"key with a newline", encrypted("aws:kms", "a\n"), push.InvalidField, "sse_kms_key_id"},
		{"key beyond ASCII", encrypted("aws:kms", "clé"), push.InvalidField, "sse_kms_key_id"},

		{"no label", label(""), "", ""},
		{"label of 256 bytes", label(long(256)), "", ""},
		{"label of 257 bytes", label(long(257)), push.InvalidField, "256"},
		{"label of 256 bytes, 128 characters", label(strings.Repeat("é", 128)), "", ""},
		{"label of 129 two-byte characters", label(strings.Repeat("é", 129)), push.InvalidField, "256"},
		{"label of two lines", label("a\nb"), push.InvalidField, "one line"},
		{"label with DEL", label("a\x7f"), push.InvalidField, "one line"},
		{"label with the next line of Latin-1", label("a\u0085b"), push.InvalidField, "control"},
		{"label with a terminal's sequence", label("\u009b31m"), push.InvalidField, "control"},
		{"label of invalid UTF-8", label("\xff"), push.InvalidField, "UTF-8"},

		{"no content type", media(""), "", ""},
		{"content type with a parameter", media("text/plain; charset=utf-8"), "", ""},
		{"content type in capitals", media("IMAGE/FITS"), "", ""},
		{"content type without a slash", media("fits"), push.InvalidField, "image/fits"},
		{"content type without a subtype", media("image/"), push.InvalidField, "image/fits"},
		{"content type with a broken parameter", media("text/plain; charset"), push.InvalidField, "image/fits"},
		{"content type of two lines", media("text/plain\r\nX-Amz-Acl: public-read"), push.InvalidField, "image/fits"},
		{"content type that is not ASCII", media("text/plain; a=\"é\""), push.InvalidField, "image/fits"},
		{"content type that begins with a space", media(" text/plain"), push.InvalidField, "image/fits"},

		{"no metadata", func(r *push.Request) { r.Metadata = nil }, "", ""},
		{"metadata with an empty value", meta("a", ""), "", ""},
		{"metadata name of every character of a token", meta("aZ09!#$%&'*+-.^_`|~", "v"), "", ""},
		{"metadata without a name", meta("", "v"), push.InvalidField, `""`},
		{"metadata name with a space", meta("a b", "v"), push.InvalidField, `"a b"`},
		{"metadata name with a colon", meta("a:b", "v"), push.InvalidField, `"a:b"`},
		{"metadata name with a newline", meta("a\nb", "v"), push.InvalidField, `"a\nb"`},
		{"metadata name that is not ASCII", meta("é", "v"), push.InvalidField, `"é"`},
		{"metadata value with spaces inside", meta("a", "b  c"), "", ""},
		{"metadata value of all printable ASCII", meta("a", "!\"#$%&'()*+,-./09:;<=>?@AZ[\\]^_`az{|}~"), "", ""},
		{"metadata value that begins with a space", meta("a", " b"), push.InvalidField, `"a"`},
		{"metadata value that ends with a space", meta("a", "b "), push.InvalidField, `"a"`},
		{"metadata value of two lines", meta("a", "b\r\nc"), push.InvalidField, `"a"`},
		{"metadata value with a tab", meta("a", "b\tc"), push.InvalidField, `"a"`},
		{"metadata value that is not ASCII", meta("a", "é"), push.InvalidField, "printable ASCII"},
		{"metadata of 2048 bytes", meta("name", long(2044)), "", ""},
		{"metadata of 2049 bytes", meta("name", long(2045)), push.InvalidField, "2048"},
		{"metadata of 2049 bytes in two", func(r *push.Request) {
			r.Metadata = map[string]string{"a": long(1023), "b": long(1024)}
		}, push.InvalidField, "2048"},

		{"no tags", func(r *push.Request) { r.Tags = nil }, "", ""},
		{"10 tags", func(r *push.Request) { r.Tags = tags(10) }, "", ""},
		{"11 tags", func(r *push.Request) { r.Tags = tags(11) }, push.InvalidField, "10 tags"},
		{"tag with an empty value", tag("a", ""), "", ""},
		{"tag of the store's own", tag("aws:owner", "v"), push.InvalidField, "begin with aws:"},
		{"tag of the store's own, in capitals", tag("AWS:owner", "v"), push.InvalidField, "begin with aws:"},
		{"tag whose name goes on from that", tag("aws", "v"), "", ""},
		{"tag without a name", tag("", "v"), push.InvalidField, `""`},
		{"tag name of 128 characters", tag(strings.Repeat("é", 128), "v"), "", ""},
		{"tag name of 129 characters", tag(strings.Repeat("é", 129), "v"), push.InvalidField, "128"},
		{"tag value of 256 characters", tag("a", strings.Repeat("é", 256)), "", ""},
		{"tag value of 257 characters", tag("a", strings.Repeat("é", 257)), push.InvalidField, "256"},
		{"tag name with a newline", tag("a\n", "v"), push.InvalidField, `"a\n"`},
		{"tag value with NUL", tag("a", "\x00"), push.InvalidField, `"a"`},
		{"tag name of invalid UTF-8", tag("\xff", "v"), push.InvalidField, `"\xff"`},
		{"tag value of invalid UTF-8", tag("a", "\xff"), push.InvalidField, `"a"`},

		{"no storage class", class(""), "", ""},
		{"storage class of 64", class(strings.Repeat("A", 64)), "", ""},
		{"storage class of 65", class(strings.Repeat("A", 65)), push.InvalidField, "64"},
		{"storage class with every kind of character", class("AZ09_-"), "", ""},
		{"storage class in small letters", class("standard"), push.InvalidField, "STANDARD_IA"},
		{"storage class with a space", class("A B"), push.InvalidField, "STANDARD_IA"},
		{"storage class that is not ASCII", class("É"), push.InvalidField, "STANDARD_IA"},
		{"storage class of two lines", class("A\nB"), push.InvalidField, "STANDARD_IA"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := good()
			tt.set(&r)
			dest, err := r.Check()
			if tt.code == "" {
				if err != nil || dest.Bucket != "raw" {
					t.Errorf("Check() = %+v, %v, want no error", dest, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("Check() = %+v, want %s", dest, tt.code)
			}
			if dest != (push.Destination{}) {
				t.Errorf("%+v beside an error", dest)
			}
			checkError(t, err, tt.code)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the detail is %q, want %q in it", err, tt.says)
			}
		})
	}
}

// TestRequestCheckIsStable: of several mistakes the same one is always named,
// though maps have no order.
func TestRequestCheckIsStable(t *testing.T) {
	r := good()
	r.Metadata = map[string]string{"c ": "", "a ": "", "b ": ""}
	_, first := r.Check()
	for range 50 {
		if _, err := r.Check(); err.Error() != first.Error() {
			t.Fatalf("once %q, once %q", first, err)
		}
	}
}

func TestCheckPath(t *testing.T) {
	for _, tt := range []struct {
		name, path, says string // says is empty for a good path
	}{
		{"file", "/data/a.fits", ""},
		{"root", "/", ""},
		{"spaces", "/data/first light .fits", ""},
		{"UTF-8", "/data/Größe/🔭", ""},
		{"not UTF-8", "/data/\xff", ""},
		{"4096 bytes", "/" + long(4095), ""},
		{"4097 bytes", "/" + long(4096), "4097 bytes long"},
		{"empty", "", "absolute"},
		{"relative", "data/a.fits", "absolute"},
		{"dot", "./a.fits", "absolute"},
		{"home", "~/a.fits", "absolute"},
		{"URL", "file:///data/a.fits", "absolute"},
		{"space before the slash", " /data/a.fits", "absolute"},
		{"NUL", "/data/a\x00b", "control character"},
		{"newline", "/data/a\nb", "control character"},
		{"newline at the end", "/data/a\n", "control character"},
		{"carriage return", "/data/a\r", "control character"},
		{"DEL", "/data/\x7f", "control character"},
		{"escape", "/data/\x1b[31m", "control character"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := push.CheckPath(tt.path)
			if tt.says == "" {
				if err != nil {
					t.Errorf("CheckPath(%q): %v", tt.path, err)
				}
				return
			}
			if err == nil {
				t.Fatalf("CheckPath(%q) = nil, want an error", tt.path)
			}
			checkError(t, err, push.InvalidFile)
			if !strings.Contains(err.Error(), tt.says) {
				t.Errorf("CheckPath(%q) says %q, want %q in it", tt.path, err, tt.says)
			}
		})
	}
}

// FuzzRequestCheck: a request is refused with an error that can be shown, or
// everything in it survives its way as header and as JSON.
func FuzzRequestCheck(f *testing.F) {
	f.Add("/data/a.fits", "s3://raw/a.fits", "night", "image/fits", "exposure", "12", "kind", "raw", "STANDARD_IA", "aws:kms", "alias/raw")
	f.Add("", "", "", "", "", "", "", "", "", "", "")
	f.Add("a", "b", "\n", "x", " ", " ", "\xff", "\x00", "a", "b", "c d")
	f.Add("/"+long(4096), "s3://raw/"+long(1025), long(257), "a/"+long(300), long(1025), long(1025), long(129), long(257), long(65), "AES256", long(2049))
	f.Add("/\xff", "s3://raw/k", "", "text/plain; charset=\"a;b\"", "A", "b", "🔭", "🔭", "", "aws:kms:dsse", "🔭")
	f.Fuzz(func(t *testing.T, file, dest, label, media, metaName, metaValue, tagName, tagValue, class, encryption, key string) {
		r := push.Request{
			File: file, Destination: dest, Label: label, ContentType: media, StorageClass: class, Encryption: encryption, KMSKeyID: key,
			Metadata: map[string]string{metaName: metaValue, "fixed": "1"}, Tags: map[string]string{tagName: tagValue},
		}
		before := maps.Clone(r.Metadata)
		d, err := r.Check()
		if !maps.Equal(before, r.Metadata) {
			t.Errorf("Check changed the metadata to %q", r.Metadata)
		}
		if err != nil {
			checkError(t, err, push.MissingField, push.InvalidFile, push.InvalidDestination, push.InvalidField)
			return
		}
		if parsed, err := push.ParseDestination(dest); err != nil || parsed != d {
			t.Errorf("Check() = %+v, ParseDestination %+v, %v", d, parsed, err)
		}
		if err := push.CheckPath(file); err != nil {
			t.Errorf("Check passed a path that CheckPath refuses: %v", err)
		}
		checkHeader(t, "X-Amz-Meta-"+metaName, metaValue)
		checkHeader(t, "X-Amz-Storage-Class", class)
		checkHeader(t, "Content-Type", media)
		checkHeader(t, "X-Amz-Server-Side-Encryption", encryption)
		checkHeader(t, "X-Amz-Server-Side-Encryption-Aws-Kms-Key-Id", key)
		if utf8.ValidString(file + dest) { // a path and an alias need not be
			var back push.Request
			text, err := json.Marshal(r)
			if err == nil {
				err = json.Unmarshal(text, &back)
			}
			if err != nil || !reflect.DeepEqual(r, back) {
				t.Errorf("%+v is %s in JSON, which is %+v, %v", r, text, back, err)
			}
		}
	})
}

// checkHeader checks that the header arrives as it was sent.
func checkHeader(t *testing.T, name, value string) {
	t.Helper()
	sent := name + ": " + value + "\r\nHost: h\r\n\r\n"
	got, err := textproto.NewReader(bufio.NewReader(strings.NewReader(sent))).ReadMIMEHeader()
	if err != nil || len(got) != 2 || got.Get(name) != value {
		t.Errorf("the header %q arrives as %q, %v", sent, got, err)
	}
}

func TestMetadataNamesDifferInMoreThanCapitals(t *testing.T) {
	r := push.Request{File: "/a", Destination: "s3://bucket/k", Metadata: map[string]string{"Foo": "1", "foo": "2"}}
	var e *push.Error
	if _, err := r.Check(); !errors.As(err, &e) || e.Code != push.InvalidField {
		t.Errorf("Check: %v", err)
	}
}
