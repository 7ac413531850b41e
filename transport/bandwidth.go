package transport

import "sync/atomic"

// Bandwidth is a limit on what is sent over all the connections that share it,
// in bits per second. It may be changed at any time, by any goroutine.
type Bandwidth struct{ bits atomic.Int64 }

// NewBandwidth makes a limit; 0 is none.
func NewBandwidth(bitsPerSecond int64) *Bandwidth {
	b := new(Bandwidth)
	b.Set(bitsPerSecond)
	return b
}

// Set changes the limit; 0 is none.
func (b *Bandwidth) Set(bitsPerSecond int64) { b.bits.Store(bitsPerSecond) }

// Get returns the limit; 0 is none.
func (b *Bandwidth) Get() int64 { return b.bits.Load() }
