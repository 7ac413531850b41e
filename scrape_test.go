package main

import (
	"context"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// slowCounter takes its time to be gathered, and notes when that was.
type slowCounter struct {
	prometheus.Counter
	now, most int
	begun     []time.Time
	holds     chan struct{} // if not nil, until it is closed
}

func newSlowCounter() *slowCounter {
	return &slowCounter{Counter: prometheus.NewCounter(prometheus.CounterOpts{Name: "things_total"})}
}

func (c *slowCounter) scrape() *scrape {
	registry := prometheus.NewRegistry()
	registry.MustRegister(c)
	return &scrape{from: registry}
}

func (c *slowCounter) Collect(out chan<- prometheus.Metric) {
	c.now++
	c.most = max(c.most, c.now)
	c.begun = append(c.begun, time.Now())
	c.Counter.Collect(out)
	time.Sleep(10 * time.Millisecond)
	if c.holds != nil {
		<-c.holds
	}
	c.now--
}

// TestScrapeTogether has two thousand ask while one gathering is under way: one
// more is for all of them, and has what happened before they asked.
func TestScrapeTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSlowCounter()
		s := c.scrape()
		ask := func(want string) {
			w := httptest.NewRecorder()
			s.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
			if !strings.Contains(w.Body.String(), want) || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
				t.Errorf("%d %v, want %s in\n%s", w.Code, w.Header(), want, w.Body)
			}
		}
		go ask("things_total 0")
		synctest.Wait()
		c.Inc()
		for range 2000 {
			go ask("things_total 1")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		c.Inc()
		if len(c.begun) != 2 || c.most != 1 {
			t.Errorf("%d gatherings, %d at once, want 2, one at a time", len(c.begun), c.most)
		}
		ask("things_total 2") // after so many there is a pause
		if rested := c.begun[2].Sub(c.begun[1]); rested < mostRest {
			t.Errorf("there is none for %v after one for 2000, want %v", rested, mostRest)
		}
		begun := time.Now()
		ask("things_total 2")
		if took := time.Since(begun); took > 20*time.Millisecond {
			t.Errorf("one who asks alone waits %v", took)
		}
		time.Sleep(time.Second) // the last goroutine ends, which synctest demands
	})
}

// TestScrapeHangUp: who hangs up waits for nothing.
func TestScrapeHangUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newSlowCounter()
		c.holds = make(chan struct{})
		s := c.scrape()
		ctx, hangUp := context.WithCancel(t.Context())
		left := false
		go func() {
			s.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest("GET", "/metrics", nil).WithContext(ctx))
			left = true
		}()
		time.Sleep(time.Minute)
		synctest.Wait()
		if left {
			t.Error("he is answered before there are metrics")
		}
		hangUp()
		synctest.Wait()
		if !left {
			t.Error("he has hung up, and is waited for")
		}
		close(c.holds)
		time.Sleep(time.Minute)
	})
}
