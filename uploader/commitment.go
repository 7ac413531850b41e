package uploader

import (
	"context"
	"io"
	"sync/atomic"
)

// commitment is the point of no return of an attempt: once the last byte of a
// request that makes an object may have left, the store may make it, whatever
// becomes of the connection. So a cancellation ends an attempt before that
// point, and waits for the answer after it.
type commitment struct {
	of    context.Context // has ended once the attempt is abandoned; the attempt's own may not have yet
	state atomic.Int32
}

const (
	open int32 = iota
	committed
	abandoned
)

// commit passes the point, or returns why the attempt has been abandoned.
func (c *commitment) commit() error {
	if c.state.CompareAndSwap(open, committed) || c.reached() {
		return nil
	}
	return context.Cause(c.of)
}

// abandon gives the attempt up, or reports that it is too late for that.
func (c *commitment) abandon() bool { return c.state.CompareAndSwap(open, abandoned) }

func (c *commitment) reached() bool { return c.state.Load() == committed }

// lastByte is the body of an attempt that makes an object. It commits the
// attempt before it gives the last byte away.
type lastByte struct {
	io.ReadSeeker
	size, left int64
	commitment *commitment
}

func (b *lastByte) Read(p []byte) (int, error) {
	n, err := b.ReadSeeker.Read(p)
	if b.left -= int64(n); b.left <= 0 && b.commitment.commit() != nil {
		return 0, errCancelled
	}
	return n, err
}

// Seek goes back to the start; the SDK does before it sends.
func (b *lastByte) Seek(offset int64, whence int) (int64, error) {
	at, err := b.ReadSeeker.Seek(offset, whence)
	b.left = b.size - at
	return at, err
}
