package k8s

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestLongLink has the chart set what long links need of the network of a pod, in
// a namespace that enforces the restricted standard, and reads it where it counts.
func TestLongLink(t *testing.T) {
	t.Parallel()
	n := newNamespace(t, restricted)
	s := n.startStore("raw")
	const wmem = "4096 16384 67108864"
	link := map[string]any{"enabled": true, "tcpWmem": wmem}
	idle := serverMinor(t) >= 37
	if idle {
		link["slowStartAfterIdle"] = 0
	} else {
		t.Log("tcp_slow_start_after_idle is no safe sysctl before Kubernetes 1.37")
	}
	e := startExample(n, "link", s, map[string]any{"longLink": link})
	if got := strings.Join(strings.Fields(e.writer("cat", "/proc/sys/net/ipv4/tcp_wmem")), " "); got != wmem {
		t.Errorf("net.ipv4.tcp_wmem in the pod is %q, want %q", got, wmem)
	}
	if idle {
		if got := strings.TrimSpace(e.writer("cat", "/proc/sys/net/ipv4/tcp_slow_start_after_idle")); got != "0" {
			t.Errorf("net.ipv4.tcp_slow_start_after_idle in the pod is %q, want 0", got)
		}
	}
	s.untilSome()
	metrics := e.writer("wget", "-q", "-O", "-", "http://127.0.0.1:15556/metrics")
	found := regexp.MustCompile(`s3daemon_tcp_congestion_info\{algorithm="(\w+)"\} 1`).FindStringSubmatch(metrics)
	if found == nil {
		t.Fatal("the metrics do not tell which congestion control is at work")
	}
	t.Logf("congestion control in the pod: %s", found[1])
}

// untilSome waits until the store has an object.
func (s *store) untilSome() {
	s.n.t.Helper()
	s.n.until(patience, "the store has an object", func() error {
		all, err := s.tryObjects()
		if err == nil && len(all) == 0 {
			err = errNotYet
		}
		return err
	})
}

// serverMinor returns the second number of the cluster's version.
func serverMinor(t testing.TB) int {
	t.Helper()
	var version struct {
		ServerVersion struct {
			Minor string `json:"minor"` // 29, or 29+
		} `json:"serverVersion"`
	}
	if err := json.Unmarshal([]byte(kubectl(t, "version", "--output", "json")), &version); err != nil {
		t.Fatal(err)
	}
	minor, err := strconv.Atoi(strings.TrimRight(version.ServerVersion.Minor, "+"))
	if err != nil {
		t.Fatal(err)
	}
	return minor
}
