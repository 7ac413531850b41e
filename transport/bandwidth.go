package transport

import (
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
type Bandwidth struct{ now atomic.Pointer[allowance] }

// allowance is a limit that does not change.
type allowance struct {
	bits    int64
	tokens  *rate.Limiter // of bytes
	turn    int           // bytes that are granted at a time, at most
	changed chan struct{} // closed when another has taken its place
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

// Set changes the limit; 0 is none.
func (b *Bandwidth) Set(bitsPerSecond int64) {
	if old := b.now.Swap(newAllowance(bitsPerSecond)); old != nil {
		close(old.changed)
	}
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
		if p.wait(now.tokens.ReserveN(time.Now(), n).Delay(), now.changed) {
			return n
		}
	}
}
