package transport

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// limited is a connection in memory that keeps to a bandwidth; what arrives at the
// other end is counted.
func limited(b *Bandwidth, arrived *atomic.Int64) *conn {
	near, far := net.Pipe()
	go func() {
		buf := make([]byte, 64<<10)
		for {
			n, err := far.Read(buf)
			arrived.Add(int64(n))
			if err != nil {
				return
			}
		}
	}()
	return newConn(near, traits{}, b, func() {})
}

// flood writes to so many connections until end is called.
func flood(b *Bandwidth, connections int, arrived *atomic.Int64) (end func()) {
	var all []net.Conn
	for range connections {
		c := limited(b, arrived)
		all = append(all, c)
		go func() {
			for p := make([]byte, 32<<10); ; {
				if _, err := c.Write(p); err != nil {
					return
				}
			}
		}()
	}
	return func() {
		for _, c := range all {
			c.Close()
		}
	}
}

// during returns how many bytes arrive within a time.
func during(d time.Duration, arrived *atomic.Int64) int64 {
	before := arrived.Load()
	time.Sleep(d)
	return arrived.Load() - before
}

// TestBandwidth: within each second what leaves is the limit, for one connection
// as for ten, and also when it changes; within ten where a second is a few packets.
func TestBandwidth(t *testing.T) {
	for _, bits := range []int64{64e3, 2e6, 100e6, 1e9} {
		for _, connections := range []int{1, 10} {
			t.Run(fmt.Sprint(bits, " bits, ", connections), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var arrived atomic.Int64
					b := NewBandwidth(bits)
					defer flood(b, connections, &arrived)()
					check := func(when string, bits int64) {
						t.Helper()
						d := time.Second
						if bits < 1e6 {
							d *= 10
						}
						tenth := bits / 8 / 10 * int64(d/time.Second)
						if n := during(d, &arrived); n < 9*tenth || n > 11*tenth {
							t.Errorf("%s: %d bytes in %v, of %d", when, n, d, 10*tenth)
						}
						if b.Get() != bits {
							t.Errorf("%s: the limit is %d", when, b.Get())
						}
					}
					check("at once", bits)
					check("after that", bits)
					b.Set(2 * bits)
					check("twice as much", 2*bits)
					b.Set(bits / 2)
					check("half as much", bits/2)
					b.Set(bits / 2)
					check("the same", bits/2)
				})
			})
		}
	}
}

// TestBandwidthAfterPause: what was not used does not add up.
func TestBandwidthAfterPause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const bits = 8e6
		var arrived atomic.Int64
		b := NewBandwidth(bits)
		c := limited(b, &arrived)
		c.Write([]byte{1})
		time.Sleep(time.Hour)
		begun := time.Now()
		c.Write(make([]byte, bits/8))
		if took := time.Since(begun); took < 900*time.Millisecond || took > 1100*time.Millisecond {
			t.Errorf("a second's bytes took %v", took)
		}
		c.Close()
	})
}

// TestNoBandwidth: 0 is no limit, and one that is lifted holds nobody up who waits.
func TestNoBandwidth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var arrived atomic.Int64
		b := NewBandwidth(0)
		c := limited(b, &arrived)
		begun := time.Now()
		c.Write(make([]byte, 64<<20))
		if time.Since(begun) != 0 {
			t.Errorf("without a limit it took %v", time.Since(begun))
		}
		b.Set(64e3)
		written := make(chan time.Duration)
		go func() {
			c.Write(make([]byte, 64<<20)) // for two hours
			written <- time.Since(begun)
		}()
		time.Sleep(time.Minute)
		b.Set(0)
		if took := <-written; took != time.Minute {
			t.Errorf("it took %v, though the limit was lifted after a minute", took)
		}
		c.Close()
	})
}

// TestWaitingEnds: a write that waits for its turn ends with its connection, and
// with the deadline, wherever that is moved meanwhile.
func TestWaitingEnds(t *testing.T) {
	for _, tc := range []struct {
		name  string
		do    func(c *conn)
		after time.Duration
		want  error
	}{
		{"closed", func(c *conn) { c.Close() }, time.Second, io.ErrClosedPipe},
		{"deadline", func(c *conn) { c.SetWriteDeadline(time.Now().Add(time.Second)) }, 2 * time.Second, os.ErrDeadlineExceeded},
		{"both deadlines", func(c *conn) { c.SetDeadline(time.Now().Add(time.Second)) }, 2 * time.Second, os.ErrDeadlineExceeded},
		{"deadline that is over", func(c *conn) { c.SetWriteDeadline(time.Now()) }, time.Second, os.ErrDeadlineExceeded},
		{"deadline that is moved", func(c *conn) {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			time.Sleep(time.Second / 2)
			c.SetWriteDeadline(time.Now().Add(5 * time.Second))
		}, 6500 * time.Millisecond, os.ErrDeadlineExceeded},
		{"deadline that is lifted", func(c *conn) {
			c.SetWriteDeadline(time.Now().Add(time.Second))
			time.Sleep(time.Second / 2)
			c.SetWriteDeadline(time.Time{})
			time.Sleep(time.Hour)
			c.Close()
		}, time.Hour + 1500*time.Millisecond, io.ErrClosedPipe},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var arrived atomic.Int64
				c := limited(NewBandwidth(64e3), &arrived)
				defer c.Close()
				begun := time.Now()
				go func() {
					time.Sleep(time.Second)
					tc.do(c)
				}()
				n, err := c.Write(make([]byte, 64<<20))
				took := time.Since(begun)
				synctest.Wait()
				if took != tc.after || !errors.Is(err, tc.want) || int64(n) != arrived.Load() {
					t.Errorf("after %v: %d of %d that arrived, %v", took, n, arrived.Load(), err)
				}
			})
		})
	}
}

// TestBandwidthSetAgain: to set a limit again and again lets no more through, be it
// the same or another.
func TestBandwidthSetAgain(t *testing.T) {
	const bits = 8e6
	for _, other := range []int64{bits, bits + 8} {
		synctest.Test(t, func(t *testing.T) {
			var arrived atomic.Int64
			b := NewBandwidth(bits)
			defer flood(b, 10, &arrived)()
			during(time.Second, &arrived)
			before := arrived.Load()
			for range 500 {
				time.Sleep(time.Millisecond)
				b.Set(other)
				time.Sleep(time.Millisecond)
				b.Set(bits)
			}
			if n := arrived.Load() - before; n < bits/8*9/10 || n > bits/8*11/10 {
				t.Errorf("by %d as well: %d bytes in a second, of %d", other, n, int64(bits/8))
			}
		})
	}
}

// TestBandwidthAfterAPause: what may leave at once is there still when the limit is
// changed where none has left for a while.
func TestBandwidthAfterAPause(t *testing.T) {
	b := NewBandwidth(8e6)
	b.Set(80e6)
	if n := b.now.Load().tokens.Tokens(); n < 80e6/8*atOnce.Seconds() {
		t.Errorf("%.0f bytes", n)
	}
}
