package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Two hundred who watch are told the same, which is made once for all of them.
func TestManyWatchers(t *testing.T) {
	const crowd, seconds = 200, 4
	d := startDaemon(t)
	before := d.openLoad()
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	all := make([]*eventStream, crowd)
	for i := range all {
		all[i] = d.watch(t)
		all[i].quick = true
	}
	begun := d.cpu()
	d.pushAsync(t, file, "s3://"+bucket+"/key")
	told := make([]map[string]string, crowd) // by name and number
	var watching sync.WaitGroup
	for i, s := range all {
		told[i] = make(map[string]string)
		watching.Go(func() {
			for statuses := 0; statuses <= seconds; {
				e := s.next()
				if e.name == "" {
					t.Error("the stream has ended")
					return
				}
				if e.name == "status" {
					statuses++
				}
				told[i][fmt.Sprint(e.name, " ", e.number)] = e.text
			}
			s.body.Close()
		})
	}
	watching.Wait()
	t.Logf("%d who watch for %d s cost %v", crowd, seconds, d.cpu()-begun)
	numbers := make(map[string]string)
	for _, one := range told {
		for name, text := range one {
			if strings.HasPrefix(name, "history") { // told again with later frames
				continue
			}
			if known, found := numbers[name]; found && known != text {
				t.Fatalf("%s was made twice:\n%s\n%s", name, known, text)
			}
			numbers[name] = text
		}
	}
	checkReturns(t, d, before)
}

// A watcher that is killed leaves nothing behind.
func TestWatcherKilled(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl here")
	}
	d := startDaemon(t)
	before := d.openLoad()
	cmd := exec.Command(curl, "-sSN", "--noproxy", "*", d.url+"/events")
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 1<<20)
	for told := 0; told < 2 && lines.Scan(); {
		if lines.Text() == "event: status" {
			told++
		}
	}
	if n := d.metric(`s3daemon_callers{listener="api",state="serving"}`); n != 1 {
		t.Errorf("%v are served", n)
	}
	cmd.Process.Kill()
	io.Copy(io.Discard, out)
	cmd.Wait()
	checkReturns(t, d, before)
	if n := d.metric(`s3daemon_callers{listener="api",state="serving"}`); n != 0 {
		t.Errorf("%v are served", n)
	}
}

// Thousands who open /events, and do not read what they are told, keep nobody
// out: as many watch as may wait, the others are told to come again, and pushes,
// lists and health are served.
func TestWatchersByTheThousand(t *testing.T) {
	crowd := 5000
	if testing.Short() || raceBuild() {
		crowd = 3500
	}
	const most = 1000 // of 2000 callers
	needDescriptors(t, crowd+1000)
	d := startDaemon(t, "S3DAEMON_OPS_LISTEN=127.0.0.1:0")
	bucket, file := newBucket(t), makeFile(t, "file", 1000)
	before := d.openLoad()
	memory := d.memory("RssAnon")
	prober := startProber(t, d.cmd.Process.Pid, map[string]string{"/healthz of its own": d.opsAddress(t)})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var in, refused, other atomic.Int64
	var hoarders sync.WaitGroup
	for i := range crowd {
		hoarders.Go(func() {
			c, err := dialFrom(ctx, i, d.addrs[0])
			if err != nil {
				other.Add(1)
				return
			}
			defer context.AfterFunc(ctx, func() { c.Close() })()
			defer c.Close()
			io.WriteString(c, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
			resp, err := http.ReadResponse(bufio.NewReaderSize(c, 16), nil)
			switch {
			case err != nil:
				other.Add(1)
				return
			case resp.StatusCode == http.StatusServiceUnavailable:
				refused.Add(1)
				return
			}
			in.Add(1)
			<-ctx.Done()
		})
	}
	waitFor(t, "all to have an answer", func() bool { return in.Load()+refused.Load()+other.Load() == int64(crowd) })
	if in.Load() != most || refused.Load() == 0 {
		t.Errorf("%d watch, %d were refused, %d had no answer", in.Load(), refused.Load(), other.Load())
	}
	for i := range 20 {
		d.push(t, file, fmt.Sprintf("s3://%s/honest/%d", bucket, i)).done(t)
		if a := d.get(t, "/pushes?limit=5"); a.status != http.StatusOK {
			t.Errorf("a list: %d", a.status)
		}
	}
	d.get(t, "/events").refused(t, http.StatusServiceUnavailable, "too_many_callers")
	t.Logf("%d watch, %d were refused; memory went from %d MB to %d MB", in.Load(), refused.Load(), memory>>20, d.memory("RssAnon")>>20)
	prober.inTime()
	cancel()
	hoarders.Wait()
	checkReturns(t, d, before)
}

// cpu returns the time on processors that the daemon has had.
func (d *daemon) cpu() time.Duration {
	d.t.Helper()
	return time.Duration(d.metric("process_cpu_seconds_total") * float64(time.Second))
}
