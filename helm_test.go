package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	rulesFile     = "helm/rules/s3daemon.rules.yaml"
	rulesTestFile = "helm/rules/s3daemon.test.yaml"
	dashboardFile = "helm/dashboards/s3daemon.json"
)

// rulesAreSound looks at the rules for Prometheus: what they are made of is
// served, what they say leads somewhere, and each has been tried.
func rulesAreSound(t *testing.T, scrape string) {
	rules, cases := readText(t, rulesFile), readText(t, rulesTestFile)
	for _, m := range regexp.MustCompile(`(?m)^    expr: (.*(?:\n      .*)*)`).FindAllStringSubmatch(rules, -1) {
		isServed(t, m[1], scrape)
	}
	isServed(t, cases, scrape)

	_, calm, found := strings.Cut(cases, "- name: all is well\n")
	calm, _, _ = strings.Cut(calm, "- name: ")
	if !found {
		t.Fatal("there is no case in which all is well")
	}
	readme := readText(t, "README.md")
	blocks := strings.Split(rules, "\n  - alert: ")
	for _, block := range blocks[1:] {
		name, body, _ := strings.Cut(block, "\n")
		for _, want := range []string{"labels: {severity: ", "summary: ", "description: ", "runbook_url: "} {
			if !strings.Contains(body, want) {
				t.Errorf("%s has no %q", name, want)
			}
		}
		checkLinks(t, body)
		if !strings.Contains(readme, "\n| "+name+" |") {
			t.Errorf("README.md does not say what to do about %s", name)
		}
		if !strings.Contains(cases, `alertname="`+name+`",`) {
			t.Errorf("there is no case in which %s fires", name)
		}
		expr, _, _ := strings.Cut(body, "    labels:")
		for _, metric := range metricsIn(expr) {
			if !strings.Contains(calm, "'"+metric.name+"{") {
				t.Errorf("while all is well there is no %s, by which %s could fire", metric.name, name)
			}
		}
	}
	if documented := strings.Count(readme, "\n| S3daemon"); documented != len(blocks)-1 {
		t.Errorf("README.md has %d alerts, and there are %d", documented, len(blocks)-1)
	}
	t.Run("promtool", func(t *testing.T) {
		promtool(t, "", "check", "rules", rulesFile)
		promtool(t, "", "test", "rules", rulesTestFile)
	})
}

// dashboard is what is looked at of one of Grafana's.
type dashboard struct {
	Templating struct {
		List []struct{ Name, Definition string }
	}
	Panels []panel
}

type panel struct {
	ID                       int
	Type, Title, Description string
	Datasource               struct{ UID string }
	GridPos                  struct{ X, Y, W, H int }
	FieldConfig              struct{ Defaults struct{ Unit string } }
	Targets                  []struct{ RefID, Expr string }
}

// dashboardIsSound looks at the dashboard for Grafana: what it shows is served,
// and each panel says what it is.
func dashboardIsSound(t *testing.T, scrape string) {
	text := readText(t, dashboardFile)
	checkLinks(t, text)
	var d dashboard
	if err := json.Unmarshal([]byte(text), &d); err != nil {
		t.Fatal(err)
	}
	for _, v := range d.Templating.List {
		isServed(t, v.Definition, scrape)
	}
	var generated strings.Builder // a file of rules, which promtool can read
	generated.WriteString("groups:\n- name: dashboard\n  rules:\n")
	for i, p := range d.Panels {
		for _, other := range d.Panels[:i] {
			if p.ID == other.ID || p.overlaps(other) {
				t.Errorf("the panels %q and %q have one id or one place", p.Title, other.Title)
			}
		}
		if p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q is wider than its row", p.Title)
		}
		if p.Type == "row" {
			continue
		}
		if p.Title == "" || p.Description == "" || p.FieldConfig.Defaults.Unit == "" || p.Datasource.UID != "${datasource}" || len(p.Targets) == 0 {
			t.Errorf("panel %d %q lacks a title, a description, a unit, the data source or what it shows", p.ID, p.Title)
		}
		for _, target := range p.Targets {
			isServed(t, target.Expr, scrape)
			for _, m := range metricsIn(target.Expr) {
				if !strings.HasSuffix(m.selector, `namespace=~"$namespace",pod=~"$pod",instance=~"$instance"`) {
					t.Errorf("panel %q shows %s of others than those that were chosen", p.Title, m.name)
				}
			}
			expr := strings.NewReplacer("$__rate_interval", "5m", "$__range", "1h").Replace(target.Expr)
			fmt.Fprintf(&generated, "  - {record: 'panel:%d:%s', expr: %q}\n", p.ID, target.RefID, expr)
		}
	}
	t.Run("promtool", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "rules.yaml")
		if err := os.WriteFile(file, []byte(generated.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		promtool(t, "", "check", "rules", file)
	})
}

func (p panel) overlaps(q panel) bool {
	a, b := p.GridPos, q.GridPos
	return a.X < b.X+b.W && b.X < a.X+a.W && a.Y < b.Y+b.H && b.Y < a.Y+a.H
}

// metric is one that an expression names: name{selector}.
type metric struct{ name, selector string }

// metricsIn returns the daemon's own metrics in an expression, or in several.
// Those of recording rules have a colon in their names.
func metricsIn(expr string) (found []metric) {
	for _, m := range regexp.MustCompile(`([\w:]+)(?:\{([^}]*)\})?`).FindAllStringSubmatch(expr, -1) {
		if strings.HasPrefix(m[1], "s3daemon_") {
			found = append(found, metric{m[1], m[2]})
		}
	}
	return found
}

// labelsOfOthers are not the daemon's: Prometheus gives them to what it scrapes
// and to alerts, and histograms have le.
var labelsOfOthers = []string{"instance", "job", "namespace", "pod", "le", "alertname"}

// isServed checks that each metric in an expression is in the scrape, and each
// label with the value that is asked for.
func isServed(t *testing.T, expr, scrape string) {
	t.Helper()
	has := func(pattern string) bool { return regexp.MustCompile(`(?m)^` + pattern).MatchString(scrape) }
	known := func(label string) bool { return slices.Contains(labelsOfOthers, label) }
	for _, m := range metricsIn(expr) {
		if !has(m.name + `[{ ]`) {
			t.Errorf("the daemon has no metric %s, which is in\n%s", m.name, expr)
		}
		for _, l := range regexp.MustCompile(`(\w+)(?:=~|!~|!=|=)"([^"]*)"`).FindAllStringSubmatch(m.selector, -1) {
			for value := range strings.SplitSeq(l[2], "|") {
				if !known(l[1]) && l[1] != "version" && !has(m.name+`\{.*\b`+l[1]+`="`+value+`"`) {
					t.Errorf("%s never has %s=%q, which is in\n%s", m.name, l[1], value, expr)
				}
			}
		}
	}
	for _, group := range regexp.MustCompile(`\b(?:by|without|on|ignoring) \(([^)]*)\)`).FindAllStringSubmatch(expr, -1) {
		for label := range strings.SplitSeq(group[1], ", ") {
			if !known(label) && !has(`s3daemon_\w+\{.*\b`+label+`="`) {
				t.Errorf("no metric has the label %q, which is in\n%s", label, expr)
			}
		}
	}
}

// checkLinks checks that what leads to the README ends at one of its headings.
func checkLinks(t *testing.T, text string) {
	t.Helper()
	anchors := make(map[string]bool)
	for _, heading := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readText(t, "README.md"), -1) {
		anchor := regexp.MustCompile(`[^a-z0-9 _-]`).ReplaceAllString(strings.ToLower(heading[1]), "")
		anchors[strings.ReplaceAll(anchor, " ", "-")] = true
	}
	links := regexp.MustCompile(`https://github\.com/lsst-dm/s3daemon/blob/main/README\.md#([\w-]+)`).FindAllStringSubmatch(text, -1)
	if len(links) == 0 {
		t.Errorf("this leads to no place of the README:\n%s", text)
	}
	for _, link := range links {
		if !anchors[link[1]] {
			t.Errorf("README.md has no place #%s", link[1])
		}
	}
}

func readText(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestChartSettings tells that each variable of the daemon is either set by the
// chart's templates, from values of their own, or one of its settings.
func TestChartSettings(t *testing.T) {
	var schema struct {
		Properties struct {
			Settings struct{ Properties map[string]any }
		}
	}
	if err := json.Unmarshal([]byte(readText(t, "helm/values.schema.json")), &schema); err != nil {
		t.Fatal(err)
	}
	settings := schema.Properties.Settings.Properties
	var templates strings.Builder
	files, err := filepath.Glob("helm/templates/_*.tpl")
	if err != nil || len(files) == 0 {
		t.Fatalf("there are no templates: %v", err)
	}
	for _, file := range files {
		templates.WriteString(readText(t, file))
	}
	known := slices.Clone(others)
	for _, v := range variables() {
		if !strings.HasPrefix(v.name, "S3DAEMON_") {
			continue
		}
		known = append(known, v.name)
		set := regexp.MustCompile(`\b` + v.name + `\b`).MatchString(templates.String())
		_, setting := settings[v.name]
		if inBoth := v.name == "S3DAEMON_ROOTS"; set == setting && !inBoth { // roots: of the mounts, unless said
			t.Errorf("%s: set by a template is %v, and one of the settings %v", v.name, set, setting)
		}
	}
	names := regexp.MustCompile(`S3DAEMON_[A-Z_]+`).FindAllString(templates.String(), -1)
	for name := range settings {
		names = append(names, name)
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			t.Errorf("the chart knows %s, which is no variable", name)
		}
	}
}
