package uploader

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/transport"
)

// letEnd is for how long a part of a warm-up that has to end may go on if it ends by
// itself then, unless two round trips are longer: a connection that is cut off is
// closed, and has to be made and warmed anew.
const letEnd = 500 * time.Millisecond

// volley is one part on each of some connections, all at the same time.
type volley struct {
	size     int64         // bytes of each part
	expected time.Duration // that it takes; 0: nothing is known
	begin    chan struct{} // closed when the bytes may go
	begun    time.Time     // when it was
}

// connectsIn is for how long a step waits for its connections, beside some round trips:
// a store may take fewer.
const connectsIn = time.Second

// step has so many connections send that many bytes each, the warmest or those that
// will do. None begins before all requests have theirs: else the first would be done
// with it, and the next take the same. Where there are not so many, they share what
// there is to send.
func (w *warmth) step(ctx context.Context, connections int, size int64, enough float64) (round, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	v := &volley{size: size, begin: make(chan struct{})}
	if w.fastest > 0 {
		v.expected = time.Duration(float64(connections) * float64(size) / w.fastest * float64(time.Second))
	}
	var ended sync.WaitGroup
	var without atomic.Int32 // a connection
	without.Store(int32(connections))
	connected := make(chan struct{})
	for range connections {
		w.parts++
		number := w.parts
		ended.Go(func() {
			p := &warmPart{volley: v, number: number}
			arrived := sync.OnceFunc(func() {
				if without.Add(-1) == 0 {
					close(connected)
				}
			})
			defer arrived()
			p.exchange = transport.Exchange{Enough: enough, Unshared: true, Connected: func() { p.connected.Store(true); arrived() }}
			if err := w.sendPart(ctx, p); err != nil {
				cancel(err)
			}
		})
	}
	select {
	case <-connected:
	case <-time.After(connectsIn + 4*w.rtt()):
	case <-ctx.Done(): // those that have one send, if that is soon done
	}
	w.had = connections - int(without.Load())
	v.begun = time.Now()
	close(v.begin)
	ended.Wait()
	if err := context.Cause(ctx); err != nil {
		return round{}, err
	}
	w.sent += int64(connections) * size
	rtt := w.rtt()
	took := max(time.Since(v.begun)-rtt, time.Millisecond) // but for the answer
	return round{rate: float64(connections) * float64(size) / took.Seconds(), took: took, trips: took.Seconds() / max(rtt, time.Microsecond).Seconds()}, nil
}

// warmPart is a part of a volley.
type warmPart struct {
	*volley
	number    int32
	exchange  transport.Exchange
	connected atomic.Bool
}

// left returns how long the part will still take, as far as is known. One of a few
// packets is as good as sent.
func (p *warmPart) left(now time.Time) time.Duration {
	took, acked := now.Sub(p.begun), p.exchange.Acknowledged()
	switch {
	case acked > 0:
		return time.Duration(float64(took) * float64(p.size-acked) / float64(acked))
	case p.size > firstWarmth:
		return p.expected
	}
	return 0
}

// sendPart sends a part on a connection of its own, with a slot that nobody waits
// for.
func (w *warmth) sendPart(ctx context.Context, p *warmPart) error {
	if !w.up.slots.borrow() {
		return errPushesFirst
	}
	defer w.up.slots.giveBack()
	inner, cut := context.WithCancelCause(w.up.stopped)
	defer cut(nil)
	stop := context.AfterFunc(ctx, func() { w.cutOff(inner, p, context.Cause(ctx), cut) })
	defer stop()
	begun := time.Now()
	_, err := w.up.client.UploadPart(transport.With(inner, &p.exchange), &s3.UploadPartInput{
		Bucket: &w.dest.Bucket, Key: &w.dest.Key, UploadId: &w.upload.ID, PartNumber: &p.number,
		ContentLength: &p.size, Body: &gatedBody{io.NewSectionReader(w.content, 0, p.size), inner, p.begin},
	}, new(payload).sign)
	if cause := context.Cause(inner); cause != nil {
		err = cause
	}
	w.up.metrics.request("UploadPart", err, time.Since(begun))
	return err
}

// cutOff ends a part, unless it ends by itself in a moment. What the kernel has not
// sent of it is to be in nobody's way.
func (w *warmth) cutOff(ctx context.Context, p *warmPart, why error, cut context.CancelCauseFunc) {
	moment := max(letEnd, 2*w.rtt())
	if p.connected.Load() && !errors.Is(why, errLeaving) {
		<-p.begin
		if p.left(time.Now()) <= moment {
			select {
			case <-time.After(moment):
			case <-ctx.Done():
				return
			}
		}
	}
	p.exchange.Discard()
	cut(why)
}

// gatedBody is a body of which nothing is read before a channel is closed.
type gatedBody struct {
	*io.SectionReader
	ctx   context.Context
	begin <-chan struct{}
}

func (b *gatedBody) Read(p []byte) (int, error) {
	select {
	case <-b.begin:
		return b.SectionReader.Read(p)
	case <-b.ctx.Done():
		return 0, context.Cause(b.ctx)
	}
}

// fillerSize is how many bytes of a warm-up differ: more than what compresses on
// the way looks back for.
const fillerSize = 1 << 20

// filler is content without end, the same again and again.
type filler []byte

func (f filler) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) {
		n += copy(p[n:], f[(off+int64(n))%int64(len(f)):])
	}
	return n, nil
}
