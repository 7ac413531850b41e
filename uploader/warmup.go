package uploader

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// A connection that has sent nothing yet begins slowly, however long it has been
// open: only bytes tell it what the way to the store carries. A warm-up sends some,
// as parts of an upload that is then given up. So nothing is left, not even in a
// bucket that keeps versions. The upload is in the journal as one that no push goes
// on with: the janitor aborts it, after a crash too, and touches no object.
//
// First all connections but one send at the same time, since a burst finds each of
// them with its share of the link. Then the one that is left sends alone: it is to
// remember the whole link, for a file that comes alone.

const (
	firstWarmth = 256 << 10 // bytes that a connection sends in the first step; twice as many in each that follows
	mostSteps   = 6
	mostAlone   = 256 << 20 // bytes that the last connection sends
	// stillGrows is by how much faster than the one before a step must be for
	// another to follow in any case.
	stillGrows = 1.25
	// longEnough is how many round trips a step must last to be the last: only by
	// some that bring no more do connections see that the link is full. Those that have
	// not would begin the next burst at several times their share.
	longEnough = 5
)

// round is one step of a warm-up.
type round struct {
	rate  float64 // bytes a second, of all connections together
	trips float64 // round trips that the sending took
}

// warmer reports whether another step is to follow.
func warmer(steps []round) bool {
	n := len(steps)
	switch {
	case n < 2:
		return true
	case n == mostSteps:
		return false
	}
	last, before := steps[n-1], steps[n-2]
	return last.rate >= stillGrows*before.rate || last.trips < longEnough
}

// errPushesFirst ends a warm-up: what it does is done by the pushes that have come.
var errPushesFirst = errors.New("pushes came")

// warmth is a warm-up.
type warmth struct {
	*delivery // of no push
	upload    *journal.Upload
	content   filler
	parts     int32 // that were begun
	sent      int64 // bytes
}

// keepWarm warms the connections at the start, and after each outage, which ends
// them all.
func (u *Uploader) keepWarm() {
	for {
		u.warmUp(u.warmup)
		select {
		case <-u.cooled:
		case <-u.leaving:
			return
		}
	}
}

// cool says that the connections have been lost, and that there are new ones.
func (u *Uploader) cool() {
	u.warm.Store(false)
	select {
	case u.cooled <- struct{}{}:
	default:
	}
}

// warmUp warms the connections, once. That it fails is no more than a pity.
func (u *Uploader) warmUp(where push.Destination) {
	ctx, cancel := context.WithCancel(u.stopped)
	defer cancel()
	go func() {
		select {
		case <-u.leaving:
			cancel()
		case <-ctx.Done():
		}
	}()
	begun := time.Now()
	w := &warmth{delivery: &delivery{up: u, dest: where, id: newWarmthID()}}
	shared, err := w.run(ctx)
	log := u.log.With("destination", where.String(), "seconds", time.Since(begun).Seconds(), "bytes", w.sent)
	switch {
	case err == nil:
		u.warm.Store(true)
		log.Info(w.success(), "mbit_per_second", int(shared*8/1e6))
	case u.leaves() || u.stopped.Err() != nil:
	case errors.Is(err, errPushesFirst):
		log.Info("the warm-up has made way for pushes")
	default:
		log.Warn("the connections could not be warmed: the first files will take longer", "error", inBrief(err))
	}
}

// success says what has been reached.
func (w *warmth) success() string {
	for _, c := range w.up.wire.Connections() {
		if c.Info.Known && c.Info.Algorithm != "bbr" {
			return "the connections are warm, but not for long: the congestion control at work, " + c.Info.Algorithm + ", forgets while they are idle what they carry"
		}
	}
	return "the connections are warm"
}

// newWarmthID names no push, and no other warm-up.
func newWarmthID() push.ID {
	var random [8]byte
	rand.Read(random[:])
	return push.NewID(time.Now(), 0, random)
}

// run begins an upload, sends, and leaves the upload to the janitor. It returns the
// rate that the connections together came to.
func (w *warmth) run(ctx context.Context) (shared float64, err error) {
	w.upload = &journal.Upload{Push: w.id, BegunAt: w.nextBegunAt(), Store: w.up.name, Bucket: w.dest.Bucket, Key: w.dest.Key}
	w.up.conditions.probes.Store(nameOf(w.upload), nil)
	defer w.up.janitor.wake()
	defer w.up.conditions.probes.Delete(nameOf(w.upload))
	in := &s3.CreateMultipartUploadInput{Bucket: &w.dest.Bucket, Key: &w.dest.Key}
	out, err := w.beginUpload(ctx, w.upload, in, nil)
	if err != nil {
		return 0, err
	}
	w.upload.ID = *out.UploadId
	if err := w.up.keepUpload(ctx, w.upload); err != nil {
		return 0, err
	}
	w.content = make(filler, fillerSize)
	rand.Read(w.content)
	if shared, err = w.shareLink(ctx); err == nil && w.up.limit > 1 {
		_, err = w.step(ctx, 1, w.fills(shared), -1)
	}
	return shared, err
}

// fills returns how many bytes a connection that knows nothing has to send until it
// has met the limit of a link of that rate: what this holds, and as much again while
// it gets there, and then some round trips by which it sees that there is no more.
func (w *warmth) fills(rate float64) int64 {
	holds := int64(rate * w.up.path(w.dest.Bucket).RTT.Seconds())
	return min(max(4*holds, firstWarmth), mostAlone)
}

// shareLink has all connections but one send at the same time, more and more, until
// they have met the limit of the link. It returns how fast they became.
func (w *warmth) shareLink(ctx context.Context) (fastest float64, err error) {
	var steps []round
	for size := int64(firstWarmth); warmer(steps); size *= 2 {
		one, err := w.step(ctx, max(1, w.up.limit-1), size, 0)
		if err != nil {
			return 0, err
		}
		steps, fastest = append(steps, one), max(fastest, one.rate)
	}
	return fastest, nil
}

// step has so many connections send that many bytes each, the warmest or those that
// will do. None begins before all
// requests have theirs: else the first would be done with it, and the next take the
// same.
func (w *warmth) step(ctx context.Context, connections int, size int64, enough float64) (round, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var connected, ended sync.WaitGroup
	connected.Add(connections)
	begin := make(chan struct{})
	var way atomic.Bool // was made for pushes
	for range connections {
		w.parts++
		number := w.parts
		ended.Go(func() {
			arrived := sync.OnceFunc(connected.Done)
			defer arrived()
			switch err := w.sendPart(ctx, number, size, &transport.Exchange{Connected: arrived, Enough: enough}, begin); {
			case errors.Is(err, errPushesFirst): // the others have their time: a connection is closed that is cut off
				way.Store(true)
			case err != nil:
				cancel(err)
			}
		})
	}
	connected.Wait()
	begun := time.Now()
	close(begin)
	ended.Wait()
	switch err := context.Cause(ctx); {
	case err != nil:
		return round{}, err
	case way.Load():
		return round{}, errPushesFirst
	}
	w.sent += int64(connections) * size
	rtt := w.up.path(w.dest.Bucket).RTT
	took := max(time.Since(begun)-rtt, time.Millisecond) // but for the answer
	return round{rate: float64(connections) * float64(size) / took.Seconds(), trips: took.Seconds() / max(rtt, time.Microsecond).Seconds()}, nil
}

// sendPart sends a part on a connection of its own, with a slot that a push may
// have at any time.
func (w *warmth) sendPart(ctx context.Context, number int32, size int64, x *transport.Exchange, begin <-chan struct{}) (err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	slot := w.up.slots.borrow(func() { cancel(errPushesFirst) })
	if slot == nil {
		return errPushesFirst
	}
	defer w.up.slots.giveBack(slot)
	begun := time.Now()
	_, err = w.up.client.UploadPart(transport.With(ctx, x), &s3.UploadPartInput{
		Bucket: &w.dest.Bucket, Key: &w.dest.Key, UploadId: &w.upload.ID, PartNumber: &number,
		ContentLength: &size, Body: &gatedBody{io.NewSectionReader(w.content, 0, size), ctx, begin},
	}, new(payload).sign)
	w.up.metrics.request("UploadPart", err, time.Since(begun))
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return err
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
