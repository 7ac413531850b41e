package chart

import (
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestMatrix compares what becomes of each row with its golden file, and holds
// it to the rules.
func TestMatrix(t *testing.T) {
	for _, r := range matrix(t) {
		t.Run(r.name, func(t *testing.T) {
			files, values, err := r.render()
			if err != nil {
				t.Fatal(err)
			}
			for _, line := range broken(files, values) {
				t.Error(line)
			}
			golden := filepath.Join("testdata/golden", r.name+".yaml")
			got := "# " + r.about + "\n" + abbreviated(joined(files))
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if want := readFile(t, golden); got != want {
				t.Errorf("this is not what is in %s; go test -update writes it anew:\n%s", golden, firstDifference(got, want))
			}
		})
	}
}

// abbreviated leaves out the alerts and the dashboard: they are compared with
// their own files (verbatim).
func abbreviated(text string) string {
	return regexp.MustCompile(`(?s)(templates/(?:dashboard|prometheusrule)\.yaml\n.*?\n(?:data|spec):\n)  .*?(\n---\n|$)`).ReplaceAllString(text, "$1  # ...$2")
}

// TestGoldenFilesHaveRows finds what rows that are gone have left.
func TestGoldenFilesHaveRows(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if _, err := os.Stat(filepath.Join("testdata/matrix", filepath.Base(file))); err != nil {
			t.Errorf("%s is of no row", file)
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range g {
		if i >= len(w) || g[i] != w[i] {
			end := func(lines []string) string { return strings.Join(lines[min(i, len(lines)):min(i+8, len(lines))], "\n") }
			return "got:\n" + end(g) + "\nwant:\n" + end(w)
		}
	}
	return "the end is missing"
}

// TestLint has helm's own opinion of both charts; a warning is one too. The
// writer's is as after helm dependency build.
func TestLint(t *testing.T) {
	writer := filepath.Join(t.TempDir(), "writer")
	if err := os.CopyFS(writer, os.DirFS(writerDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(writer, "charts")); err != nil {
		t.Fatal(err)
	}
	if _, err := chartutil.Save(mustLoad(t, chartDir), filepath.Join(writer, "charts")); err != nil {
		t.Fatal(err)
	}
	version, err := chartutil.ParseKubeVersion(newRow("", nil).kube + ".0")
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{chartDir, writer} {
		for _, m := range lint.AllWithKubeVersion(dir, nil, "default", version).Messages {
			if m.Severity > support.InfoSev {
				t.Errorf("%s: %v", dir, m)
			}
		}
	}
}

// TestPackage looks at what helm package makes: what installs something, and
// neither examples nor tests of the rules.
func TestPackage(t *testing.T) {
	archive, err := chartutil.Save(mustLoad(t, chartDir), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	packed, err := loader.LoadFile(archive)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "rules/s3daemon.rules.yaml", "dashboards/s3daemon.json"}
	for _, f := range packed.Raw {
		isWanted := strings.HasPrefix(f.Name, "templates/")
		for i, name := range want {
			if f.Name == name {
				isWanted, want = true, append(want[:i:i], want[i+1:]...)
				break
			}
		}
		if !isWanted {
			t.Errorf("%s is in the package", f.Name)
		}
	}
	if len(want) > 0 {
		t.Errorf("these are not in the package: %q", want)
	}
}

func mustLoad(t *testing.T, dir string) *chart.Chart {
	t.Helper()
	c, err := loader.LoadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
