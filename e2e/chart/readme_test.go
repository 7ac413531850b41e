package chart

import (
	"encoding/json"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestReadmeHasTheValues compares the chart's README with values.yaml: a row of
// a table each, with its default.
func TestReadmeHasTheValues(t *testing.T) {
	readme := readFile(t, chartDir+"/README.md")
	var listed, want []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([\\w.]+)` \\| (`[^|]*` )?\\| \\S.* \\|$").FindAllStringSubmatch(readme, -1) {
		listed = append(listed, m[1]+" "+strings.Trim(m[2], "` "))
	}
	for _, l := range leaves(t) {
		want = append(want, l.path+" "+inWords(l.fallback))
	}
	for _, row := range want {
		if !slices.Contains(listed, row) {
			path, fallback, _ := strings.Cut(row, " ")
			if fallback != "" {
				fallback = "`" + fallback + "` "
			}
			t.Errorf("README.md should have\n| `%s` | %s| ... |", path, fallback)
		}
	}
	for _, row := range listed {
		if !slices.Contains(want, row) {
			t.Errorf("README.md has %s, which is no value, or not its default", row)
		}
	}
}

// inWords is a default as the README has it: nothing, where there is none.
func inWords(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return v
	case []any:
		if len(v) == 0 {
			return ""
		}
	case map[string]any:
		if len(v) == 0 {
			return ""
		}
	}
	text, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	return string(text)
}
