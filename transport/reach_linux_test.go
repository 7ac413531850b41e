package transport

import (
	"net/http"
	"net/url"
	"testing"
	"time"
)

// TestReach: a connection that was only waited for is as new as before, and what it
// tells of the way is known.
func TestReach(t *testing.T) {
	s := newEnding(t, false, func(http.ResponseWriter, *http.Request) {})
	tr := overSockets(t, 10*time.Second, func(cfg *Config) { cfg.Connections = 1 })
	base, _ := url.Parse(s.URL)
	for range 2 {
		tr.Reach(t.Context(), base)
		p := tr.Path(base)
		if open := tr.Connections(); p.RTT == 0 || len(p.Rates) != 1 || len(open) != 1 || open[0].Requests != 0 {
			t.Errorf("%+v, %+v", p, open)
		}
	}
	tr.pool.mu.Lock()
	waited := tr.pool.places[0].member.waited
	tr.pool.mu.Unlock()
	if waited {
		t.Error("the connection counts as used")
	}
	tr.Close()
	begun := time.Now()
	if tr.Reach(t.Context(), base); len(tr.Connections()) != 0 {
		t.Errorf("after the end there are %d connections, %v later", len(tr.Connections()), time.Since(begun))
	}
}
