package push_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/lsst-dm/s3daemon/push"
)

func TestReceiptJSON(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 2, 3, 456789000, time.UTC)
	full := push.Receipt{
		ID: "0199", State: push.Done, File: "/data/Größe <1> & 2.fits", Destination: "s3://raw/k", Bucket: "raw", Key: "k",
		Size: 5 << 40, ETag: "d41d8cd9", Checksum: &push.Checksum{Algorithm: "crc64nvme", Value: "AAAAAAAAAAA="},
		VersionID: "v1", Attempts: 2, Parts: 3, AcceptedAt: at, StartedAt: at.Add(time.Second), FinishedAt: at.Add(time.Minute),
		Seconds: 60.25, Label: "night 12",
	}
	accepted := push.Receipt{ID: "0199", State: push.Queued, AcceptedAt: at}
	running := push.Receipt{ID: "0199", State: push.Running, AcceptedAt: at, StartedAt: at, SentBytes: 1}
	waiting := push.Receipt{
		ID: "0199", State: push.Queued, AcceptedAt: at, StartedAt: at, RetryAt: at.Add(time.Hour),
		Problem: push.Errorf(push.StoreUnreachable, "no answer").Problem(),
	}
	required := []string{"accepted_at", "attempts", "bucket", "destination", "file", "id", "key", "parts", "seconds", "size", "state"}
	for _, tt := range []struct {
		name    string
		receipt push.Receipt
		members []string // besides the required ones
	}{
		{"full", full, []string{"checksum", "etag", "finished_at", "label", "started_at", "version_id"}},
		{"what has not happened yet is absent", accepted, nil},
		{"running", running, []string{"sent_bytes", "started_at"}},
		{"waiting for another attempt", waiting, []string{"problem", "retry_at", "started_at"}},
		{"required members stay when they are zero", push.Receipt{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := json.Marshal(tt.receipt)
			if err != nil {
				t.Fatal(err)
			}
			var back push.Receipt
			if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, tt.receipt) {
				t.Errorf("%s reads back as %+v, %v", text, back, err)
			}
			var members map[string]any
			if err := json.Unmarshal(text, &members); err != nil {
				t.Fatal(err)
			}
			got, want := slices.Sorted(maps.Keys(members)), slices.Sorted(slices.Values(append(tt.members, required...)))
			if !slices.Equal(got, want) {
				t.Errorf("members %q, want %q", got, want)
			}
		})
	}
}

func TestProblemJSON(t *testing.T) {
	p := push.Problem{
		Title: "Bad Gateway", Status: 502, Detail: "no", Code: push.StoreRefused, ID: "0199",
		Store: &push.StoreAnswer{Status: 404, Code: "NoSuchBucket", Message: "none", RequestID: "r1"},
	}
	const want = `{"title":"Bad Gateway","status":502,"detail":"no","code":"store_refused","id":"0199",` +
		`"store":{"status":404,"code":"NoSuchBucket","message":"none","request_id":"r1"}}`
	text, err := json.Marshal(p)
	if err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
	text, err = json.Marshal(push.Problem{Title: "Not Found", Status: 404, Detail: "no", Code: push.FileNotFound})
	if want := `{"title":"Not Found","status":404,"detail":"no","code":"file_not_found"}`; err != nil || string(text) != want {
		t.Errorf("%s, %v, want %s", text, err, want)
	}
}

func TestError(t *testing.T) {
	cause := fmt.Errorf("open /data/secret: %w", fs.ErrPermission)
	err := fmt.Errorf("push: %w", &push.Error{Code: push.FileUnreadable, Detail: "may not be read", Err: cause})
	var e *push.Error
	if !errors.As(err, &e) || e.Code != push.FileUnreadable {
		t.Fatalf("errors.As found %+v", e)
	}
	if !errors.Is(err, fs.ErrPermission) {
		t.Error("the cause cannot be found")
	}
	if got := e.Error(); got != "may not be read" {
		t.Errorf("Error() = %q: the cause is for logs only", got)
	}
	e = push.Errorf(push.InvalidFile, "%d of %s", 1, "x")
	if e.Code != push.InvalidFile || e.Detail != "1 of x" || e.Unwrap() != nil {
		t.Errorf("Errorf made %+v", e)
	}
}

func TestQuote(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain", "/data/a.fits", `"/data/a.fits"`},
		{"quotes and lines", "a\"b\n", `"a\"b\n"`},
		{"letters of any script stay", "Größe", `"Größe"`},
		{"what breaks lines elsewhere", "\u2028\u0085", `"\u2028\u0085"`},
		{"invalid UTF-8", "\xff", `"\xff"`},
		{"80 bytes", long(80), `"` + long(80) + `"`},
		{"81 bytes", long(81), `"` + long(80) + `"...`},
		{"cut before a character, not in it", long(79) + "é" + long(9), `"` + long(79) + `"...`},
		{"cut after a character", long(78) + "é" + long(9), `"` + long(78) + `é"...`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := push.Quote(tt.in); got != tt.want {
				t.Errorf("Quote(%q) = %s, want %s", tt.in, got, tt.want)
			}
		})
	}
	for _, s := range []string{strings.Repeat("\x00", 1<<20), strings.Repeat("\x80", 1<<20), strings.Repeat("🔭", 1<<18)} {
		if got := push.Quote(s); len(got) > 80*6+5 || !utf8.ValidString(got) {
			t.Errorf("a quote of a megabyte has %d bytes", len(got))
		}
	}
}

func TestOneLine(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"plain", "a b", "a b"},
		{"lines", "a\nb\r\nc", "a b c"},
		{"runs", "a \t\n  b", "a b"},
		{"ends", "\n a \x00", "a"},
		{"controls", "a\x00b\x1bc\x7fd", "a b c d"},
		{"nothing but space", " \n\t\x00", ""},
		{"other scripts", "Größe 🔭", "Größe 🔭"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := push.OneLine(tt.in); got != tt.want {
				t.Errorf("OneLine(%q) = %q, want %q", tt.in, got, tt.want)
			}
		})
	}
}

func TestEnded(t *testing.T) {
	for state, want := range map[push.State]bool{
		push.Queued: false, push.Running: false, push.Done: true, push.Failed: true, push.Cancelled: true, "": false, "Done": false,
	} {
		if got := state.Ended(); got != want {
			t.Errorf("%q: Ended() = %v", state, got)
		}
	}
}

// TestProblemOfError: a push keeps what its caller is told, and not the cause.
func TestProblemOfError(t *testing.T) {
	store := &push.StoreAnswer{Status: 503, Code: "SlowDown"}
	e := &push.Error{Code: push.StoreRefused, Detail: "no", Store: store, Err: errors.New("hidden"), RetryAfter: time.Minute}
	if got, want := e.Problem(), (&push.Problem{Detail: "no", Code: push.StoreRefused, Store: store}); !reflect.DeepEqual(got, want) {
		t.Errorf("Problem() = %+v, want %+v", got, want)
	}
}

func TestPageJSON(t *testing.T) {
	for _, tt := range []struct {
		name string
		page push.Page
		want string
	}{
		{"last page", push.Page{Pushes: []push.Receipt{}}, `{"pushes":[],"pending":0}`},
		{"with another behind it", push.Page{Pushes: []push.Receipt{}, Next: "0199", Pending: 2}, `{"pushes":[],"next":"0199","pending":2}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text, err := json.Marshal(tt.page)
			if err != nil || string(text) != tt.want {
				t.Errorf("%s, %v, want %s", text, err, tt.want)
			}
			var back push.Page
			if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(back, tt.page) {
				t.Errorf("%s reads back as %+v, %v", text, back, err)
			}
		})
	}
}

// FuzzQuote: whatever a caller wrote, what is repeated of it is short, printable
// and of one line, and reads back as the beginning of what he wrote.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "a", strings.Repeat("a", 80), strings.Repeat("ü", 80), "\x00\n\x1b[2J", "\xff\xfe", strings.Repeat("\xff", 200), "\u2028\u202e", `"\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		quoted := push.Quote(s)
		if strings.ContainsFunc(quoted, func(r rune) bool { return !unicode.IsPrint(r) }) || len(quoted) > 1000 {
			t.Errorf("%q is quoted as %q", s, quoted)
		}
		back, err := strconv.Unquote(strings.TrimSuffix(quoted, "..."))
		if cut := back != s; err != nil || !strings.HasPrefix(s, back) || cut != (len(s) > 80) || cut && len(back) < 76 {
			t.Errorf("%q is quoted as %q, which is %q, %v", s, quoted, back, err)
		}
		if line := push.OneLine(s); strings.ContainsFunc(line, unicode.IsControl) || push.OneLine(line) != line {
			t.Errorf("%q is the line %q", s, line)
		}
	})
}
