package main

import (
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
)

// TestMetrics scrapes a daemon to which something of everything has happened,
// and holds what it serves against what is said and made of it elsewhere.
func TestMetrics(t *testing.T) {
	text := eventfulScrape(t)
	t.Run("README", func(t *testing.T) { readmeHasTheMetrics(t, text) })
	t.Run("lint", func(t *testing.T) {
		problems, err := promlint.New(strings.NewReader(text)).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	})
	t.Run("promtool", func(t *testing.T) { promtool(t, text, "check", "metrics") })
	t.Run("rules", func(t *testing.T) { rulesAreSound(t, text) })
	t.Run("dashboard", func(t *testing.T) { dashboardIsSound(t, text) })
}

// eventfulScrape returns the metrics of a daemon after pushes of all outcomes.
func eventfulScrape(t *testing.T) string {
	t.Helper()
	r := startRunning(t, "S3DAEMON_ATTEMPTS=2")
	wantStatus := func(what string, want, got int, err error) {
		t.Helper()
		if err != nil || got != want {
			t.Fatalf("%s: %d, %v, want %d", what, got, err, want)
		}
	}
	post := func(what string, want int, form url.Values) {
		t.Helper()
		resp, err := http.PostForm(r.url+"/push", form)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		wantStatus(what, want, resp.StatusCode, nil)
	}
	r.spoil.Store(1)
	status, err := r.push(http.DefaultClient, "retried")
	wantStatus("a push whose first attempt fails", http.StatusOK, status, err)

	large := filepath.Join(r.dir, "large")
	if err := os.WriteFile(large, make([]byte, 33<<20), 0o644); err != nil {
		t.Fatal(err)
	}
	post("a file in parts", http.StatusOK, url.Values{"file": {large}, "destination": {"s3://bucket/large"}})
	post("no such bucket", http.StatusBadGateway, url.Values{"file": {large}, "destination": {"s3://none/large"}})
	post("no such file", http.StatusNotFound, url.Values{"file": {large + "st"}, "destination": {"s3://bucket/large"}})
	post("no field at all", http.StatusBadRequest, nil)

	resp, err := http.Get(r.url + "/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	wantStatus("the scrape", http.StatusOK, resp.StatusCode, err)
	return string(text)
}

func readmeHasTheMetrics(t *testing.T, scrape string) {
	var served []string
	for _, m := range regexp.MustCompile(`(?m)^# TYPE (\S+) (\S+)$`).FindAllStringSubmatch(scrape, -1) {
		if name, kind := m[1], m[2]; !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			served = append(served, name+" "+kind)
		}
	}
	var listed []string
	for _, row := range section(t, "Health, metrics, logs") {
		cells := strings.Split(row, "|")
		listed = append(listed, strings.Trim(cells[1], " `")+" "+strings.TrimSpace(cells[2]))
	}
	slices.Sort(served)
	slices.Sort(listed)
	if !slices.Equal(served, listed) {
		t.Errorf("served: %s\nlisted: %s", strings.Join(served, "\n\t"), strings.Join(listed, "\n\t"))
	}
}

// promtool runs Prometheus' own checker, which must find nothing.
func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	tool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("there is no promtool, which Debian has in its package prometheus")
	}
	cmd := exec.CommandContext(t.Context(), tool, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}
