package journal

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// cpu returns the time that this process has had on a processor.
func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkPush is what a synchronous push asks of the journal: accept, and
// then end.
func BenchmarkPush(b *testing.B) {
	for _, pushers := range []int{1, 25, 64} {
		b.Run(fmt.Sprintf("pushers=%d", pushers), func(b *testing.B) {
			benchmark(b, pushers, func(j *Journal, n int, done chan error) {
				r := example(n)
				j.Accept(r, func(err error) { done <- err })
				<-done
				j.End(ended(*r), func() { done <- nil })
				<-done
			})
		})
	}
}

// BenchmarkAccept is what an asynchronous push asks of the journal before it
// is answered.
func BenchmarkAccept(b *testing.B) {
	for _, pushers := range []int{1, 25, 64} {
		b.Run(fmt.Sprintf("pushers=%d", pushers), func(b *testing.B) {
			benchmark(b, pushers, func(j *Journal, n int, done chan error) {
				j.Accept(example(n), func(err error) { done <- err })
				<-done
			})
		})
	}
}

func benchmark(b *testing.B, pushers int, one func(j *Journal, n int, done chan error)) {
	j := open(b, Config{Dir: b.TempDir(), HistoryCount: 100_000})
	var n atomic.Int64
	var wg sync.WaitGroup
	b.ReportAllocs()
	before := cpu(b)
	b.ResetTimer()
	for range pushers {
		wg.Go(func() {
			done := make(chan error, 1)
			for i := n.Add(1); i <= int64(b.N); i = n.Add(1) {
				one(j, int(i), done)
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64((cpu(b)-before).Microseconds())/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "op/s")
	b.ReportMetric(float64(j.Size())/float64(b.N), "file-B/op")
}

// BenchmarkRestart opens a journal with many pushes in its queue, and reads
// them.
func BenchmarkRestart(b *testing.B) {
	const pushes = 1_000_000
	cfg := Config{Dir: b.TempDir()}
	j := open(b, cfg)
	start := time.Now()
	done := make(chan error, 1000)
	for n := range pushes {
		j.Accept(example(n), func(err error) { done <- err })
		if n%1000 == 999 {
			for range 1000 {
				if err := <-done; err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	b.Logf("%.0f accepts/s, %.0f bytes of the file for a push", pushes/time.Since(start).Seconds(), float64(j.Size())/pushes)

	if err := j.Close(); err != nil {
		b.Fatal(err)
	}
	b.Run("open", func(b *testing.B) {
		for b.Loop() {
			j := open(b, cfg)
			b.StopTimer()
			j.Close()
			b.StartTimer()
		}
	})
	j = open(b, cfg)
	runtime.GC()
	debug.FreeOSMemory()
	b.Logf("anonymous memory once it is open: %s", anonymous(b))
	b.Run("queued", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := j.Queued(func(*Record) error { n++; return nil }); err != nil || n != pushes {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("newest", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := j.Newest(push.ID{}, func(*Record) bool { n++; return true }); err != nil || n != pushes {
				b.Fatal(n, err)
			}
		}
	})
	b.Run("newest-where", func(b *testing.B) {
		for b.Loop() {
			want := func(b *Brief) bool { return string(b.Label) == "x" }
			if err := j.NewestWhere(push.ID{}, want, nil); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("page", func(b *testing.B) {
		for b.Loop() {
			n := 0
			if err := j.Newest(push.ID{}, func(*Record) bool { n++; return n < 100 }); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("oldest", func(b *testing.B) {
		for b.Loop() {
			j.OldestQueued(nil)
		}
	})
	b.Run("get", func(b *testing.B) {
		id, _ := j.OldestQueued(nil)
		for b.Loop() {
			if _, found, err := j.Get(id); err != nil || !found {
				b.Fatal(err)
			}
		}
	})
	b.Logf("anonymous memory after it: %s", anonymous(b))
}

// anonymous returns what the kernel says of this process.
func anonymous(b *testing.B) string {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "RssAnon:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}

// BenchmarkDropUpload is the largest change that there is: an upload of 10,000
// parts, with each part verified by two digests.
func BenchmarkDropUpload(b *testing.B) {
	j := open(b, Config{Dir: b.TempDir()})
	for range b.N {
		b.StopTimer()
		u := exampleUpload(push.ID{1}, 1)
		j.PutUpload(u, nil)
		for n := range 10_000 {
			p := examplePart(n + 1)
			p.SHA256 = make([]byte, 32)
			j.PutPart(u, p, nil)
		}
		await(j)
		b.StartTimer()
		j.DropUpload(u, nil)
		await(j)
	}
}
