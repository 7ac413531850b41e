package legacy

import (
	"bytes"
	"encoding/hex"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// oldModel is what the first daemon did with a line, to the letter: decode it
// as UTF-8, strip white space off the right end, split it at single spaces,
// and unpack into two. Its white space is spelled out rather than asked of a
// library, since that is where the two languages differ.
func oldModel(line string) (words [2]string, worked bool) {
	if !utf8.ValidString(line) {
		return words, false
	}
	const space = "\t\n\v\f\r\x1c\x1d\x1e\x1f \u0085\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"
	split := strings.Split(strings.TrimRight(line, space), " ")
	if len(split) != 2 {
		return words, false
	}
	return [2]string(split), true
}

// lines are what a parser of this protocol could trip over.
var lines = []string{
	"/data/a.fits raw/bucket/key",
	"/data/a.fits raw/bucket/key\r",
	"/data/a.fits raw/bucket/key \t\r",
	"/data/a.fits s3://bucket/key",
	"a b", "a  b", " a b", " b", "a ", "a", "", " ", "  ", "\t", "a\tb", "a\tb c", "a b c", "a b  ", "a b\t", "\ta b",
	"a b\u00a0", "a b\u3000\u0085", "a\u00a0b c", "a \u00a0", "a b\u200b", "a b\ufeff", "\u2003 a", "a b\x1c\x1d\x1e\x1f",
	"a b\x00", "\x00 \x00", "\xff\xfe b", "a b\xff", "a b\xa0", "a b\xc2", "Success Success", "\x7f \x7f", "é à",
}

func TestParseLine(t *testing.T) {
	tests := []struct{ line, file, destination, err string }{
		{"/data/a.fits raw/bucket/key", "/data/a.fits", "raw/bucket/key", ""},
		{"/data/a.fits raw/bucket/key \t\r", "/data/a.fits", "raw/bucket/key", ""},
		{"/d\xff x/y/\xfe", "/d\xff", "x/y/\xfe", ""}, // the old one could not
		{" b", "", "b", ""}, // the daemon's to refuse, as open("") was
		{"a\tb c", "a\tb", "c", ""},
		{"", "", "", "the request has one word: send FILE DEST and a newline"},
		{"a \u3000", "", "", "the request has one word: send FILE DEST and a newline"},
		{"my file x/y/z", "", "", "the request has 2 spaces and must have one: names with spaces cannot be sent over this port, use the HTTP interface"},
		{"a  b", "", "", "the request has 2 spaces and must have one: names with spaces cannot be sent over this port, use the HTTP interface"},
	}
	for _, test := range tests {
		file, destination, err := parseLine(test.line)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if file != test.file || destination != test.destination || text != test.err {
			t.Errorf("%q: %q %q %q", test.line, file, destination, text)
		}
	}
}

// checkParse compares the parser with the model wherever the old one worked.
// Where it did not, the parser may do better with a line that is not UTF-8,
// and must fail otherwise.
func checkParse(t *testing.T, line string) {
	words, worked := oldModel(line)
	file, destination, err := parseLine(line)
	switch {
	case worked && (err != nil || [2]string{file, destination} != words):
		t.Errorf("%q: %q %q %v, the old one: %q", line, file, destination, err, words)
	case !worked && err == nil && utf8.ValidString(line):
		t.Errorf("%q: %q %q, where the old one failed", line, file, destination)
	case err == nil && strings.Contains(file+destination, " "):
		t.Errorf("%q: a space within %q %q", line, file, destination)
	}
}

func FuzzParseLine(f *testing.F) {
	for _, line := range lines {
		f.Add(line)
	}
	f.Fuzz(checkParse)
}

// TestModel has the language of the first daemon judge the model.
func TestModel(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3")
	}
	all := lines
	for r := range rune(0x3100) {
		if r != '\n' {
			all = append(all, "a b"+string(r), "a"+string(r)+"b c")
		}
	}
	var input strings.Builder
	for _, line := range all {
		input.WriteString(hex.EncodeToString([]byte(line)) + "\n")
	}
	cmd := exec.Command(python, "-c", `
import sys
for line in sys.stdin:
    try:
        one, two = bytes.fromhex(line).decode("utf-8").rstrip().split(" ")
        print("ok", one.encode("utf-8").hex(), two.encode("utf-8").hex(), sep=",")
    except ValueError:
        print("fails")
`)
	cmd.Stdin = strings.NewReader(input.String())
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	answers := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(answers) != len(all) {
		t.Fatalf("%d answers for %d lines", len(answers), len(all))
	}
	for i, line := range all {
		want := "fails"
		if words, worked := oldModel(line); worked {
			want = "ok," + hex.EncodeToString([]byte(words[0])) + "," + hex.EncodeToString([]byte(words[1]))
		}
		if answers[i] != want {
			t.Errorf("%q: the model says %s, Python %s", line, want, answers[i])
		}
		checkParse(t, line)
	}
}

func TestReadLine(t *testing.T) {
	const most = 1000
	long := strings.Repeat("x", most)
	tests := []struct {
		name, input, line string
		err               error
	}{
		{"a line", "a b\n", "a b", nil},
		{"more after it", "a b\nc d\n\x00", "a b", nil},
		{"an empty line", "\n", "", nil},
		{"binary", "\x00\xff\x80\n", "\x00\xff\x80", nil},
		{"the longest", long + "\n", long, nil},
		{"one byte longer", long + "x\n", "", errTooLong},
		{"much longer", strings.Repeat(long, 1000), "", errTooLong},
		{"nothing", "", "", io.EOF},
		{"no newline", "a b", "", errNoNewline},
		{"the longest, no newline", long, "", errNoNewline},
	}
	readers := map[string]func(io.Reader) io.Reader{
		"whole":         func(r io.Reader) io.Reader { return r },
		"bytewise":      iotest.OneByteReader,
		"halves":        iotest.HalfReader,
		"data with EOF": iotest.DataErrReader,
	}
	for _, test := range tests {
		for name, reader := range readers {
			line, _, err := readLine(reader(strings.NewReader(test.input)), most)
			if string(line) != test.line || !errors.Is(err, test.err) {
				t.Errorf("%s, %s: %.40q, %v", test.name, name, line, err)
			}
		}
	}
	if _, _, err := readLine(iotest.TimeoutReader(strings.NewReader("a b")), most); err == nil {
		t.Error("a failing read is a line")
	}
	for input, want := range map[string]bool{"a b\n": false, "a b\n\n": true, "a b\nc": true, strings.Repeat("x", 2*most): true} {
		if _, more, _ := readLine(strings.NewReader(input), most); more != want {
			t.Errorf("%.20q: more %v", input, more)
		}
	}
	broken := errors.New("broken")
	if _, _, err := readLine(iotest.ErrReader(broken), most); !errors.Is(err, broken) {
		t.Errorf("a failing read: %v", err)
	}
}

// FuzzReadLine sends any bytes in pieces of any size: what is read never
// depends on the pieces, and never exceeds the bound.
func FuzzReadLine(f *testing.F) {
	f.Add([]byte("a b\nrest"), []byte{1, 2, 3})
	f.Add([]byte("no newline"), []byte{200})
	f.Add(bytes.Repeat([]byte("x"), 2000), []byte{0, 255})
	f.Fuzz(func(t *testing.T, input, sizes []byte) {
		const most = 700
		line, _, err := readLine(&pieces{data: input, sizes: sizes}, most)
		want, _, found := bytes.Cut(input, []byte("\n"))
		switch {
		case found && len(want) <= most:
			if err != nil || !bytes.Equal(line, want) {
				t.Errorf("%q, %v; want %q", line, err, want)
			}
		case err == nil:
			t.Errorf("%q is a line", line)
		case len(input) > most && !errors.Is(err, errTooLong):
			t.Errorf("too long: %v", err)
		}
	})
}

// pieces is a reader that gives data in pieces of the sizes given, over and
// over.
type pieces struct {
	data, sizes []byte
	at          int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.data) == 0 {
		return 0, io.EOF
	}
	n := 1
	if len(p.sizes) > 0 {
		n += int(p.sizes[p.at%len(p.sizes)])
		p.at++
	}
	n = copy(b, p.data[:min(n, len(p.data))])
	p.data = p.data[n:]
	return n, nil
}
