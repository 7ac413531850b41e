package uploader

import (
	"bytes"
	"fmt"
	"log/slog"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// told returns what is told of these metrics just now.
func (r *rig) told(t testing.TB, names ...string) string {
	t.Helper()
	text, err := testutil.CollectAndFormat(connectionCollector{wire: r.wire}, expfmt.TypeTextPlain, names...)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestConnectionsAreTold: what is open is told, by as many labels as there are
// places, and each connection with all that the kernel knows of it.
func TestConnectionsAreTold(t *testing.T) {
	r := newRig(t)
	n := r.cfg.MaxConnections
	arrived, open := make(chan struct{}, n), make(chan struct{})
	r.spoil(func(w http.ResponseWriter, req *http.Request, next http.Handler) {
		arrived <- struct{}{}
		<-open
		next.ServeHTTP(w, req)
	})
	path, _ := r.file(t, "f", 100)
	var pushes sync.WaitGroup
	for i := range n {
		pushes.Go(func() {
			if _, err := r.Push(t.Context(), push.Request{File: path, Destination: fmt.Sprint("s3://bucket/", i)}); err != nil {
				t.Error(err)
			}
		})
	}
	for range n {
		<-arrived
	}
	if got := r.told(t, "s3daemon_pool_connections"); !strings.Contains(got, fmt.Sprintf(`{state="busy"} %d`, n)) || !strings.Contains(got, `{state="idle"} 0`) {
		t.Errorf("while all are busy:\n%s", got)
	}
	close(open)
	pushes.Wait()
	if got := r.told(t, "s3daemon_pool_connections"); !strings.Contains(got, `{state="busy"} 0`) || !strings.Contains(got, fmt.Sprintf(`{state="idle"} %d`, n)) {
		t.Errorf("while none is:\n%s", got)
	}
	for _, name := range []string{"age_seconds", "requests", "rtt_seconds", "window_bytes", "delivery_bytes_per_second", "rate_bytes_per_second",
		"retransmits", "buffer_limited_seconds", "receiver_limited_seconds"} {
		got := r.told(t, "s3daemon_connection_"+name)
		if runtime.GOOS != "linux" && name != "age_seconds" && name != "requests" {
			continue
		}
		for i := range n {
			if label := fmt.Sprintf(`{connection="%d"} `, i); strings.Count(got, label) != 1 {
				t.Errorf("%s of connection %d:\n%s", name, i, got)
			}
		}
	}
	if got := r.told(t, "s3daemon_pool_dials_total"); !strings.Contains(got, fmt.Sprintf("\ns3daemon_pool_dials_total %d\n", n)) {
		t.Errorf("dials:\n%s", got)
	}
}

func TestLogTCP(t *testing.T) {
	for _, tt := range []struct {
		wanted string
		tcp    transport.TCP
		want   []string
		not    string
	}{
		{"", transport.TCP{Algorithm: "bbr", SendBuffer: 64 << 20}, []string{"INFO", "congestion=bbr", "send_buffer_bytes=67108864"}, "hint"},
		{transport.Auto, transport.TCP{Algorithm: "cubic", Hint: "sysctl -w a=b"}, []string{"INFO", "congestion=cubic", `hint="sysctl -w a=b"`}, "WARN"},
		{"vegas", transport.TCP{Algorithm: "cubic", Hint: "modprobe tcp_vegas"}, []string{"WARN", "wanted=vegas", "congestion=cubic", `hint="modprobe tcp_vegas"`}, "INFO"},
		{"", transport.TCP{}, []string{"INFO", "congestion=unknown"}, "hint"},
	} {
		var out bytes.Buffer
		logTCP(slog.New(slog.NewTextHandler(&out, nil)), tt.wanted, tt.tcp)
		line := out.String()
		for _, want := range tt.want {
			if !strings.Contains(line, want) {
				t.Errorf("%q, %+v: the log has no %s: %s", tt.wanted, tt.tcp, want, line)
			}
		}
		if strings.Contains(line, tt.not) || strings.Count(line, "\n") != 1 {
			t.Errorf("%q, %+v: the log says %s", tt.wanted, tt.tcp, line)
		}
	}
}

// BenchmarkScrape asks for all that is told of as many connections as there may
// be.
func BenchmarkScrape(b *testing.B) {
	r := newRig(b, func(c *Config) { c.MaxConnections = 1000 })
	untilOpen := func() bool {
		return strings.Contains(r.told(b, "s3daemon_pool_connections"), `{state="idle"} 1000`)
	}
	for !untilOpen() {
	}
	for b.Loop() {
		if _, err := r.registry.Gather(); err != nil {
			b.Fatal(err)
		}
	}
}
