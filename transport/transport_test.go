package transport

import "testing"

// TestPool looks at what would take minutes to show, or more callers than
// connections.
func TestPool(t *testing.T) {
	const most = 7
	p := New(Config{Connections: most}).pool
	if p.IdleConnTimeout != 0 || p.DisableKeepAlives || p.MaxConnsPerHost != most ||
		p.MaxIdleConnsPerHost != most || p.MaxIdleConns != 0 && p.MaxIdleConns < most {
		t.Errorf("the pool gives up idle connections after %v, keeps %d and %d of them, and has at most %d",
			p.IdleConnTimeout, p.MaxIdleConns, p.MaxIdleConnsPerHost, p.MaxConnsPerHost)
	}
}
