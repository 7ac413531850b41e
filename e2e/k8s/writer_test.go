package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// theWriter is the pod of a writer's StatefulSet.
const theWriter = "writer-0"

// installWriter installs the example of a writer's chart, with the chart of this
// checkout in it as its dependency, and with these values, a text of YAML, and
// what is set besides. The writer is the tool, and what it is to do its args;
// /data is for its files, and the store is that of the namespace. What the chart
// makes is called writer.
func (n *namespace) installWriter(s *store, values string, set ...string) {
	n.t.Helper()
	base := filepath.Join(n.t.TempDir(), "values.json")
	if err := os.WriteFile(base, []byte(jsonValues(n.t, writerValues(n.t, s))), 0o644); err != nil {
		n.t.Fatal(err)
	}
	args := []string{"upgrade", "--install", "writer", writerChart(n.t), "--values", base, "--values", "-"}
	for _, value := range set {
		args = append(args, "--set", value)
	}
	if _, err := n.helm(values, args...); err != nil {
		n.t.Fatal(err)
	}
}

func writerValues(t testing.TB, s *store) map[string]any {
	return map[string]any{
		"image":   toolImage(t),
		"command": []string{"/tool"},
		"args":    idle,
		"s3daemon": map[string]any{
			"image":       imageValues(image(t)),
			"store":       map[string]any{"endpoint": s.endpoint},
			"credentials": map[string]any{"secret": storeSecret},
			// As little as lets many of them on a small node; it bounds nothing.
			"resources": map[string]any{"requests": map[string]any{"cpu": "10m"}},
		},
	}
}

// idle has a writer do nothing by itself until it is told to end.
var idle = []string{"write", "-files", "0", "-j", "0", "s3://raw/"}

func writerChart(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "writer")
	copyDir(t, dir, filepath.Join(chart(t), "examples/writer"))
	dependency := filepath.Join(dir, "charts/s3daemon")
	copyDir(t, dependency, chart(t))
	if err := os.RemoveAll(filepath.Join(dependency, "examples")); err != nil {
		t.Fatal(err)
	}
	return dir
}

func copyDir(t testing.TB, to, from string) {
	t.Helper()
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
}

// write has the writer of a pod make files and have them pushed, as these
// arguments of tool write tell it, and returns what became of each.
func (n *namespace) write(pod string, args ...string) (all []written) {
	n.t.Helper()
	words := append([]string{"/tool", "write", "-dir", "/data", "-send", "/opt/s3daemon/send"}, args...)
	for _, l := range linesOf[written](n.exec(pod, "writer", append(words, "s3://raw/")...)) {
		if l.Event != "" {
			continue
		}
		if !l.OK {
			n.t.Errorf("the push of %s failed after %.1f s: %s", l.Key, l.Seconds, l.Answer)
		}
		all = append(all, l)
	}
	return all
}

// untilUnderWay waits until that many requests that send a body are at the store.
func (s *store) untilUnderWay(number int) {
	s.n.t.Helper()
	s.n.until(patience, fmt.Sprintf("%d files are under way", number), func() error {
		if now := s.counts().UnderWay; now != number {
			return fmt.Errorf("%d are", now)
		}
		return nil
	})
}
