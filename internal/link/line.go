//go:build linux

package link

import (
	"math/rand/v2"
	"time"
)

// A Shape says what a link is like, the same in both directions.
type Shape struct {
	RTT   time.Duration // a packet takes half of it, besides the time that it waits and is sent
	Rate  int64         // bits per second of IP packets, headers included; 0 is no limit
	Queue time.Duration // a packet that would wait longer for its turn is dropped; 0 is no limit
	Loss  float64       // the share of packets that are lost at random on their way
	Seed  uint64        // of the random losses
}

// A fate is what becomes of a packet.
type fate int

const (
	arrives   fate = iota
	overflows      // the queue had no room
	isLost         // on the way, having taken its time
)

// A line is one direction of a link: a queue, then a sender that takes its
// time for each packet, then the way. It is arithmetic alone; times are since
// any fixed moment.
type line struct {
	shape Shape
	rand  *rand.Rand
	free  time.Duration // when the sender will have sent what it was given
}

func newLine(s Shape, direction uint64) *line {
	return &line{shape: s, rand: rand.New(rand.NewPCG(s.Seed, direction))}
}

// take gives the line a packet and returns what becomes of it, and when it
// arrives. That is never before a packet which was given earlier.
func (l *line) take(now time.Duration, size int) (fate, time.Duration) {
	start := max(l.free, now)
	end := start
	if l.shape.Rate > 0 {
		end += time.Duration(int64(size) * 8 * int64(time.Second) / l.shape.Rate)
	}
	if l.shape.Queue > 0 && end-now > l.shape.Queue {
		return overflows, 0
	}
	l.free = end
	if l.shape.Loss > 0 && l.rand.Float64() < l.shape.Loss {
		return isLost, 0
	}
	return arrives, end + l.shape.RTT/2
}
