package transport

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

const (
	// atOnce is for how long the limit's bytes may leave at once, where none left
	// for a while: a timer of a busy host is late by some of it.
	atOnce = 20 * time.Millisecond
	// oneTurn is how much of the limit's time one write takes: little, so that
	// connections share a low limit in small turns.
	oneTurn = 5 * time.Millisecond
	// leastTurn is in bytes: a full packet.
	leastTurn = 1400
)

// Bandwidth is a limit on what is sent over all the connections that share it,
// in bits per second: of what is written to them, TLS included and the headers
// of packets not. It may be changed at any time, by any goroutine, and then
// holds at once, also for what waits.
type Bandwidth struct {
	setting sync.Mutex // held while the limit is changed
	now     atomic.Pointer[allowance]
}

// allowance is a limit that does not change.
type allowance struct {
	bits    int64
	tokens  *rate.Limiter // of bytes
	turn    int           // bytes that are granted at a time, at most
	changed chan struct{} // closed when another has taken its place

	promised atomic.Int64 // bytes that have been taken from tokens for who still waits
}

// NewBandwidth makes a limit; 0 is none.
func NewBandwidth(bitsPerSecond int64) *Bandwidth {
	b := new(Bandwidth)
	b.now.Store(newAllowance(bitsPerSecond))
	return b
}

func newAllowance(bits int64) *allowance {
	bytes := float64(bits) / 8
	turn := max(leastTurn, int(bytes*oneTurn.Seconds()))
	return &allowance{
		bits: bits, turn: turn, changed: make(chan struct{}),
		tokens: rate.NewLimiter(rate.Limit(bytes), max(turn, int(bytes*atOnce.Seconds()))),
	}
}

// Set changes the limit; 0 is none. It gives nothing that may leave at once: of that
// there is as large a share as there was.
func (b *Bandwidth) Set(bitsPerSecond int64) {
	b.setting.Lock()
	defer b.setting.Unlock()
	old := b.now.Load()
	if old.bits == bitsPerSecond {
		return
	}
	next := newAllowance(bitsPerSecond)
	if old.bits != 0 {
		next.spend(1 - old.left())
	}
	b.now.Store(next)
	close(old.changed)
}

// left returns which share of what may leave at once is left. Who waits for some asks
// for it again where the limit changes, so what he was promised is there still.
func (a *allowance) left() float64 {
	burst := float64(a.tokens.Burst())
	return min(max(0, a.tokens.Tokens()+float64(a.promised.Load())), burst) / burst
}

// spend takes a share of that.
func (a *allowance) spend(share float64) {
	a.tokens.AllowN(time.Now(), int(share*float64(a.tokens.Burst())))
}

// Get returns the limit; 0 is none.
func (b *Bandwidth) Get() int64 { return b.now.Load().bits }

// take waits until some of those bytes may be written, and returns how many. The
// wait ends with the patience: the connection itself says then why it cannot be
// written to.
func (b *Bandwidth) take(most int, p *patience) int {
	for {
		now := b.now.Load()
		if now.bits == 0 {
			return most
		}
		n := min(most, now.turn)
		now.promised.Add(int64(n))
		if p.wait(now.tokens.ReserveN(time.Now(), n).Delay(), now.changed) {
			now.promised.Add(-int64(n))
			return n
		}
	}
}
