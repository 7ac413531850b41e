package transport

import (
	"cmp"
	"context"
	"net/url"
	"slices"
	"time"
)

// Path is what the pool knows of the way to a host. It is a value, and of the
// moment at which it was asked for.
type Path struct {
	// RTT is the least round trip of any connection; 0 where none is known.
	RTT time.Duration
	// Rates has what each idle connection would begin to send at, in bytes a
	// second, the highest first: what it remembers of having sent, or where it has
	// been idle for so long that its window was forgotten, what it begins with. Those
	// that are being made are among them.
	Rates []float64
	// Doubles reports whether one that carries more than a few packets is twice as fast
	// each round trip until it meets a limit; else it takes its time where it remembers
	// a rate.
	Doubles bool
	// Window is how many bytes of payload one connection may have under way, by the
	// room that its send buffer has; 0 where that is not known.
	Window int64
	// Rate is the most, in bytes a second, that all connections together were seen to
	// deliver lately, or that one remembers; 0 where nothing is known.
	Rate float64
}

// Path returns what is known of the way to a host.
func (t *Transport) Path(base *url.URL) Path { return t.pool.path(hostOf(base)) }

// Reach waits until there is, or was, a connection to the host, so that something is
// known of the way to it, or until none can be made.
func (t *Transport) Reach(ctx context.Context, base *url.URL) {
	if t.Path(base).RTT > 0 {
		return
	}
	if t.pool.unwilling() {
		return
	}
	if m, err := t.pool.acquire(ctx, newWaiter(hostOf(base)), -1); err == nil {
		t.pool.putBack(m)
	}
}

// unwilling reports whether what is made for one would be kept for no other.
func (p *pool) unwilling() bool {
	p.mu.Lock()
	defer p.unlock()
	return p.once || p.keeping.down
}

// putBack takes a connection back that was not used, as if it had not been taken.
func (p *pool) putBack(m *member) {
	p.mu.Lock()
	defer p.unlock()
	m.requests--
	now := time.Now()
	if !p.restLocked(m, now) || len(p.waiting) > 0 {
		p.dialLocked(now)
		p.tendLocked(now)
	}
}

func (p *pool) path(to host) Path {
	p.mu.Lock()
	defer p.unlock()
	now := time.Now()
	path, making := Path{Rate: p.meter.rate()}, 0
	for _, at := range p.places {
		m := at.member
		if d := at.dial; m == nil && d != nil && d.to == to && d.who == nil {
			making++
		}
		if m == nil || m.to != to {
			continue
		}
		if trip := roundTrip(m.info); trip > 0 && (path.RTT == 0 || trip < path.RTT) {
			path.RTT = trip
		}
		path.Window = max(path.Window, m.info.SendBuffer)
		path.Rate = max(path.Rate, m.info.Rate)
		path.Doubles = path.Doubles || m.info.Anew > 0
		if m.state == idle {
			path.Rates = append(path.Rates, carries(m.info, now.Sub(m.since)))
		}
	}
	if path.RTT == 0 {
		path.RTT = p.endLocked(to).trip
	}
	for range making {
		if path.RTT > 0 {
			path.Rates = append(path.Rates, initialWindow/path.RTT.Seconds())
		}
	}
	slices.SortFunc(path.Rates, func(a, b float64) int { return cmp.Compare(b, a) })
	return path
}

// Connection is one connection of the pool, for who wants to see it.
type Connection struct {
	Number         int    // of its place in the pool, from 0: there are no more than Config.Connections
	Address        string // of the other end
	Age            time.Duration
	Busy           bool
	Requests       int64 // that it has carried, or carries
	Info           Info
	FirstRoundTrip int64 // bytes that it would send within one if it were used now; 0 where nothing is known
}

// Totals are sums over all connections that there ever were.
type Totals struct {
	Dials        int64 // begun
	DialFailures int64
	Lost         int64 // connections that the other end closed while they were idle, as far as was noticed
	Refreshed    int64 // times that one was, lest it be
	Reused       int64 // requests that found one open

	Retransmits     uint64        // packets that were sent again
	BufferLimited   time.Duration // connections were held up by their send buffers
	ReceiverLimited time.Duration // and by the other end's window
	AckedBytes      int64         // that the other end has got
}

// Connections returns the connections that are open, by their numbers.
func (t *Transport) Connections() []Connection {
	open, _ := t.Look()
	return open
}

// Totals returns the sums up to now.
func (t *Transport) Totals() Totals {
	_, totals := t.Look()
	return totals
}

// Look returns both of one moment. Each connection is asked about once.
func (t *Transport) Look() ([]Connection, Totals) {
	p := t.pool
	p.mu.Lock()
	now := time.Now()
	all, count := p.departed, p.count
	var open []Connection
	var members []*member
	var rested []time.Duration
	for _, at := range p.places {
		m := at.member
		if m == nil {
			continue
		}
		idleFor := time.Duration(0)
		if m.state == idle {
			idleFor = now.Sub(m.since)
		}
		open = append(open, Connection{
			Number: m.place, Address: m.conn.RemoteAddr().String(), Age: now.Sub(m.made),
			Busy: m.state == busy, Requests: m.requests, Info: m.info,
		})
		members, rested = append(members, m), append(rested, idleFor)
	}
	p.unlock()
	for i, m := range members { // without the lock, since there may be many
		c := &open[i]
		if info, ok := infoOf(m.conn); ok {
			c.Info = info
		}
		c.FirstRoundTrip = firstRoundTrip(c.Info, rested[i])
		all = sum(all, c.Info)
	}
	return open, Totals{
		Dials: count.dials, DialFailures: count.failures, Lost: count.lost, Refreshed: count.refreshed, Reused: count.reused,
		Retransmits: all.Retransmits, BufferLimited: all.BufferLimited, ReceiverLimited: all.ReceiverLimited, AckedBytes: all.Acked,
	}
}

// firstRoundTrip returns how many bytes a connection sends within one that has been
// idle for so long: what it remembers of the way, and never less than a new one.
func firstRoundTrip(i Info, rested time.Duration) int64 {
	trip := roundTrip(i)
	if trip == 0 {
		return 0
	}
	return max(initialWindow, int64(carries(i, rested)*trip.Seconds()))
}
