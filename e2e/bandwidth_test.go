package e2e

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// The limit is what its file says, and what that says by SIGHUP while files are
// on their way. Limits are low, so that only they hold the daemon up.
func TestBandwidthFollowsItsFile(t *testing.T) {
	limit := filepath.Join(t.TempDir(), "bandwidth")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(limit, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("8M\n")
	p := storeProxy(t)
	d := startDaemon(t, "S3_ENDPOINT_URL="+p.url(), "S3DAEMON_BANDWIDTH="+limit)
	bucket := newBucket(t)
	var ids []string
	for n := range 4 { // on several connections
		ids = append(ids, d.pushAsync(t, makeFile(t, fmt.Sprint("file", n), 18_000_000), fmt.Sprintf("s3://%s/%d", bucket, n)).ID)
	}
	waitFor(t, "bytes to flow", func() bool { return p.bytesSent() > 1<<20 })
	changes := 0
	change := func(text string) {
		t.Helper()
		write(text)
		d.signal(syscall.SIGHUP)
		changes++
		d.logged(t, changes, "the bandwidth was read again")
	}
	wantRate(t, p, 8e6/8)
	change("40M\n")
	wantRate(t, p, 40e6/8)
	if got := d.metric("s3daemon_bandwidth_limit_bytes_per_second"); got != 5e6 {
		t.Errorf("the metric says %v", got)
	}
	write("fast")
	d.signal(syscall.SIGHUP)
	d.logged(t, 1, "the bandwidth stays as it is")
	wantRate(t, p, 40e6/8)
	change("0")
	for _, id := range ids {
		d.doneOf(t, id)
	}
}

// wantRate measures how many bytes a second reach the store, over some seconds of
// which the middle one counts: this machine may stand still for a moment.
func wantRate(t *testing.T, p *proxy, want float64) {
	t.Helper()
	var rates []float64
	for range 3 {
		begun, before := time.Now(), p.bytesSent()
		<-time.After(time.Second)
		rates = append(rates, float64(p.bytesSent()-before)/time.Since(begun).Seconds())
	}
	slices.Sort(rates)
	if got := rates[1]; math.Abs(got-want) > want/10 {
		t.Errorf("%.0f bytes a second reach the store, want %.0f: all of %.0f", got, want, rates)
	}
}
