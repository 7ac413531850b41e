package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// attackRow is a row of SECURITY.md's tables of attacks: what is tried, what
// happens, and a link to the test, named as the function is.
var attackRow = regexp.MustCompile(`^\| [^|]+ \| [^|]+ \| \[((?:Test|Fuzz)[A-Z][A-Za-z0-9]*)\]\(([a-z0-9_/]+_test\.go)\) \|$`)

// TestSecurityHasItsTests: each attack that SECURITY.md tells of has a test, where
// it says; and who reads the README finds SECURITY.md.
func TestSecurityHasItsTests(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	_, attacks, found := strings.Cut(string(text), "\n## Attacks\n")
	if !found {
		t.Fatal("SECURITY.md has no section about attacks")
	}
	attacks, _, _ = strings.Cut(attacks, "\n## ")
	rows := 0
	for line := range strings.Lines(attacks) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || line == "| attack | what happens | test |" || line == "|---|---|---|" {
			continue
		}
		rows++
		row := attackRow.FindStringSubmatch(line)
		if row == nil {
			t.Errorf("this row has no test: %s", line)
			continue
		}
		source, err := os.ReadFile(row[2])
		if err != nil {
			t.Errorf("%s: %v", line, err)
		} else if !regexp.MustCompile(`(?m)^func ` + row[1] + `\(`).Match(source) {
			t.Errorf("%s has no %s, of which SECURITY.md says: %s", row[2], row[1], line)
		}
	}
	if rows < 50 {
		t.Errorf("there are %d rows: is the form of the tables another?", rows)
	}
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(readme), "](SECURITY.md") {
		t.Error("README.md has no link to SECURITY.md")
	}
}

// TestSecurityHasTheSettings: whatever a variable is called in SECURITY.md, the
// daemon knows it by that name.
func TestSecurityHasTheSettings(t *testing.T) {
	text, err := os.ReadFile("SECURITY.md")
	if err != nil {
		t.Fatal(err)
	}
	known := make(map[string]bool)
	for _, v := range variables() {
		known[v.name] = true
	}
	used := regexp.MustCompile(`\bS3DAEMON_[A-Z_]*[A-Z]\b`).FindAllString(string(text), -1)
	if len(used) == 0 {
		t.Error("SECURITY.md names no variable")
	}
	for _, name := range used {
		if !known[name] {
			t.Errorf("SECURITY.md has %s, which is no variable", name)
		}
	}
}
