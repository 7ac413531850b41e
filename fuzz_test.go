package main

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// FuzzVariable: whatever one variable holds, it is taken, or each of its
// mistakes is told in one line that begins with its name; none of the others is
// blamed for it.
func FuzzVariable(f *testing.F) {
	for i, v := range variables() {
		f.Add(i, v.fallback)
	}
	for i, text := range []string{
		"", " ", ",", "\x00", "\n", "a\nS3DAEMON_LISTEN: b", "\xff", "-1", "1e309", "NaN", "0x10", "http://me:hunter2@h", "unix:/a,unix:b", "[::1]:0", "*",
		"/a,/b/../c", "a/b,c*", "0660", "99999", "root,0", "200M", "s3://b/k", "s3://b\x1b[2J/k", strings.Repeat("9", 400), "/", "../x", "~",
	} {
		for n := range 5 {
			f.Add(i*5+n, text)
		}
	}
	f.Fuzz(func(t *testing.T, which int, text string) {
		v := variables()[int(uint(which)%uint(len(variables())))]
		var env environment
		for i, known := range variables() {
			value := known.fallback
			if known.name == v.name {
				value = text
			}
			reflect.ValueOf(&env).Elem().Field(i).SetString(value)
		}
		_, err := env.parse()
		if err == nil {
			return
		}
		for line := range strings.SplitSeq(err.Error(), "\n") {
			if name, _, found := strings.Cut(line, ": "); !found || name != v.name {
				t.Errorf("of %s = %q it is said: %q", v.name, text, line)
			}
			if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' || r == 0x7f }) {
				t.Errorf("of %s = %q it is said: %q", v.name, text, line)
			}
		}
	})
}

// FuzzBandwidth: a limit is none, or within its bounds, and reads back as itself
// in the plainest form; of a file that holds anything else nothing is repeated.
func FuzzBandwidth(f *testing.F) {
	for _, s := range []string{"", "0", "200M", "2.5G", "64k\n", "1e9", "NaN", "InfG", "-0", "0x1p40", "1_000_000", "hunter2-hunter2", "\x00", "1000.0000000001G", strings.Repeat("9", 200)} {
		f.Add(s)
	}
	path := filepath.Join(f.TempDir(), "bandwidth")
	said := func(text string) (int64, string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			f.Fatal(err)
		}
		bits, err := readBandwidth(path)
		if err != nil {
			return 0, err.Error()
		}
		return bits, ""
	}
	_, mistake := said("no bandwidth")
	_, tooLong := said(strings.Repeat("x", longestBandwidth+1))
	f.Fuzz(func(t *testing.T, text string) {
		bits, ok := bitsPerSecond(text)
		if ok && bits != 0 && (bits < leastBandwidth || bits > mostBandwidth) {
			t.Errorf("%q is %d bits per second", text, bits)
		}
		read, told := said(text)
		if told != "" && told != mistake && told != tooLong {
			t.Errorf("of a file that holds %q it is said: %s", text, told)
		}
		if len(text) <= longestBandwidth && strings.TrimSpace(text) == text && (told == "") != ok || told == "" && ok && read != bits {
			t.Errorf("%q is %d, %v, and in a file %d: %s", text, bits, ok, read, told)
		}
	})
}
