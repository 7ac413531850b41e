package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// controlEnv makes the test binary be a bare net/http server instead of the
// tests: see startControl.
const controlEnv = "S3DAEMON_E2E_CONTROL"

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

// startControl starts a bare net/http server in a process of its own, as the
// daemon is one, and returns its address.
func startControl(t testing.TB) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = []string{controlEnv + "=1"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	life, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		life.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the bare server: %v", err)
		}
	})
	var addr string
	if _, err := fmt.Fscan(out, &addr); err != nil {
		t.Fatalf("the bare server names no address: %v", err)
	}
	return addr
}

// How a prober asks, and what is late.
const (
	probeEvery  = 50 * time.Millisecond
	probeGiveUp = 20 * time.Second
	healthLimit = 100 * time.Millisecond
)

// prober asks for /healthz at fixed times, each over a connection of its own as
// kubelet does, and a bare net/http server at the same moments. What the machine
// does to both says nothing of the daemon.
type prober struct {
	control *probed
	probed  []*probed
	stop    chan struct{}
	done    sync.WaitGroup
}

// probed is one server and what it took for its answers, in the order of the
// moments.
type probed struct {
	name   string
	client *http.Client
	mu     sync.Mutex // guards what follows
	took   []time.Duration
	errs   []error
}

// startProber asks from now on, until end.
func startProber(t testing.TB, targets map[string]string) *prober {
	t.Helper()
	p := &prober{control: newProbed("a bare server", startControl(t)), stop: make(chan struct{})}
	for name, addr := range targets {
		p.probed = append(p.probed, newProbed(name, addr))
	}
	p.done.Go(p.run)
	t.Cleanup(p.halt)
	return p
}

func newProbed(name, addr string) *probed {
	client := clientOf(addr)
	client.Timeout = probeGiveUp
	client.Transport.(*http.Transport).DisableKeepAlives = true
	return &probed{name: name, client: client}
}

func (p *prober) run() {
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for moment := 0; ; moment++ {
		select {
		case <-p.stop:
			return
		case <-tick.C:
		}
		for _, one := range append([]*probed{p.control}, p.probed...) {
			p.done.Go(func() { one.probe(moment) })
		}
	}
}

// probe asks once, and notes what that took at its moment.
func (p *probed) probe(moment int) {
	begun := time.Now()
	err := p.ask()
	took := time.Since(begun)
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.took) <= moment {
		p.took = append(p.took, 0)
	}
	p.took[moment] = took
	if err != nil {
		p.errs = append(p.errs, fmt.Errorf("%s, after %v: %w", p.name, took, err))
	}
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

// halt ends the asking and waits for the answers.
func (p *prober) halt() {
	select {
	case <-p.stop:
	default:
		close(p.stop)
	}
	p.done.Wait()
}

// end ends the asking, and fails the test where health was refused or, more
// than a few times, answered late.
func (p *prober) end(t testing.TB) {
	t.Helper()
	p.halt()
	t.Logf("%s", p.control)
	for _, err := range p.control.errs {
		t.Fatalf("the bare server that is probed beside the daemon: %v", err)
	}
	for _, one := range p.probed {
		t.Logf("%s", one)
		for _, err := range one.errs[:min(len(one.errs), 5)] {
			t.Errorf("health was not answered: %v", err)
		}
		if late, most := one.late(), p.control.mayBeLate(); late > most {
			t.Errorf("%s took over %v for %d of %d answers, a bare server for %d", one.name, healthLimit, late, len(one.took), p.control.late())
		}
	}
}

// late returns how many answers took too long.
func (p *probed) late() (late int) {
	for _, took := range p.took {
		if took > healthLimit {
			late++
		}
	}
	return late
}

// mayBeLate is how many answers of another server may be late beside these: on a
// machine that keeps even this one waiting, a busy one waits more often; and a
// moment in which the kernel ran another process says nothing of any.
func (p *probed) mayBeLate() int { return 3*p.late() + 2 + len(p.took)/1000 }

// String says how long the answers took.
func (p *probed) String() string {
	sorted := slices.Sorted(slices.Values(p.took))
	if len(sorted) == 0 {
		return p.name + " was not probed"
	}
	at := func(part float64) time.Duration {
		return sorted[int(part*float64(len(sorted)-1))].Round(10 * time.Microsecond)
	}
	return fmt.Sprintf("%s, %d probes: median %v, 99 %% %v, 99.9 %% %v, worst %v; %d took over %v",
		p.name, len(sorted), at(0.5), at(0.99), at(0.999), at(1), p.late(), healthLimit)
}

// What finds a late answer must be able to.
func TestProber(t *testing.T) {
	server := func(late int) *probed {
		p := &probed{took: make([]time.Duration, 1000)}
		for i := range late {
			p.took[i] = healthLimit + 1
		}
		return p
	}
	for _, tt := range []struct {
		late, control int
		allowed       bool
	}{{0, 0, true}, {3, 0, true}, {4, 0, false}, {30, 10, true}, {60, 10, false}} {
		if allowed := server(tt.late).late() <= server(tt.control).mayBeLate(); allowed != tt.allowed {
			t.Errorf("that %d are late beside %d is allowed: %v", tt.late, tt.control, allowed)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone := l.Addr().String()
	l.Close()
	p := startProber(t, map[string]string{"nobody": gone})
	waitFor(t, "a few probes", func() bool {
		p.control.mu.Lock()
		defer p.control.mu.Unlock()
		return len(p.control.took) > 2
	})
	p.halt()
	if len(p.control.errs) > 0 || len(p.probed[0].errs) < 3 {
		t.Errorf("of the bare server: %v; of nobody: %v", p.control.errs, p.probed[0].errs)
	}
}
