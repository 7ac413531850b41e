package batch

import (
	"errors"
	"strings"
	"testing"
)

// absolute puts a directory before relative names.
func absolute(name string) (string, error) {
	switch {
	case name == "":
		return "", errors.New("FILE is empty")
	case strings.HasPrefix(name, "/"):
		return name, nil
	}
	return "/here/" + name, nil
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name        string
		files       []string
		destination string
		want        string // FILE>DESTINATION of each, or the error's beginning
	}{
		{"one", []string{"a"}, "s3://bkt/k", "/here/a>s3://bkt/k"},
		{"one below", []string{"/d/a"}, "s3://bkt/k/", "/d/a>s3://bkt/k/a"},
		{"one in the bucket", []string{"/d/a"}, "x/bkt/", "/d/a>x/bkt/a"},
		{"several", []string{"a", "d/b", "/e//c"}, "s3://bkt/k/", "/here/a>s3://bkt/k/a /here/d/b>s3://bkt/k/b /e//c>s3://bkt/k/c"},
		{"a directory is the daemon's to refuse", []string{"d/"}, "s3://bkt/", "/here/d/>s3://bkt/d"},
		{"names with all in them", []string{"a b", "-x", "..."}, "s3://bkt/", "/here/a b>s3://bkt/a b /here/-x>s3://bkt/-x /here/...>s3://bkt/..."},

		{"several to one", []string{"a", "b"}, "s3://bkt/k", `DEST is "s3://bkt/k": for several FILEs it must end in "/"`},
		{"same names", []string{"d/a", "b", "e/a"}, "s3://bkt/", `"d/a" and "e/a" would both become "s3://bkt/a"`},
		{"the same twice", []string{"a", "a"}, "s3://bkt/", `"a" and "a" would both become`},
		{"no name", []string{"."}, "s3://bkt/", `no object can be named after the FILE "."`},
		{"no name", []string{"d/../"}, "s3://bkt/", `no object can be named after the FILE "d/../"`},
		{"no name", []string{"/"}, "s3://bkt/", `no object can be named after the FILE "/"`},
		{"an empty name", []string{"a", ""}, "s3://bkt/", "FILE is empty"},
		{"no bucket", []string{"a"}, "s3:///", `"a": destination "s3:///a" has no bucket`},
		{"no key", []string{"a"}, "alias/", `"a": destination "alias/a" has no key`},
		{"a key that is too long", []string{"a", strings.Repeat("x", 2000)}, "s3://bkt/", `"xxx`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			list, err := Plan(test.files, test.destination, absolute)
			if err != nil {
				if !strings.HasPrefix(err.Error(), test.want) || list != nil {
					t.Errorf("%v with %v", err, list)
				}
				return
			}
			var got []string
			for i, item := range list {
				got = append(got, item.File+">"+item.Destination)
				if item.Index != i || item.Name != test.files[i] {
					t.Errorf("item %d is %+v", i, item)
				}
			}
			if got := strings.Join(got, " "); got != test.want {
				t.Errorf("%s, want %s", got, test.want)
			}
		})
	}
}
