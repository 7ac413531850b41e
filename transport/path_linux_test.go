package transport

import (
	"io"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// TestPath: what is known of the way, before there is a connection, while it is
// idle, while it is busy, and after it.
func TestPath(t *testing.T) {
	const size, thinks = 8 << 20, 200 * time.Millisecond
	during := make(chan Path, 1)
	var tr *Transport
	var base *url.URL
	s := serve(t, func(_ http.ResponseWriter, req *http.Request) {
		io.Copy(io.Discard, req.Body)
		during <- tr.Path(base)
		time.Sleep(thinks)
	})
	tr = overSockets(t, 10*time.Second)
	base, _ = url.Parse(s.URL)
	if p := tr.Path(base); p.RTT != 0 || p.Rates != nil || p.Window != 0 || p.Rate != 0 {
		t.Errorf("before: %+v", p)
	}
	x := new(Exchange)
	begun := time.Now()
	if _, err := put(tr, With(t.Context(), x), s.URL, size, zeros(size)); err != nil {
		t.Fatal(err)
	}
	took := time.Since(begun)
	if p := <-during; len(p.Rates) != 0 {
		t.Errorf("meanwhile: %+v", p)
	}
	p := tr.Path(base)
	if p.RTT <= 0 || p.RTT > took || len(p.Rates) != 1 || p.Rates[0] <= 0 || p.Window < size/8 || p.Rate <= 0 {
		t.Errorf("then: %+v", p)
	}
	// The store thought for so long, and whatever the machine does meanwhile makes
	// that longer.
	if x := x.Times(); x.Store < thinks/2 || x.Send <= 0 || x.Connect+x.Send+x.Store > took {
		t.Errorf("%+v of %v", x, took)
	}
	tr.Rest()
	if p := tr.Path(base); p.RTT == 0 || p.Rates != nil {
		t.Errorf("after it: %+v", p)
	}
	if n := tr.Totals(); n.AckedBytes < size {
		t.Errorf("%+v", n)
	}
}
