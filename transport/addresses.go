package transport

import (
	"cmp"
	"context"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

const (
	// lookAgain is how old what is known of a name becomes.
	lookAgain = 30 * time.Second
	// avoided is for how long an address is tried last that no connection could be
	// made to.
	avoided = time.Minute
	// settled is for how long a name must have had the same addresses, so that a
	// connection to another is one to an address that has left. Names with many
	// addresses show a few in turn.
	settled = 5 * time.Minute
)

// lookup asks the name service, as net.Resolver.LookupNetIP does.
type lookup = func(ctx context.Context, network, host string) ([]netip.Addr, error)

// addresses knows those of the names that connections are made to, and how many
// are open to each.
type addresses struct {
	lookup  lookup
	timeout time.Duration // for a lookup

	mu    sync.Mutex // guards all below
	names map[string]name
	open  map[netip.AddrPort]int
	avoid map[netip.AddrPort]time.Time // until then
}

// name is what is known of one.
type name struct {
	addrs   []netip.Addr // in the name service's order; never changed
	asked   time.Time    // when the name service was, last
	since   time.Time    // when it said for the first time that it is these
	until   time.Time    // and when for the last
	looking bool         // in the background
}

func newAddresses(look lookup, timeout time.Duration) *addresses {
	return &addresses{
		lookup: look, timeout: timeout,
		names: make(map[string]name), open: make(map[netip.AddrPort]int), avoid: make(map[netip.AddrPort]time.Time),
	}
}

// of returns the addresses behind a host, which may be a name, and a port.
func (a *addresses) of(ctx context.Context, address string) ([]netip.AddrPort, error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return nil, &net.AddrError{Err: "the port is not a number", Addr: address}
	}
	addrs, err := a.ofHost(ctx, host)
	if err != nil {
		return nil, err
	}
	all := make([]netip.AddrPort, len(addrs))
	for i, addr := range addrs {
		all[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return all, nil
}

// ofHost asks the name service, unless it did so a moment ago. Where that fails,
// or takes half of the time, the addresses are those that it said before.
func (a *addresses) ofHost(ctx context.Context, host string) ([]netip.Addr, error) {
	if literal, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{literal}, nil
	}
	a.mu.Lock()
	known := a.names[host]
	a.mu.Unlock()
	if known.addrs == nil {
		return a.look(ctx, host)
	}
	if known.fresh() {
		return known.addrs, nil
	}
	ctx, done := context.WithTimeout(ctx, a.timeout/2)
	defer done()
	if addrs, err := a.look(ctx, host); err == nil {
		return addrs, nil
	}
	return known.addrs, nil
}

func (n name) fresh() bool { return time.Since(n.asked) < lookAgain }

// look asks the name service, and keeps what it says.
func (a *addresses) look(ctx context.Context, host string) ([]netip.Addr, error) {
	addrs, err := a.lookup(ctx, "ip", host)
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no addresses", Name: host, IsNotFound: true}
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.names[host]
	n.asked = time.Now()
	if err == nil {
		for i, addr := range addrs {
			addrs[i] = addr.Unmap()
		}
		if !sameAddrs(addrs, n.addrs) {
			n.since = n.asked
		}
		n.addrs, n.until = addrs, n.asked
	}
	if n.addrs != nil {
		a.names[host] = n
	}
	return addrs, err
}

func sameAddrs(a, b []netip.Addr) bool {
	sorted := func(addrs []netip.Addr) []netip.Addr {
		return slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare)
	}
	return slices.Equal(sorted(a), sorted(b))
}

// take returns the address that is to be tried first, which counts as open, and
// the others. It is the one with the fewest that are open; one that failed comes
// after those that did not.
func (a *addresses) take(from []netip.AddrPort) (best netip.AddrPort, others []netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for addr, until := range a.avoid {
		if !now.Before(until) {
			delete(a.avoid, addr)
		}
	}
	best = slices.MinFunc(from, func(x, y netip.AddrPort) int {
		return cmp.Or(a.avoid[x].Compare(a.avoid[y]), cmp.Compare(a.open[x], a.open[y]))
	})
	a.open[best]++
	return best, slices.DeleteFunc(slices.Clone(from), func(addr netip.AddrPort) bool { return addr == best })
}

// giveBack ends what take began: the connection was closed, or was not made.
func (a *addresses) giveBack(addr netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.open[addr]--; a.open[addr] <= 0 {
		delete(a.open, addr)
	}
}

// failed notes that no connection could be made.
func (a *addresses) failed(addr netip.AddrPort) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.avoid[addr] = time.Now().Add(avoided)
}

// current reports whether the address still has that one; see Dialer.Current.
func (a *addresses) current(address string, remote net.Addr) bool {
	tcp, ok := remote.(*net.TCPAddr)
	host, _, err := net.SplitHostPort(address)
	if !ok || err != nil {
		return true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	n, known := a.names[host]
	if !known {
		return true
	}
	if !n.looking && !n.fresh() {
		n.looking = true
		a.names[host] = n
		go a.lookBehind(host)
	}
	addr := tcp.AddrPort().Addr().Unmap()
	return slices.Contains(n.addrs, addr) || n.until.Sub(n.since) < settled
}

// lookBehind looks at a name in the background.
func (a *addresses) lookBehind(host string) {
	ctx, done := context.WithTimeout(context.Background(), a.timeout)
	defer done()
	_, _ = a.look(ctx, host)
	a.mu.Lock()
	defer a.mu.Unlock()
	n := a.names[host]
	n.looking = false
	a.names[host] = n
}
