package chart

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"sigs.k8s.io/yaml"
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

// TestReadmeKnowsWhatThereIs: it speaks of no value and no template that the
// chart does not have.
func TestReadmeKnowsWhatThereIs(t *testing.T) {
	values := make(map[string]bool)
	for _, l := range leaves(t) {
		for path := l.path; path != ""; path = parent(path) {
			values[path] = true
		}
	}
	var templates string
	for _, f := range mustLoad(t, chartDir).Templates {
		templates += string(f.Data)
	}
	for _, text := range []string{readFile(t, chartDir+"/README.md"), readFile(t, writerDir+"/README.md")} {
		for _, m := range regexp.MustCompile("(?:`|--set '?)(\\w+)((?:\\.\\w+)+)(?:[=:`])").FindAllStringSubmatch(text, -1) {
			path := strings.TrimPrefix(m[1]+m[2], "s3daemon.") // as a writer's values have it
			first, _, _ := strings.Cut(path, ".")
			isOurs := values[first] || m[1] == "s3daemon"
			isValue := values[path] || slices.Contains([]string{"settings", "securityContext", "podSecurityContext"}, parent(path))
			isTemplate := strings.Contains(templates, fmt.Sprintf("define %q", m[1]+m[2]))
			if isOurs && !isValue && !isTemplate {
				t.Errorf("README.md speaks of %s, which is neither a value nor a template", m[1]+m[2])
			}
		}
	}
}

// block returns the block of code in the README that begins with this, without
// its indentation.
func block(t *testing.T, beginning string) string {
	t.Helper()
	for _, m := range regexp.MustCompile("(?ms)^( *)```\\w+\n(.*?)^ *```$").FindAllStringSubmatch(readFile(t, chartDir+"/README.md"), -1) {
		text := regexp.MustCompile("(?m)^"+m[1]).ReplaceAllString(m[2], "")
		if strings.HasPrefix(text, beginning) {
			return text
		}
	}
	t.Fatalf("README.md has no block that begins with %q", beginning)
	return ""
}

// TestReadmeWriter makes of the README what it tells a reader to make: a chart
// that has this one as a dependency.
func TestReadmeWriter(t *testing.T) {
	own := mustLoad(t, chartDir)
	writer := &chart.Chart{
		Metadata: &chart.Metadata{APIVersion: "v2", Name: "writer", Version: "1.0.0"},
		Templates: []*chart.File{{Name: "templates/writer.yaml", Data: []byte(
			"apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: w}\n" + block(t, "# templates/writer.yaml"),
		)}},
	}
	if err := yaml.UnmarshalStrict([]byte(block(t, "# values.yaml")), &writer.Values); err != nil {
		t.Fatal(err)
	}
	var dependencies chart.Metadata
	if err := yaml.UnmarshalStrict([]byte(block(t, "# Chart.yaml")), &dependencies); err != nil {
		t.Fatal(err)
	}
	writer.Metadata.Dependencies = dependencies.Dependencies
	writer.SetDependencies(own)

	files, values, err := newRow("", nil).renderChart(writer)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range broken(files, values) {
		// What the reader's own container lacks is the reader's matter, but for what
		// keeps the pod from starting.
		if !strings.Contains(line, ": writer ") && !strings.Contains(line, "automountServiceAccountToken") {
			t.Error(line)
		}
	}
	if len(files) != 1 {
		t.Errorf("there are %d files", len(files))
	}
}

// TestReadmeJob holds the README's Job to the rule of those of the matrix.
func TestReadmeJob(t *testing.T) {
	var container, script map[string]any
	if err := yaml.UnmarshalStrict([]byte(block(t, "env:\n  - name: JOB")), &container); err != nil {
		t.Fatal(err)
	}
	script = map[string]any{"name": "writer", "image": "x", "env": container["env"], "command": []string{"sh", "-c", block(t, "label=$JOB")}}
	spec := map[string]any{"restartPolicy": "Never", "containers": []any{script}}
	text, err := yaml.Marshal(map[string]any{
		"apiVersion": "batch/v1", "kind": "Job", "metadata": map[string]any{"name": "w"},
		"spec": map[string]any{"template": map[string]any{"spec": spec}},
	})
	if err != nil {
		t.Fatal(err)
	}
	objects, err := decode(map[string]string{"job": string(text)})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range retried(rendered{objects: objects, pods: podsOf(objects)}) {
		t.Error(line)
	}
}

// TestReadmeObjects decodes the other objects, and the pods, of the README.
func TestReadmeObjects(t *testing.T) {
	if _, err := decode(map[string]string{"pod": "apiVersion: v1\nkind: Pod\nmetadata: {name: w}\n" + block(t, "spec:\n")}); err != nil {
		t.Error(err)
	}
	objects, err := decode(map[string]string{"claim": block(t, "apiVersion: v1\nkind: PersistentVolume\n")})
	if err != nil || len(objects) != 2 {
		t.Errorf("%d objects, and %v", len(objects), err)
	}
	_, after, _ := strings.Cut(block(t, "helm install s3daemon CHART"), "<<END\n")
	text, _, _ := strings.Cut(after, "END\n")
	node := newRow("the README's", nil)
	if err := yaml.UnmarshalStrict([]byte(text), &node.values); err != nil {
		t.Fatal(err)
	}
	if files, _, err := node.render(); err != nil || len(files) == 0 {
		t.Errorf("%d files, and %v", len(files), err)
	}
}
