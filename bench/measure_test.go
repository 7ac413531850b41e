//go:build linux

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	hundred := make([]time.Duration, 100)
	for i := range hundred {
		hundred[i] = time.Duration(i + 1)
	}
	tests := []struct {
		sorted []time.Duration
		p      int
		want   time.Duration
	}{
		{[]time.Duration{7}, 50, 7},
		{[]time.Duration{7}, 99, 7},
		{[]time.Duration{1, 2}, 50, 1},
		{[]time.Duration{1, 2, 3}, 50, 2},
		{[]time.Duration{1, 2, 3}, 99, 3},
		{[]time.Duration{1, 2, 3}, 0, 1},
		{hundred, 50, 50},
		{hundred, 99, 99},
		{hundred, 100, 100},
	}
	for _, tt := range tests {
		if got := percentile(tt.sorted, tt.p); got != tt.want {
			t.Errorf("percentile(%d values, %d) = %d, want %d", len(tt.sorted), tt.p, got, tt.want)
		}
	}
}

func TestNewMeasurement(t *testing.T) {
	took := []time.Duration{3 * time.Millisecond, time.Millisecond, 2 * time.Millisecond, 4 * time.Millisecond}
	got := newMeasurement(took, 2*time.Second, 500_000_000, 4*time.Second, 30_000_000)
	want := measurement{
		Pushes: 4, Bytes: 2_000_000_000, Seconds: 2, PushesPerSec: 2, MBPerSec: 1000,
		P50Millis: 2, P99Millis: 4, CPUPerPush: 1000, CPUPerGB: 2, PeakMB: 30,
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestParsePeak(t *testing.T) {
	tests := []struct {
		status string
		want   int64 // -1: an error
	}{
		{"Name:\tx\nVmPeak:\t 999 kB\nVmHWM:\t   20 kB\nVmRSS:\t 10 kB\n", 20 << 10},
		{"VmHWM:\t7 kB", 7 << 10},
		{"Name:\tkthreadd\n", -1},
		{"VmHWM:\t7 MB\n", -1},
		{"VmHWM:\tmany kB\n", -1},
		{"", -1},
	}
	for _, tt := range tests {
		got, err := parsePeak(tt.status)
		if tt.want < 0 && err == nil || tt.want >= 0 && (err != nil || got != tt.want) {
			t.Errorf("parsePeak(%q) = %d, %v, want %d", tt.status, got, err, tt.want)
		}
	}
}

// TestCPUTime burns CPU time in a thread that ends, and expects it in the
// process's account.
func TestCPUTime(t *testing.T) {
	const burn = 30 * time.Millisecond
	before, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	tid := burnInThread(t, burn)
	if tid == os.Getpid() { // the one thread that stays when it is done with
		tid = burnInThread(t, burn)
	}
	for deadline := time.Now().Add(10 * time.Second); syscall.Tgkill(os.Getpid(), tid, 0) == nil; {
		if time.Now().After(deadline) {
			t.Fatal("the thread never ended")
		}
		runtime.Gosched()
	}
	after, err := cpuTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if after-before < burn {
		t.Errorf("the clock counted %v of the %v that were used", after-before, burn)
	}
	var ru syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &ru); err != nil {
		t.Fatal(err)
	}
	if all := time.Duration(ru.Utime.Nano() + ru.Stime.Nano()); after > all+time.Second {
		t.Errorf("the clock says %v, getrusage %v", after, all)
	}
	if _, err := cpuTime(1 << 28); err == nil {
		t.Error("a process that there cannot be has used CPU time")
	}
}

// burnInThread burns CPU time in a thread that is about to end then, and
// returns its number.
func burnInThread(t *testing.T, burn time.Duration) int {
	t.Helper()
	thread := make(chan int)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		used := func() time.Duration {
			var ru syscall.Rusage
			if err := syscall.Getrusage(syscall.RUSAGE_THREAD, &ru); err != nil {
				t.Error(err)
				return time.Hour
			}
			return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
		}
		for before := used(); used()-before < burn; {
		}
		thread <- syscall.Gettid()
	}()
	return <-thread
}

func TestSpread(t *testing.T) {
	tests := []struct {
		values []float64
		want   spread
		text   string
	}{
		{[]float64{5}, spread{5, 5, 5}, "5.0"},
		{[]float64{3, 1, 2}, spread{2, 1, 3}, "2.0 (1.0 to 3.0)"},
		{[]float64{4000, 1, 2, 3}, spread{2.5, 1, 4000}, "2.5 (1.0 to 4,000.0)"},
	}
	for _, tt := range tests {
		got := spreadOf(tt.values, func(v float64) float64 { return v })
		if got != tt.want || got.text(1) != tt.text {
			t.Errorf("spreadOf(%v) = %+v, as text %q; want %+v, %q", tt.values, got, got.text(1), tt.want, tt.text)
		}
	}
	got := ratioOf([]measurement{{CPUPerPush: 4}, {CPUPerPush: 9}}, []measurement{{CPUPerPush: 2}, {CPUPerPush: 3}})
	if want := (spread{2.5, 2, 3}); got != want {
		t.Errorf("the ratio is %+v, want %+v", got, want)
	}
}

func TestNumber(t *testing.T) {
	for want, v := range map[string]float64{"0.50": 0.5, "999.00": 999, "1,000.00": 1000, "-12,345,678.90": -12345678.9, "-123.00": -123} {
		if got := number(v, 2); got != want {
			t.Errorf("number(%v) = %s, want %s", v, got, want)
		}
	}
}

func TestLoad(t *testing.T) {
	const n, callers = 200, 7
	var calls [n]atomic.Int32
	var now, most atomic.Int32
	took, elapsed, err := load(t.Context(), n, callers, 0, func(_ context.Context, i int) error {
		c := now.Add(1)
		for m := most.Load(); c > m && !most.CompareAndSwap(m, c); m = most.Load() {
		}
		calls[i].Add(1)
		runtime.Gosched()
		now.Add(-1)
		return nil
	})
	if err != nil || len(took) != n || elapsed <= 0 {
		t.Fatalf("%d calls took %v: %v", len(took), elapsed, err)
	}
	for i := range calls {
		if c := calls[i].Load(); c != 1 {
			t.Errorf("push %d was made %d times", i, c)
		}
	}
	if m := most.Load(); m > callers {
		t.Errorf("%d at one time, want at most %d", m, callers)
	}

	boom := errors.New("boom")
	_, _, err = load(t.Context(), n, callers, 0, func(ctx context.Context, i int) error {
		if i == 20 {
			return boom
		}
		if i > 20 {
			<-ctx.Done() // none may keep the others waiting after a failure
		}
		return nil
	})
	if !errors.Is(err, boom) || !strings.Contains(err.Error(), "push 21 of 200") {
		t.Errorf("error is %v, want boom of push 21", err)
	}
}

func TestLegacyPush(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct {
		reply string
		good  bool
	}{{"Success", true}, {"Error: Success is elsewhere", false}, {"", false}} {
		line := make(chan string, 1)
		go func() {
			conn, err := ln.Accept()
			if err != nil {
				line <- err.Error()
				return
			}
			defer conn.Close()
			buf := make([]byte, 1000)
			n, _ := conn.Read(buf)
			_, _ = io.WriteString(conn, tt.reply)
			line <- string(buf[:n])
		}()
		err := legacyPush(t.Context(), ln.Addr().String(), "/data/a", "bench/b/k")
		if (err == nil) != tt.good {
			t.Errorf("reply %q: %v", tt.reply, err)
		}
		if got := <-line; got != "/data/a bench/b/k\n" {
			t.Errorf("the line was %q", got)
		}
	}
}
