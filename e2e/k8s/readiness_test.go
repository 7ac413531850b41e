package k8s

import (
	"encoding/json"
	"net"
	"slices"
	"strings"
	"testing"
)

// TestReadiness has a daemon drain, with a large file under way, and demands that
// it is not ready from then on, though it still runs; by either kind of probe.
func TestReadiness(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"exec", "http"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			d := startNode(t, map[string]any{
				"ops":    map[string]any{"enabled": true},
				"probes": map[string]any{"by": by, "readiness": map[string]any{"periodSeconds": 1, "failureThreshold": 1}},
			})
			n := newNamespace(t, privileged)
			d.s.setRate(1 << 20)
			w := d.writer(n, "w", []int{socketGroup}, "", "-size", "12000000", "-by", "send-flags")
			d.n.until(patience, "its file is under way", func() error {
				if d.s.counts().UnderWay == 0 {
					return errNotYet
				}
				return nil
			})
			name := d.daemon().Metadata.Name
			watch := d.n.watch(name)
			d.n.kubectl("delete", "pod", name, "--wait=false")
			last := watch.untilGone(patience)
			unready := slices.ContainsFunc(watch.states(), func(e podEvent) bool {
				o := e.Object
				return o.Metadata.UID == last.Metadata.UID && o.Metadata.DeletionTimestamp != nil &&
					o.container("s3daemon").State.Running != nil && !o.ready()
			})
			if !unready {
				t.Error("it was ready as long as it ran")
			}
			if line := linesOf[written](w.all())[0]; !line.OK {
				t.Errorf("its file: %s", line.Answer)
			}
		})
	}
}

// TestScrape reads metrics from another pod, as Prometheus does, and finds that
// nothing else is to be had there.
func TestScrape(t *testing.T) {
	t.Parallel()
	d := startNode(t, map[string]any{"ops": map[string]any{"enabled": true}})
	n := newNamespace(t, restricted)
	other := n.startStore()
	base := "http://" + net.JoinHostPort(d.daemon().Status.PodIP, "9090")
	for path, want := range map[string]int{"/metrics": 200, "/readyz": 200, "/healthz": 200, "/pushes": 404, "/": 404} {
		var answer struct {
			Status int    `json:"status"`
			Body   string `json:"body"`
		}
		if err := json.Unmarshal([]byte(other.n.exec("store", "store", "/tool", "ask", "GET", base+path)), &answer); err != nil {
			t.Fatal(err)
		}
		if answer.Status != want {
			t.Errorf("GET %s is answered %d, want %d", path, answer.Status, want)
		}
		if path == "/metrics" && !strings.Contains(answer.Body, "s3daemon_build_info") {
			t.Errorf("GET /metrics has no s3daemon_build_info")
		}
	}
}
