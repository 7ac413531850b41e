package k8s

import (
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
)

// chart is the directory of the chart in this checkout.
func chart(t testing.TB) string { return inRepository(t, "helm") }

func inRepository(t testing.TB, path string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../..", path))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// helm runs helm in the namespace, with that standard input, which is values
// where the arguments have "--values -".
func (n *namespace) helm(stdin string, args ...string) (said, error) {
	s, err := run(stdin, "helm", n.args(args)...)
	return s, errors.Join(err, warnings(s.stderr))
}

// install installs a chart, or upgrades its release, with these values, a text
// of YAML. It does not wait for what it made to be ready: helm counts a
// DaemonSet as ready too early.
func (n *namespace) install(release, chart, values string, args ...string) said {
	n.t.Helper()
	s, err := n.helm(values, append([]string{"upgrade", "--install", release, chart, "--values", "-"}, args...)...)
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// jsonValues returns values as JSON, which is YAML as well.
func jsonValues(t testing.TB, values map[string]any) string {
	t.Helper()
	text, err := json.Marshal(values)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// imageValues are the chart's values of an image by its name.
func imageValues(name string) map[string]any {
	name, digest, _ := strings.Cut(name, "@")
	repository, tag := name, ""
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		repository, tag = name[:i], name[i+1:]
	}
	return map[string]any{"repository": repository, "tag": tag, "digest": digest}
}
