package main

import (
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lsst-dm/s3daemon/push"
)

// section returns the rows of the table under a heading of the README.
func section(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+heading+"\n")
	if !found {
		t.Fatalf("README.md has no section %q", heading)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	var rows []string
	for line := range strings.Lines(rest) {
		if strings.HasPrefix(line, "| `") || regexp.MustCompile(`^\| \d`).MatchString(line) {
			rows = append(rows, strings.TrimSpace(line))
		}
	}
	return rows
}

func TestReadmeHasTheVariables(t *testing.T) {
	var want []string
	for _, v := range variables() {
		fallback := ""
		if v.fallback != "" {
			fallback = "`" + v.fallback + "` "
		}
		want = append(want, fmt.Sprintf("| `%s` | %s| %s |", v.name, fallback, v.description))
	}
	if got := section(t, "Configuration"); !slices.Equal(got, want) {
		t.Errorf("the table of variables should be\n%s", strings.Join(want, "\n"))
	}
}

// TestReadmeHasTheCodes reads them where they are written down.
func TestReadmeHasTheCodes(t *testing.T) {
	source, err := os.ReadFile("push/error.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := make(map[push.Code]bool)
	for _, m := range regexp.MustCompile(`Code = "([a-z_]+)"`).FindAllStringSubmatch(string(source), -1) {
		codes[push.Code(m[1])] = true
	}
	listed := make(map[push.Code]bool)
	for _, row := range section(t, "Errors") {
		listed[push.Code(strings.Trim(strings.Split(row, "|")[2], " `"))] = true
	}
	if !maps.Equal(codes, listed) {
		t.Errorf("codes:  %v\nlisted: %v", slices.Sorted(maps.Keys(codes)), slices.Sorted(maps.Keys(listed)))
	}
}
