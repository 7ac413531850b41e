package push_test

import (
	"regexp"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

func TestPlaces(t *testing.T) {
	for _, tt := range []struct {
		name     string
		patterns string // with blanks between
		allowed  string
		refused  string
	}{
		{"nothing is set", "", "s3://raw/a s3://other/a/../x alias/any/x/../y", ""},
		{"a bucket", "raw", "s3://raw/a s3://raw/in/a s3://raw/a/../b any/raw/a raw/raw/a", "s3://other/a s3://rawer/a s3://ra/w s3://Raw/a raw/other/a s3://tenant:raw/a"},
		{"a bucket and a slash", "raw/", "s3://raw/a s3://raw//a", "s3://other/raw/a"},
		{"a prefix", "raw/in/", "s3://raw/in/a s3://raw/in//a s3://raw/in/./a s3://raw/in/ s3://raw/in/..a s3://raw/in/a.. any/raw/in/a",
			"s3://raw/in s3://raw/inner/a s3://raw/a s3://raw/In/a s3://raw//in/a s3://raw/./in/a s3://raw/out/../in/a s3://raw/%69n/a any/raw/raw/in/a"},
		{"a prefix, and keys that climb", "raw/in/", "", "s3://raw/in/../x s3://raw/in/a/../b s3://raw/in/a/.. s3://raw/in//../x s3://raw/in/a/../../x"},
		{"part of a name", "raw/in", "s3://raw/in s3://raw/in/a s3://raw/inner/a", "s3://raw/i s3://raw/in/../x"},
		{"stars", "raw-*", "s3://raw-1/a s3://raw-a.b-c/a", "s3://raw/a s3://xraw-1/a s3://raw-1:other/a s3://tenant:raw-1/a"},
		{"question marks", "raw-????", "s3://raw-2026/x", "s3://raw-202/x s3://raw-20266/x s3://raw-a:bc/x"},
		{"every bucket", "*", "s3://raw/a s3://other/a", "s3://tenant:raw/a"},
		{"every bucket of a tenant", "rubin:*/in/", "s3://rubin:raw/in/a", "s3://raw/in/a s3://other:raw/in/a s3://rubin:raw/a"},
		{"several", "raw/in/ raw/out/ *-tmp", "s3://raw/in/a s3://raw/out/a s3://x-tmp/a", "s3://raw/a s3://tmp/a"},
		{"the same by a prefix and without", "raw/in/ raw", "s3://raw/in/../x s3://raw/x", "s3://other/in/x"},
		{"a prefix with wildcards to the letter", "raw/*/a?", "s3://raw/*/a?", "s3://raw/x/ab"},
		{"a prefix in another script", "raw/Größe/", "s3://raw/Größe/a", "s3://raw/Gro\u0308ße/a"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			places, err := push.ParsePlaces(strings.Fields(tt.patterns))
			if err != nil {
				t.Fatal(err)
			}
			for _, list := range []struct {
				destinations string
				allowed      bool
			}{{tt.allowed, true}, {tt.refused, false}} {
				for _, text := range strings.Fields(list.destinations) {
					d, err := push.ParseDestination(text)
					if err != nil && list.allowed {
						t.Fatal(err)
					} else if err != nil {
						continue // one that is none is refused before
					}
					err = places.Check(d)
					if (err == nil) != list.allowed {
						t.Errorf("%s: %v", text, err)
					}
					if err != nil {
						checkError(t, err, push.DestinationNotAllowed)
					}
				}
			}
		})
	}
}

func TestParsePlacesRefuses(t *testing.T) {
	for text, says := range map[string]string{
		"":                     "neither BUCKET nor",
		"/in":                  "neither BUCKET nor",
		"s3://raw":             "without s3://",
		"s3://raw/in":          "without s3://",
		"ra w":                 "neither BUCKET nor",
		"[a-z]*":               "neither BUCKET nor",
		`raw\*`:                "neither BUCKET nor",
		"größe":                "neither BUCKET nor",
		"raw\n":                "neither BUCKET nor",
		"raw//in":              "between two slashes",
		"raw/in//":             "between two slashes",
		"raw//":                "between two slashes",
		"raw/./in":             "between two slashes",
		"raw/in/.":             "between two slashes",
		"raw/in/../out":        "between two slashes",
		"raw/..":               "leaves the bucket",
		"raw/in/\x00":          "control character",
		"raw/in/\xff":          "not valid UTF-8",
		"raw/" + long(1025):    "1025 bytes",
		"raw/in/\u2028\ninner": "control character",
	} {
		_, err := push.ParsePlaces([]string{"good", text})
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %s", text, err, says)
		} else {
			checkLine(t, err.Error())
		}
	}
}

// FuzzPlaces holds Check to a model that is written otherwise: a regular
// expression on bucket/key, and what a cleaning proxy would make of the key.
func FuzzPlaces(f *testing.F) {
	for _, s := range [][2]string{
		{"raw", "s3://raw/a"}, {"raw/in/", "s3://raw/in/../x"}, {"raw/in", "s3://raw/in/.../x"}, {"*", "s3://t:raw/x"}, {"r?w*/a", "a/raw/ab//../c"},
		{"t:*/", "s3://t:raw//../x"}, {"raw.x/", "s3://rawyx/a"}, {"raw/in/", "s3://raw/in/./..//x"}, {"0000*00", "/0000/00/"},
	} {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, text, destination string) {
		places, err := push.ParsePlaces([]string{text})
		if err != nil {
			checkLine(t, err.Error())
			return
		}
		d, err := push.ParseDestination(destination)
		if err != nil {
			return
		}
		bucket, prefix, _ := strings.Cut(text, "/")
		expression := strings.NewReplacer(`\*`, "[^:/]*", `\?`, "[^:/]").Replace(regexp.QuoteMeta(bucket))
		want := regexp.MustCompile(`\A(?:`+expression+`)/`+regexp.QuoteMeta(prefix)).MatchString(d.Bucket+"/"+d.Key) &&
			(prefix == "" || !regexp.MustCompile(`(^|/)\.\.(/|$)`).MatchString(d.Key))
		err = places.Check(d)
		if (err == nil) != want {
			t.Fatalf("%q and %q: %v, want allowed %v", text, d, err, want)
		}
		if err != nil {
			checkError(t, err, push.DestinationNotAllowed)
			return
		}
		for _, merge := range []bool{false, true} {
			if cleaned := cleaned(d.Key, merge); !strings.HasPrefix(cleaned, prefix) && cleaned+"/" != prefix {
				t.Fatalf("%q lets %q through, which a proxy may make %q of", text, d.Key, cleaned)
			}
		}
	})
}

// cleaned returns the key as RFC 3986 removes its dot segments; with merge,
// after slashes that follow each other were made one.
func cleaned(key string, merge bool) string {
	var out []string
	segments := strings.Split(key, "/")
	for i, s := range segments {
		last := i == len(segments)-1
		switch {
		case s == "" && merge && !last && i > 0, s == "." && !last:
		case s == ".":
			out = append(out, "")
		case s == "..":
			out = out[:max(0, len(out)-1)]
		default:
			out = append(out, s)
		}
	}
	return strings.Join(out, "/")
}
