package api

import (
	"strings"
	"testing"
)

func TestParseTraceparent(t *testing.T) {
	const (
		trace  = "4bf92f3577b34da6a3ce929d0e0e4736"
		parent = "00f067aa0ba902b7"
		good   = "00-" + trace + "-" + parent + "-01"
	)
	for _, tt := range []struct {
		name  string
		given []string
		want  string
	}{
		{"none", nil, ""},
		{"one", []string{good}, good},
		{"not sampled", []string{"00-" + trace + "-" + parent + "-00"}, "00-" + trace + "-" + parent + "-00"},
		{"a flag of later days", []string{"00-" + trace + "-" + parent + "-03"}, "00-" + trace + "-" + parent + "-03"},
		{"blanks around it", []string{" \t" + good + " "}, good},
		{"two", []string{good, good}, ""},
		{"two in one", []string{good + "," + good}, ""},
		{"empty", []string{""}, ""},
		{"too short", []string{good[:len(good)-1]}, ""},
		{"more behind it", []string{good + "-x"}, ""},
		{"a byte behind it", []string{good + "1"}, ""},
		{"capitals", []string{strings.ToUpper(good)}, ""},
		{"no trace", []string{"00-" + strings.Repeat("0", 32) + "-" + parent + "-01"}, ""},
		{"no parent", []string{"00-" + trace + "-" + strings.Repeat("0", 16) + "-01"}, ""},
		{"no digits", []string{"00-" + strings.Replace(trace, "4", "g", 1) + "-" + parent + "-01"}, ""},
		{"flags that are none", []string{"00-" + trace + "-" + parent + "-0x"}, ""},
		{"dashes elsewhere", []string{"00-" + trace + parent + "--01"}, ""},
		{"underscores", []string{strings.ReplaceAll(good, "-", "_")}, ""},
		{"the version that is none", []string{"ff" + good[2:]}, ""},
		{"a later version", []string{"01" + good[2:]}, good},
		{"a later version with more", []string{"cc" + good[2:] + "-what-the-future-brings"}, good},
		{"a later version with more, not sampled", []string{"cc-" + trace + "-" + parent + "-f8-"}, "00-" + trace + "-" + parent + "-00"},
		{"a later version, sampled among others", []string{"cc-" + trace + "-" + parent + "-ab"}, good},
		{"a later version with a byte behind it", []string{"cc" + good[2:] + ".what-the-future-brings"}, ""},
		{"a version that is no number", []string{"0x" + good[2:]}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseTraceparent(tt.given); got != tt.want {
				t.Errorf("%q is %q, want %q", tt.given, got, tt.want)
			}
		})
	}
}

// FuzzParseTraceparent: what comes of a header is a valid one of the first
// version, which is read as itself.
func FuzzParseTraceparent(f *testing.F) {
	f.Add("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-ff-more")
	f.Fuzz(func(t *testing.T, text string) {
		got := parseTraceparent([]string{text})
		if got == "" {
			return
		}
		if len(got) != 55 || !strings.HasPrefix(got, "00-") || strings.Trim(got, "0123456789abcdef-") != "" {
			t.Errorf("%q is %q", text, got)
		}
		if again := parseTraceparent([]string{got}); again != got {
			t.Errorf("%q is read as %q", got, again)
		}
		if !strings.Contains(text, got[3:52]) {
			t.Errorf("%q is of another trace: %q", text, got)
		}
	})
}
