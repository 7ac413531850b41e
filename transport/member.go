package transport

import (
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// host is an end that connections are made to.
type host struct{ scheme, address string } // the address with its port

func hostOf(u *url.URL) host {
	port := u.Port()
	if port == "" {
		port = usualPort[u.Scheme]
	}
	return host{u.Scheme, net.JoinHostPort(strings.ToLower(u.Hostname()), port)}
}

func (h host) url() *url.URL {
	return &url.URL{Scheme: h.scheme, Host: strings.TrimSuffix(h.address, ":"+usualPort[h.scheme]), Path: "/"}
}

var usualPort = map[string]string{"http": "80", "https": "443"}

// state is what a connection of the pool is doing.
type state int

const (
	busy   state = iota // a request has it
	idle                // it waits for one
	trying              // it is to show that it stays, before a request has it
	left                // it is not in the pool any more
)

// member is a connection of the pool.
type member struct {
	to     host
	client *http.ClientConn
	conn   net.Conn // what is under TLS
	outlet *outlet  // the same, as net/http has it
	dialed string   // the address; a proxy's where there is one
	made   time.Time

	// Guarded by the pool's mu. What says how it was taken is free to read for the
	// request that has it.
	place    int
	state    state
	since    time.Time     // when it was free last
	waited   bool          // it carried a request before, or was idle for a while
	rested   time.Duration // for so long it had been idle when it was taken
	requests int64
	info     Info // as it was when it became idle
}

// alive reports whether it can carry a request, as far as is known here.
func (m *member) alive() bool { return m.client.Available() > 0 }

// sound reports whether it may be taken to be, since it has not ended.
func (m *member) sound() bool {
	return (m.state == busy || m.state == idle) && m.client.Err() == nil
}

// heard reports whether anything came from the other end since then.
func (m *member) heard(since time.Time) bool {
	info, ok := infoOf(m.conn)
	return ok && info.SinceHeard < time.Since(since)
}

// choose returns which of the idle connections a request takes, nil where there
// is none: the least warm of those that begin at a rate that will do, else the
// warmest. One that remembers the rate of the whole link is not to be busy with a
// question when a file comes, nor to be one of many that share the link, since it
// would forget that. Of equals it is the one that was used last, as the likeliest to
// be alive.
func choose(places []place, to host, enough float64) *member {
	var best *member
	for _, at := range places {
		m := at.member
		if m == nil || m.state != idle || m.to != to {
			continue
		}
		switch {
		case best == nil:
			best = m
		case m.info.Rate == best.info.Rate:
			if m.since.After(best.since) {
				best = m
			}
		case min(m.info.Rate, best.info.Rate) >= enough:
			if m.info.Rate < best.info.Rate {
				best = m
			}
		case m.info.Rate > best.info.Rate:
			best = m
		}
	}
	return best
}

// initialWindow is what a connection may send at first, in bytes: what is no
// more goes as quickly on any.
const initialWindow = 10 * 1448

// carries returns the bytes a second that a connection begins with that has been
// idle for so long. With bbr it is what it remembers, or what it would begin anew at;
// see traffic. Other algorithms lose half of
// the window in each time-out, about, of being idle, down to what a new one has.
func carries(i Info, rested time.Duration) float64 {
	if i.Algorithm == bbr && i.Rate > 0 {
		return max(i.Rate, i.Anew)
	}
	trip := roundTrip(i)
	if trip == 0 {
		return 0
	}
	window := i.Window
	for timeout := i.RTT + 200*time.Millisecond; rested > timeout && window > initialWindow; rested -= timeout {
		window = max(window/2, initialWindow)
	}
	return float64(window) / trip.Seconds()
}

// roundTrip returns the least that is known of a connection; 0 where nothing is.
func roundTrip(i Info) time.Duration {
	if i.MinRTT > 0 {
		return i.MinRTT
	}
	return i.RTT
}
