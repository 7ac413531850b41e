package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// controlEnv and proberEnv make the test binary be a bare net/http server, or
// what asks it and the daemon, instead of the tests: see prober.
const (
	controlEnv = "S3DAEMON_E2E_CONTROL"
	proberEnv  = "S3DAEMON_E2E_PROBER"
)

// serveControl is the process of that server, which answers what /healthz does
// and knows nothing else. It ends with its standard input.
func serveControl() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go func() {
		io.Copy(io.Discard, os.Stdin)
		l.Close()
	}()
	err = http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		io.WriteString(w, `{"status":"ok","version":"control","uptime_seconds":1}`+"\n")
	}))
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}

// How a prober asks, and what is late.
const (
	probeEvery  = 50 * time.Millisecond
	probeGiveUp = 20 * time.Second
	healthLimit = 100 * time.Millisecond
	leastProbes = 3 // of each server, however soon it is over
)

// prober asks for /healthz at fixed times, each over a connection of its own as
// kubelet does, and a bare net/http server at the same moments. What the machine
// does to both says nothing of the daemon. Nor does the time in which the daemon
// could have worked and other processes had the processors: a bare server that
// has nothing to do is let in front of these, a daemon that thousands keep busy
// is not. So that is noted too. The prober is a process of its own, which is this
// test binary started anew: thousands of callers in the tests' process would keep
// a prober there from its work.
type prober struct {
	t       testing.TB
	child   *child
	control *probed
	probed  []*probed
	halt    func()
}

// probed is one server and what it took for its answers, in the order of the
// moments.
type probed struct {
	Name, Addr string
	Process    int             // whose processors are looked at; 0: nobody's
	Took       []time.Duration // all in all
	Withheld   []time.Duration // while others had the processors, of the same answers
	Errs       []string

	mu     sync.Mutex // guards these three in the prober's process
	client *http.Client
}

// child is this test binary as another process, which ends with its standard
// input.
type child struct {
	life io.Closer
	out  io.Reader
	cmd  *exec.Cmd
}

// startChild starts one with that in its environment.
func startChild(t testing.TB, env string) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := &child{cmd: exec.Command(self)}
	c.cmd.Env = []string{env}
	c.cmd.Stderr = os.Stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if c.life, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if c.out, err = c.cmd.StdoutPipe(); err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

// startControl starts a bare net/http server in a process of its own, as the
// daemon is one, and returns its address.
func startControl(t testing.TB) string {
	t.Helper()
	c := startChild(t, controlEnv+"=1")
	t.Cleanup(func() {
		c.life.Close()
		if err := c.cmd.Wait(); err != nil {
			t.Errorf("the bare server: %v", err)
		}
	})
	var addr string
	if _, err := fmt.Fscan(c.out, &addr); err != nil {
		t.Fatalf("the bare server names no address: %v", err)
	}
	return addr
}

// startProber asks the process's addresses from now on, until the end.
func startProber(t testing.TB, process int, targets map[string]string) *prober {
	t.Helper()
	p := &prober{t: t, control: &probed{Name: "a bare server", Addr: startControl(t)}}
	for _, name := range slices.Sorted(maps.Keys(targets)) {
		p.probed = append(p.probed, &probed{Name: name, Addr: targets[name], Process: process})
	}
	servers, err := json.Marshal(append([]*probed{p.control}, p.probed...))
	if err != nil {
		t.Fatal(err)
	}
	p.child = startChild(t, proberEnv+"="+string(servers))
	p.halt = sync.OnceFunc(p.collect)
	t.Cleanup(p.halt)
	if _, err := fmt.Fscanln(p.child.out); err != nil { // the first question is out
		t.Fatalf("the prober does not begin: %v", err)
	}
	return p
}

// collect ends the asking, and waits for the answers.
func (p *prober) collect() {
	p.child.life.Close()
	var found []*probed
	if err := json.NewDecoder(p.child.out).Decode(&found); err != nil {
		p.t.Errorf("the prober does not tell what it found: %v", err)
	} else {
		p.control, p.probed = found[0], found[1:]
	}
	if err := p.child.cmd.Wait(); err != nil {
		p.t.Errorf("the prober: %v", err)
	}
}

// probe is the prober's process. It asks until its standard input ends, and
// tells what became of it.
func probe(servers string) error {
	var all []*probed
	if err := json.Unmarshal([]byte(servers), &all); err != nil {
		return err
	}
	for _, one := range all {
		one.client = &http.Client{Timeout: probeGiveUp, Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dialPlain(ctx, one.Addr) },
			DisableKeepAlives: true,
		}}
	}
	over := make(chan struct{})
	go func() {
		io.Copy(io.Discard, os.Stdin)
		close(over)
	}()
	var asking sync.WaitGroup
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for moment, more := 0, true; more || moment < leastProbes; moment++ {
		for _, one := range all {
			asking.Go(func() { one.probe(moment) })
		}
		if moment == 0 {
			fmt.Println()
		}
		<-tick.C
		select {
		case <-over:
			more = false
		default:
		}
	}
	asking.Wait()
	return json.NewEncoder(os.Stdout).Encode(all)
}

// probe asks once, and notes what that took at its moment.
func (p *probed) probe(moment int) {
	waited := readyTime(p.Process)
	begun := time.Now()
	err := p.ask()
	took := time.Since(begun)
	withheld := max(0, min(took, (readyTime(p.Process)-waited)/time.Duration(runtime.NumCPU())))
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.Took) <= moment {
		p.Took, p.Withheld = append(p.Took, 0), append(p.Withheld, 0)
	}
	p.Took[moment], p.Withheld[moment] = took, withheld
	if err != nil {
		p.Errs = append(p.Errs, fmt.Sprintf("%s, after %v: %v", p.Name, took, err))
	}
}

// readyTime is how long the threads of a process were ready to run so far, and
// did not, all together.
func readyTime(process int) (all time.Duration) {
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", process))
	for _, t := range threads {
		var ran, ready int64
		text, err := os.ReadFile(t)
		if _, bad := fmt.Sscan(string(text), &ran, &ready); err == nil && bad == nil {
			all += time.Duration(ready)
		}
	}
	return all
}

func (p *probed) ask() error {
	req, err := http.NewRequestWithContext(context.Background(), "GET", "http://localhost/healthz", nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && (resp.StatusCode != http.StatusOK || !strings.Contains(string(body), `"status":"ok"`)) {
		err = fmt.Errorf("%d: %s", resp.StatusCode, tail(body, 200))
	}
	return err
}

// answered ends the asking, and fails the test where health was refused.
func (p *prober) answered() {
	p.t.Helper()
	p.halt()
	p.t.Logf("%s", p.control)
	for _, err := range p.control.Errs {
		p.t.Fatalf("the bare server that is probed beside the daemon: %v", err)
	}
	for _, one := range p.probed {
		p.t.Logf("%s", one)
		for _, err := range one.Errs[:min(len(one.Errs), 5)] {
			p.t.Errorf("health was not answered: %v", err)
		}
	}
}

// inTime is answered, and fails the test where health was answered late, at all
// those addresses or the named ones: more than a few times though the daemon had
// the processors, or every other time whoever had them.
func (p *prober) inTime(names ...string) {
	p.t.Helper()
	p.answered()
	for _, one := range p.probed {
		if names != nil && !slices.Contains(names, one.Name) {
			continue
		}
		if why := one.tooLate(p.control); why != "" {
			p.t.Errorf("%s took over %v for too many answers: %s", one.Name, healthLimit, why)
		}
	}
}

// tooLate says why that is more often than may be beside a bare server, or "".
func (p *probed) tooLate(control *probed) string {
	switch {
	case p.late() > control.mayBeLate():
		return fmt.Sprintf("for %d of %d while it had processors, a bare server for %d", p.late(), len(p.Took), control.late())
	case p.at(0.5) > max(healthLimit, 3*control.at(0.5)):
		return "for most of them"
	}
	return ""
}

// late returns how many answers took too long, but for what was withheld.
func (p *probed) late() (late int) {
	for i, took := range p.Took {
		if took-p.Withheld[i] > healthLimit {
			late++
		}
	}
	return late
}

// mayBeLate is how many answers of another server may be late beside these: on a
// machine that keeps even this one waiting, a busy one waits more often; and a
// moment in which the kernel ran another process says nothing of any.
func (p *probed) mayBeLate() int { return 3*p.late() + 2 + len(p.Took)/1000 }

// at returns what so great a part of the answers took at most.
func (p *probed) at(part float64) time.Duration {
	if len(p.Took) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(p.Took))
	return sorted[int(part*float64(len(sorted)-1))]
}

// String says how long the answers took.
func (p *probed) String() string {
	over := 0
	for _, took := range p.Took {
		if took > healthLimit {
			over++
		}
	}
	at := func(part float64) time.Duration { return p.at(part).Round(10 * time.Microsecond) }
	return fmt.Sprintf("%s, %d probes: median %v, 99 %% %v, 99.9 %% %v, worst %v; %d took over %v, %d of them while it had processors",
		p.Name, len(p.Took), at(0.5), at(0.99), at(0.999), at(1), over, healthLimit, p.late())
}

// What finds a late answer must be able to.
func TestProber(t *testing.T) {
	server := func(late, withheld int) *probed {
		p := &probed{Took: make([]time.Duration, 1000), Withheld: make([]time.Duration, 1000)}
		for i := range late + withheld {
			p.Took[i] = 2 * healthLimit
		}
		for i := range withheld {
			p.Withheld[i] = healthLimit
		}
		return p
	}
	for _, tt := range []struct {
		late, withheld, control int
		allowed                 bool
	}{
		{0, 0, 0, true}, {3, 0, 0, true}, {4, 0, 0, false}, {30, 0, 10, true}, {60, 0, 10, false},
		{3, 400, 0, true}, {4, 400, 0, false}, {0, 600, 0, false}, {0, 600, 600, true},
	} {
		why := server(tt.late, tt.withheld).tooLate(server(tt.control, 0))
		if allowed := why == ""; allowed != tt.allowed {
			t.Errorf("that %d are late, and %d without processors, beside %d is allowed: %v, %s", tt.late, tt.withheld, tt.control, allowed, why)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	p := startProber(t, os.Getpid(), map[string]string{"nobody": gone})
	p.halt()
	if len(p.control.Errs) > 0 || len(p.control.Took) < leastProbes || len(p.probed[0].Errs) < leastProbes {
		t.Errorf("of the bare server: %v; of nobody: %v", p.control.Errs, p.probed[0].Errs)
	}
}
