package k8s

import (
	"errors"
	"path/filepath"
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
