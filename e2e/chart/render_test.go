package chart

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"sigs.k8s.io/yaml"
)

const (
	chartDir  = "../../helm"
	writerDir = "../../helm/examples/writer"
)

// row is a use of one of the charts.
type row struct {
	name    string
	about   string // in a sentence
	chart   string // s3daemon, or writer
	kube    string // version of the cluster
	release string
	values  map[string]any
}

// newRow is one of the chart of s3daemon on a cluster of today.
func newRow(name string, values map[string]any) row {
	return row{name: name, chart: "s3daemon", kube: "1.37", release: "r", values: values}
}

// matrix reads the rows. A file begins with a comment that says what it is about,
// and may go on with others that have a name: chart, kube, release.
func matrix(t *testing.T) (rows []row) {
	t.Helper()
	files, err := filepath.Glob("testdata/matrix/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no rows: %v", err)
	}
	for _, file := range files {
		text := readFile(t, file)
		r := newRow(strings.TrimSuffix(filepath.Base(file), ".yaml"), nil)
		if err := yaml.UnmarshalStrict([]byte(text), &r.values); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for line := range strings.Lines(text) {
			comment, found := strings.CutPrefix(strings.TrimSpace(line), "# ")
			if !found {
				break
			}
			switch key, value, _ := strings.Cut(comment, ": "); {
			case r.about == "":
				r.about = comment
			case key == "chart":
				r.chart = value
			case key == "kube":
				r.kube = value
			case key == "release":
				r.release = value
			default:
				t.Fatalf("%s: what is %q?", file, comment)
			}
		}
		if r.about == "" {
			t.Errorf("%s does not say what it is about", file)
		}
		rows = append(rows, r)
	}
	return rows
}

// rowNamed is the row of that name.
func rowNamed(t *testing.T, name string) row {
	t.Helper()
	rows := matrix(t)
	i := slices.IndexFunc(rows, func(r row) bool { return r.name == name })
	if i < 0 {
		t.Fatalf("there is no row %q", name)
	}
	return rows[i]
}

// load is the chart as helm reads it, without what .helmignore names. The
// writer's gets its dependency from beside it rather than from an archive.
func load(name string) (*chart.Chart, error) {
	own, err := loader.LoadDir(chartDir)
	if err != nil || name == "s3daemon" {
		return own, err
	}
	writer, err := loader.LoadDir(writerDir)
	if err != nil {
		return nil, err
	}
	writer.SetDependencies(own)
	return writer, nil
}

// render makes of the row what helm install would: the files of templates by
// their names, those that are empty left out, and the values of s3daemon's
// chart, defaults included.
func (r row) render() (files map[string]string, values chartutil.Values, err error) {
	top, err := load(r.chart)
	if err != nil {
		return nil, nil, err
	}
	return r.renderChart(top)
}

// renderChart is render with a chart of the caller's.
func (r row) renderChart(top *chart.Chart) (files map[string]string, values chartutil.Values, err error) {
	if err := chartutil.ValidateReleaseName(r.release); err != nil {
		return nil, nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	version, err := chartutil.ParseKubeVersion(r.kube + ".0")
	if err != nil {
		return nil, nil, err
	}
	capabilities.KubeVersion = *version
	for _, c := range append(top.Dependencies(), top) {
		if c.Metadata.KubeVersion != "" && !chartutil.IsCompatibleRange(c.Metadata.KubeVersion, version.Version) {
			return nil, nil, fmt.Errorf("chart %s requires kubeVersion %s, and this is %s", c.Name(), c.Metadata.KubeVersion, version.Version)
		}
	}
	own := copied(r.values)
	if err := chartutil.ProcessDependenciesWithMerge(top, own); err != nil {
		return nil, nil, err
	}
	options := chartutil.ReleaseOptions{Name: r.release, Namespace: "default", Revision: 1, IsInstall: true}
	all, err := chartutil.ToRenderValues(top, own, options, capabilities)
	if err != nil {
		return nil, nil, err
	}
	files, err = engine.Render(top, all)
	if err != nil {
		return nil, nil, err
	}
	maps.DeleteFunc(files, func(name, text string) bool {
		isNotes := strings.HasSuffix(name, "NOTES.txt") && name != top.Name()+"/templates/NOTES.txt" // helm prints those of the top alone
		return isNotes || strings.TrimSpace(text) == ""
	})
	values, err = all.Table("Values")
	if err == nil && top.Name() != "s3daemon" {
		values, err = values.Table("s3daemon")
	}
	return files, values, err
}

// copied is these values with nothing in common, since helm writes into what it
// is given.
func copied(values map[string]any) map[string]any {
	text, err := yaml.Marshal(values)
	if err != nil {
		panic(err)
	}
	var result map[string]any
	if err := yaml.Unmarshal(text, &result); err != nil {
		panic(err)
	}
	if result == nil {
		result = map[string]any{}
	}
	return result
}

// joined is all files as one text of YAML, the notes as a comment at its end,
// without the spaces that templates leave at the ends of lines.
func joined(files map[string]string) string {
	var objects, notes strings.Builder
	for _, name := range slices.Sorted(maps.Keys(files)) {
		body := strings.Trim(files[name], "\n") + "\n"
		if !strings.HasSuffix(name, ".txt") {
			fmt.Fprintf(&objects, "---\n# Source: %s\n%s", name, strings.TrimPrefix(body, "---\n"))
			continue
		}
		fmt.Fprintf(&notes, "---\n# Source: %s\n", name)
		for line := range strings.Lines(body) {
			notes.WriteString(strings.TrimRight("# "+line, " \n") + "\n")
		}
	}
	return regexp.MustCompile(`(?m) +$`).ReplaceAllString(objects.String()+notes.String(), "")
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
