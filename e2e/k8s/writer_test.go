package k8s

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// theWriter is the pod of a writer's StatefulSet.
const theWriter = "writer-0"

// installWriter installs the tests' own chart of a writer, testdata/writer, with
// the chart of this checkout in it as its dependency, and with these values, a
// text of YAML, and what is set besides. Files are made in /data, and the store is that of the namespace.
// What the chart makes is called writer.
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
		"image": toolImage(t),
		"s3daemon": map[string]any{
			"image":       imageValues(image(t)),
			"store":       map[string]any{"endpoint": s.endpoint},
			"credentials": map[string]any{"secret": storeSecret},
			"send":        map[string]any{"install": true},
			// As little as lets many of them on a small node; it bounds nothing.
			"resources": map[string]any{"requests": map[string]any{"cpu": "10m"}},
			"sidecar":   map[string]any{"dataMounts": []any{map[string]any{"name": "data", "mountPath": "/data"}}},
		},
	}
}

func writerChart(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "writer")
	for _, part := range [][2]string{{dir, "testdata/writer"}, {filepath.Join(dir, "charts/s3daemon"), chart(t)}} {
		if err := os.CopyFS(part[0], os.DirFS(part[1])); err != nil {
			t.Fatal(err)
		}
	}
	return dir
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
