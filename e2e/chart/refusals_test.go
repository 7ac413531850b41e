package chart

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// refusal is a use of a chart that helm refuses.
type refusal struct {
	What    string // is wrong with it
	Chart   string // s3daemon where empty
	Kube    string // 1.37 where empty
	Release string
	Values  map[string]any
	Refused string // what is said, or a part of it
}

// TestRefusals: what cannot work is refused with words that help. There is a
// refusal for all that the templates say themselves.
func TestRefusals(t *testing.T) {
	var refusals []refusal
	if err := yaml.UnmarshalStrict([]byte(readFile(t, "testdata/refusals.yaml")), &refusals); err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, r := range refusals {
		row := newRow(r.What, r.Values)
		for field, value := range map[*string]string{&row.chart: r.Chart, &row.kube: r.Kube, &row.release: r.Release} {
			if value != "" {
				*field = value
			}
		}
		_, _, err := row.render()
		if err == nil {
			t.Errorf("%s: this is not refused", r.What)
			continue
		}
		if r.Refused == "" || !strings.Contains(err.Error(), r.Refused) {
			t.Errorf("%s: this is refused, but not with %q:\n%v", r.What, r.Refused, err)
		}
		all.WriteString(err.Error() + "\n")
	}
	for _, words := range refusalsOfTemplates(t) {
		if !words.MatchString(all.String()) {
			t.Errorf("nothing is refused with %q", words)
		}
	}
}

// refusalsOfTemplates are the messages that templates fail with, what is put
// into them being anything.
func refusalsOfTemplates(t *testing.T) (all []*regexp.Regexp) {
	t.Helper()
	files, err := filepath.Glob(chartDir + "/templates/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a directory
		}
		fails := regexp.MustCompile(`\bfail \(?(?:printf )?"([^"]*)"`).FindAllStringSubmatch(string(text), -1)
		if found := strings.Count(string(text), " fail "); found != len(fails) {
			t.Errorf("%s fails %d times, and %d of its messages were found", file, found, len(fails))
		}
		for _, m := range fails {
			pattern := regexp.MustCompile(`%\w`).ReplaceAllString(regexp.QuoteMeta(m[1]), ".*")
			all = append(all, regexp.MustCompile(pattern))
		}
	}
	if len(all) == 0 {
		t.Error("no template refuses anything")
	}
	return all
}
