package push_test

import (
	"cmp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// ones is all bits set.
var ones = [8]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// TestNewID holds ids to the layout of RFC 9562, section 5.7: 48 bits of
// milliseconds, the version 7, 12 bits, the variant 10, 62 bits.
func TestNewID(t *testing.T) {
	for _, tt := range []struct {
		name   string
		at     time.Time
		order  uint16
		random [8]byte
		want   string
	}{
		{"the example of RFC 9562, A.6", time.UnixMilli(0x017F22E279B0), 0xCC3, [8]byte{0x98, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F}, "017f22e2-79b0-7cc3-98c4-dc0c0c07398f"},
		{"nothing", time.UnixMilli(0), 0, [8]byte{}, "00000000-0000-7000-8000-000000000000"},
		{"every bit", time.UnixMilli(1<<48 - 1), 0xfff, ones, "ffffffff-ffff-7fff-bfff-ffffffffffff"},
		{"order of more than 12 bits", time.UnixMilli(0), 0xf001, [8]byte{}, "00000000-0000-7001-8000-000000000000"},
		{"less than a millisecond is dropped", time.UnixMilli(1).Add(999 * time.Microsecond), 0, [8]byte{}, "00000000-0001-7000-8000-000000000000"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			id := push.NewID(tt.at, tt.order, tt.random)
			if id.String() != tt.want {
				t.Errorf("NewID() = %s, want %s", id, tt.want)
			}
			if want := tt.at.Truncate(time.Millisecond); !id.Time().Equal(want) || id.Time().Location() != time.UTC {
				t.Errorf("Time() = %v, want %v in UTC", id.Time(), want)
			}
			if back, err := push.ParseID(tt.want); err != nil || back != id {
				t.Errorf("%s reads back as %s, %v", id, back, err)
			}
			if id.IsZero() {
				t.Error("an id that was made is the zero ID")
			}
		})
	}
}

// TestIDsSort: by time, then by order, whatever the random bits, and as bytes
// the same as in text.
func TestIDsSort(t *testing.T) {
	at := time.Date(2026, 11, 23, 1, 2, 3, 0, time.UTC)
	var sorted []push.ID
	for _, ms := range []int{0, 1, 255, 256, 1 << 32} {
		for _, order := range []uint16{0, 1, 0xff, 0x100, 0xfff} {
			random := ones
			if order%2 == 1 {
				random = [8]byte{}
			}
			sorted = append(sorted, push.NewID(at.Add(time.Duration(ms)*time.Millisecond), order, random))
		}
	}
	for i, a := range sorted {
		for j, b := range sorted {
			want := cmp.Compare(i, j)
			if got := a.Compare(b); got != want {
				t.Errorf("%s.Compare(%s) = %d, want %d", a, b, got, want)
			}
			if got := strings.Compare(a.String(), b.String()); got != want {
				t.Errorf("%s and %s as text: %d, want %d", a, b, got, want)
			}
		}
	}
	if (push.ID{}).Compare(sorted[0]) != -1 || !(push.ID{}).IsZero() {
		t.Error("the zero ID is not before all others")
	}
}

func TestParseID(t *testing.T) {
	const text = "01a2099f-a374-7d75-988c-bfa863fc1e8f"
	for _, s := range []string{text, strings.ToUpper(text)} {
		if id, err := push.ParseID(s); err != nil || id.String() != text {
			t.Errorf("ParseID(%q) = %s, %v", s, id, err)
		}
	}
	for name, s := range map[string]string{
		"empty":                "",
		"a letter short":       text[:35],
		"a letter long":        text + "0",
		"no hyphens":           strings.ReplaceAll(text, "-", ""),
		"no hyphens, 36":       strings.ReplaceAll(text, "-", "") + "0000",
		"hyphens elsewhere":    "01a2099-fa374-7d75-988c-bfa863fc1e8f",
		"only hyphens":         strings.Repeat("-", 36),
		"other letters":        "g" + text[1:],
		"in braces":            "{" + text[1:35] + "}",
		"URN":                  "urn:uuid:" + text,
		"space around":         " " + text + " ",
		"a newline at the end": text + "\n",
		"not ASCII":            "é" + text[2:],
		"a megabyte":           strings.Repeat("a", 1<<20),
	} {
		t.Run(name, func(t *testing.T) {
			id, err := push.ParseID(s)
			if err == nil || !id.IsZero() {
				t.Fatalf("ParseID = %s, %v, want an error", id, err)
			}
			checkError(t, err, push.PushNotFound)
		})
	}
}

// FuzzParseID: what is read as an id is written as the same text, but for
// capitals, and sorts as its text does.
func FuzzParseID(f *testing.F) {
	for _, s := range []string{"", "01a2099f-a374-7d75-988c-bfa863fc1e8f", "01A2099F-A374-7D75-988C-BFA863FC1E8F", strings.Repeat("-", 36), strings.Repeat("é", 18)} {
		f.Add(s)
	}
	middle := push.NewID(time.UnixMilli(1<<47), 0, [8]byte{})
	f.Fuzz(func(t *testing.T, s string) {
		id, err := push.ParseID(s)
		if err != nil {
			checkError(t, err, push.PushNotFound)
			if !id.IsZero() {
				t.Errorf("%s beside an error", id)
			}
			return
		}
		if id.String() != strings.ToLower(s) {
			t.Errorf("%q is %s", s, id)
		}
		if id.Compare(middle) != strings.Compare(id.String(), middle.String()) {
			t.Errorf("%s sorts otherwise than its text", id)
		}
		again := push.NewID(id.Time(), uint16(id[6])<<8|uint16(id[7]), [8]byte(slices.Clone(id[8:])))
		if again.Time() != id.Time() || id[6]>>4 == 7 && id[8]>>6 == 2 && again != id {
			t.Errorf("%s is made anew as %s", id, again)
		}
	})
}
