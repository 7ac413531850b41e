package api

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/lsst-dm/s3daemon/push"
)

func TestParsePrefer(t *testing.T) {
	const none = ""
	for _, tt := range []struct {
		name    string
		headers []string
		want    string // as Preference-Applied has it
	}{
		{"no header", nil, none},
		{"empty header", []string{""}, none},
		{"respond-async", []string{"respond-async"}, "respond-async"},
		{"wait", []string{"wait=10"}, "wait=10"},
		{"both", []string{"respond-async, wait=10"}, "respond-async, wait=10"},
		{"both, the other way round", []string{"wait=10,respond-async"}, "respond-async, wait=10"},
		{"two headers", []string{"respond-async", "wait=10"}, "respond-async, wait=10"},
		{"capitals", []string{"Respond-Async, WAIT=10"}, "respond-async, wait=10"},
		{"spaces", []string{" \trespond-async \t,\twait \t= \t10 "}, "respond-async, wait=10"},
		{"empty elements", []string{", ,respond-async,,"}, "respond-async"},

		{"parameters are ignored", []string{"respond-async; foo=bar; baz, wait=10;x"}, "respond-async, wait=10"},
		{"a parameter is no preference", []string{"foo; wait=10; respond-async"}, none},
		{"commas and semicolons in quotes", []string{`foo="a,respond-async;b\",wait=1", wait=10; p=",respond-async"`}, "wait=10"},
		{"nothing before the semicolon", []string{";respond-async, wait=1"}, "wait=1"},

		{"wait in quotes", []string{`wait="10"`}, "wait=10"},
		{"wait with escapes in quotes", []string{`wait="\1\0"`}, "wait=10"},
		{"empty value is none", []string{`respond-async="", wait=10`}, "respond-async, wait=10"},
		{"equals sign without a value", []string{"respond-async="}, "respond-async"},
		{"respond-async with a value", []string{"respond-async=false"}, none},
		{"wait without a value", []string{"wait"}, none},
		{"wait with an empty value", []string{`wait=""`}, none},

		{"the first wait", []string{"wait=1, wait=2"}, "wait=1"},
		{"the first wait of two headers", []string{"wait=1", "wait=2"}, "wait=1"},
		{"the first wait, though it makes no sense", []string{"wait=soon, wait=2"}, none},
		{"the first respond-async, though it makes no sense", []string{"respond-async=1, respond-async"}, none},

		{"no time", []string{"wait=0"}, "wait=0"},
		{"leading zeros", []string{"wait=0010"}, "wait=10"},
		{"negative", []string{"wait=-1"}, none},
		{"signed", []string{"wait=+1"}, none},
		{"a fraction", []string{"wait=1.5"}, none},
		{"a unit", []string{"wait=10s"}, none},
		{"hexadecimal", []string{"wait=0x10"}, none},
		{"digits of another script", []string{"wait=\"\u0661\""}, none},
		{"the longest", []string{"wait=2147483648"}, "wait=2147483648"},
		{"longer", []string{"wait=2147483649"}, "wait=2147483648"},
		{"longer than any number", []string{"wait=" + strings.Repeat("9", 100)}, "wait=2147483648"},

		{"others", []string{"return=minimal, handling=lenient, depth-noroot"}, none},
		{"names that begin like ours", []string{"respond-asynchronous, waits=1, wait-for=2"}, none},
		{"two words", []string{"respond-async now, wait=10"}, "wait=10"},
		{"two words as value", []string{"wait=10 20, respond-async"}, "respond-async"},
		{"no name", []string{"=10, respond-async"}, "respond-async"},
		{"name in quotes", []string{`"respond-async"`}, none},
		{"text after quotes", []string{`wait="10"0, respond-async`}, "respond-async"},
		{"quotes never closed", []string{`wait="10, respond-async`, "respond-async"}, "respond-async"},
		{"backslash at the end", []string{`respond-async, wait="1\`}, "respond-async"},
		{"not ASCII", []string{"respond-async\xff, wait=1é, wait=3"}, "wait=3"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := parsePrefer(tt.headers)
			if got.String() != tt.want {
				t.Errorf("parsePrefer(%q) = %q, want %q", tt.headers, got, tt.want)
			}
		})
	}
}

func TestParseIdempotencyKey(t *testing.T) {
	long := strings.Repeat("k", push.MaxIdempotencyKeyBytes)
	for _, tt := range []struct {
		name    string
		headers []string
		want    string // empty: an error, but for no header
	}{
		{"no header", nil, ""},
		{"bare", []string{"8e03978e-40d5-43dd-bc93-6894a57f9324"}, "8e03978e-40d5-43dd-bc93-6894a57f9324"},
		{"in quotes", []string{`"8e03978e"`}, "8e03978e"},
		{"space around", []string{" \t k \t"}, "k"},
		{"escapes in quotes", []string{`"a\"b\\c"`}, `a"b\c`},
		{"every visible character", []string{`!#$%&'()*+,-./09:;<=>?@AZ[\]^_` + "`" + `az{|}~"`}, `!#$%&'()*+,-./09:;<=>?@AZ[\]^_` + "`" + `az{|}~"`},
		{"one character", []string{"k"}, "k"},
		{"255 characters", []string{long}, long},
		{"255 characters in quotes", []string{`"` + long + `"`}, long},

		{"256 characters", []string{long + "k"}, ""},
		{"256 characters in quotes", []string{`"` + long + `k"`}, ""},
		{"empty", []string{""}, ""},
		{"empty quotes", []string{`""`}, ""},
		{"blank", []string{" "}, ""},
		{"a space", []string{"a b"}, ""},
		{"a space in quotes", []string{`"a b"`}, ""},
		{"a tab", []string{"a\tb"}, ""},
		{"DEL", []string{"a\x7f"}, ""},
		{"not ASCII", []string{"é"}, ""},
		{"not UTF-8", []string{"\xff"}, ""},
		{"quotes never closed", []string{`"a`}, ""},
		{"a quote alone", []string{`"`}, ""},
		{"an escaped end", []string{`"a\"`}, ""},
		{"text after quotes", []string{`"a"b`}, ""},
		{"parameters after quotes", []string{`"a";b=1`}, ""},
		{"two headers", []string{"a", "a"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseIdempotencyKey(tt.headers)
			if got != tt.want || (err != nil) != (tt.want == "" && tt.headers != nil) {
				t.Errorf("parseIdempotencyKey(%q) = %q, %v, want %q", tt.headers, got, err, tt.want)
			}
			wantInvalid(t, err)
		})
	}
}

// wantInvalid checks that an error, if it is one, can be told as what is wrong
// with a parameter.
func wantInvalid(t *testing.T, err error) {
	t.Helper()
	var e *push.Error
	if err != nil && (!errors.As(err, &e) || e.Code != push.InvalidParameter || strings.ContainsFunc(e.Detail, unicode.IsControl) || len(e.Detail) > 1000) {
		t.Errorf("error %v of type %T", err, err)
	}
}

// FuzzPrefer: whatever the headers are, what is heeded reads back as itself, and
// what follows cannot take it back.
func FuzzPrefer(f *testing.F) {
	f.Add("respond-async, wait=10", "")
	f.Add(`foo="a,b;c\"d"; bar, WAIT="7"`, "respond-async")
	f.Add(`wait="10`, `wait=99999999999999999999`)
	f.Add("respond-async=;=,;;,=\"\\", "wait=1;wait=2")
	f.Fuzz(func(t *testing.T, first, second string) {
		p := parsePrefer([]string{first, second})
		if p.wait < 0 || p.wait > maxPreferWait || p.wait%time.Second != 0 || !p.hasWait && p.wait != 0 {
			t.Errorf("%q, %q: wait %v, %v", first, second, p.hasWait, p.wait)
		}
		if again := parsePrefer([]string{p.String()}); again != p {
			t.Errorf("%q, %q: %q reads back as %q", first, second, p, again)
		}
		if p.String() != "" {
			again := parsePrefer([]string{first, second, "respond-async=no, wait=never"})
			if again != p {
				t.Errorf("%q, %q: %q becomes %q by what follows", first, second, p, again)
			}
		}
		alone := parsePrefer([]string{first})
		if alone.respondAsync && !p.respondAsync || alone.hasWait && alone.wait != p.wait {
			t.Errorf("%q gives %q, and with %q %q", first, alone, second, p)
		}
		opts, applied, err := optionsOf(http.Header{"Prefer": {first, second}}, false)
		if err != nil || applied != p.String() || (opts.Wait == push.Forever) != (applied == "") {
			t.Errorf("%q, %q: options %+v, applied %q, %v", first, second, opts, applied, err)
		}
	})
}

// FuzzIdempotencyKey: a key that is accepted is one, and is the same key in
// quotes.
func FuzzIdempotencyKey(f *testing.F) {
	for _, s := range []string{"", "k", `"k"`, `"a\"b\\"`, `"`, `"a\`, "a b", "\x00", "é", strings.Repeat("k", 256)} {
		f.Add(s)
	}
	escape := strings.NewReplacer(`"`, `\"`, `\`, `\\`)
	f.Fuzz(func(t *testing.T, header string) {
		key, err := parseIdempotencyKey([]string{header})
		wantInvalid(t, err)
		if (err == nil) != (key != "") || len(key) > push.MaxIdempotencyKeyBytes || len(key) > len(header) {
			t.Errorf("%q is the key %q, %v", header, key, err)
		}
		if strings.Trim(key, "!\"#$%&'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~") != "" {
			t.Errorf("%q is the key %q, which is not of visible ASCII", header, key)
		}
		if err == nil {
			if again, err := parseIdempotencyKey([]string{`"` + escape.Replace(key) + `"`}); again != key || err != nil {
				t.Errorf("%q is the key %q, and in quotes %q, %v", header, key, again, err)
			}
		}
	})
}
