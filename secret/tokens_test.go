package secret

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

const one, two = "0123456789abcdef", "!~correct-horse-battery-staple=,+/"

func TestTokens(t *testing.T) {
	for _, content := range []string{one, one + "\n", one + "\n" + two, one + "\n\n" + two + "\n\n"} {
		tokens, err := ParseTokens([]byte(content))
		if err != nil {
			t.Fatalf("%q: %v", content, err)
		}
		if tokens.First() != one || !tokens.Has(one) || tokens.Has(two) != strings.Contains(content, two) {
			t.Errorf("%q: first %q, has the one %v and the other %v", content, tokens.First(), tokens.Has(one), tokens.Has(two))
		}
		for _, text := range []string{"", one[:15], one + "0", strings.ToUpper(one), one + "\n", one + "\n" + two, " " + one, one[1:] + "0", two + one} {
			if tokens.Has(text) {
				t.Errorf("%q has %q", content, text)
			}
		}
	}
	if (Tokens{}).Has("") {
		t.Error("no tokens have the empty one")
	}
}

func TestParseTokensRefuses(t *testing.T) {
	for content, says := range map[string]string{
		"":                           "no token",
		"\n\n":                       "no token",
		one[:15]:                     "line 1 has a token of fewer",
		one + "\n\nhunter2\n":        "line 3 has a token of fewer",
		one + "\r\n":                 "line 1 has white space",
		one + " \n":                  "line 1 has white space",
		"# the old one\n" + one:      "line 1 has white space",
		one + "\n" + two + "\t\n":    "line 2 has white space",
		"pässword-of-many-letters":   "line 1 has white space",
		one + "\x00":                 "line 1 has white space",
		"\xff\xfe" + one:             "line 1 has white space",
		one + "\n" + two + " " + one: "line 2 has white space",
	} {
		_, err := ParseTokens([]byte(content))
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", content, err, says)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), one[:15]) {
			t.Errorf("%q: the error has it: %v", content, err)
		}
	}
}

// TestTokensAreNotPrinted, however somebody tries.
func TestTokensAreNotPrinted(t *testing.T) {
	tokens, err := ParseTokens([]byte(one))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q", "%d", "%x"} {
		fmt.Fprintf(&out, format+" ", tokens)
		fmt.Fprintf(&out, format+" ", &tokens)
		fmt.Fprintf(&out, format+" ", struct{ T Tokens }{tokens})
	}
	for _, h := range []slog.Handler{slog.NewTextHandler(&out, nil), slog.NewJSONHandler(&out, nil)} {
		slog.New(h).Info("tokens", "value", tokens, "all", []Tokens{tokens})
	}
	if err := json.NewEncoder(&out).Encode(map[string]any{"tokens": tokens}); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", tokens.sums[0])
	if text := out.String(); strings.Contains(text, one) || strings.Contains(text, fmt.Sprintf("%x", one)) || strings.Contains(text, sum) {
		t.Errorf("%s", text)
	}
}

func FuzzParseTokens(f *testing.F) {
	for _, s := range []string{"", one, one + "\n" + two, one + "\r\n", "\n\n" + two, "x\n", "\xff"} {
		f.Add(s, one)
	}
	f.Fuzz(func(t *testing.T, content, text string) {
		tokens, err := ParseTokens([]byte(content))
		if err != nil {
			if tokens.Has(text) || tokens.First() != "" {
				t.Error("tokens beside an error")
			}
			return
		}
		want := false
		for line := range strings.SplitSeq(content, "\n") {
			want = want || line == text && line != ""
		}
		if tokens.Has(text) != want || !tokens.Has(tokens.First()) {
			t.Errorf("%q has %q: %v", content, text, !want)
		}
	})
}
