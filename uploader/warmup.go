package uploader

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/aws/aws-sdk-go-v2/service/s3"

	"github.com/lsst-dm/s3daemon/journal"
	"github.com/lsst-dm/s3daemon/push"
)

// A connection that has sent nothing yet begins slowly, however long it has been
// open: only bytes tell it what the way to the store carries. A warm-up sends some,
// as parts of an upload that is then given up. So nothing is left, not even in a
// bucket that keeps versions. The upload is in the journal as one that no push goes
// on with: where the warm-up could not abort it, the janitor does, after a crash too,
// and touches no object.
//
// First all connections but one send at the same time, since a burst finds each of
// them with its share of the link. Then the one that is left sends alone: it is to
// remember the whole link, for a file that comes alone.
//
// It begins with little, and takes no longer on a slow link than on a fast one, since
// there is less to learn there. A push that starts ends it.

const (
	firstWarmth = 16 << 10 // bytes that a connection sends in the first step, as many as go at once anyway
	growsBy     = 4        // times as many in the next step, at most
	mostSteps   = 6
	mostAlone   = 256 << 20 // bytes that the last connection sends
	// stillGrows is by how much faster than the one before a step must be for
	// another to follow in any case.
	stillGrows = 1.25
	// longEnough is how many round trips a step must last to be the last: only by
	// some that bring no more do connections see that the link is full. Those that have
	// not would begin the next burst at several times their share.
	longEnough = 5
	// stepTakes is how long a step lasts at most, unless twice as many round trips as
	// are long enough are longer. One that lasted so long is the last.
	stepTakes = time.Second
	// warmUpTakes is how long all of it lasts at most, unless mostTrips are longer.
	warmUpTakes = 10 * time.Second
	mostTrips   = 60
	// abortTakes is how long a warm-up waits until its upload has been given up.
	abortTakes = 5 * time.Second
	// Between two tries to do so it waits for so long, and twice as long each time.
	firstAbortPause = 50 * time.Millisecond
	lastAbortPause  = 800 * time.Millisecond
)

// round is one step of a warm-up.
type round struct {
	rate  float64 // bytes a second, of all connections together
	took  time.Duration
	trips float64 // round trips that are
}

// warmer reports whether another step is to follow.
func warmer(steps []round) bool {
	n := len(steps)
	if n == 0 {
		return true
	}
	last := steps[n-1]
	switch {
	case n == mostSteps, last.took >= stepTakes && last.trips >= 2*longEnough:
		return false
	case n == 1:
		return true
	}
	return last.rate >= stillGrows*steps[n-2].rate || last.trips < longEnough
}

// nextWarmth returns how many bytes a connection sends in the step after one of that
// size: more, but at the rate that is its own no more than a step's time is for.
func nextWarmth(size int64, rate float64, rtt time.Duration) int64 {
	most := rate * max(stepTakes, 2*longEnough*rtt).Seconds()
	return int64(max(firstWarmth, min(growsBy*float64(size), most)))
}

// What ends a warm-up early.
var (
	errPushesFirst = errors.New("pushes came") // which do what is left of it
	errTooSlow     = errors.New("it took too long")
)

// warmth is a warm-up.
type warmth struct {
	*delivery // of no push
	upload    *journal.Upload
	content   filler
	parts     int32 // that were begun
	sent      int64 // bytes
	fastest   float64
	had       int // connections that the last step had, of those that it was to have
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
	ctx := u.beginWarmUp()
	defer u.warmUpIsOver()
	begun := time.Now()
	w := &warmth{delivery: &delivery{up: u, dest: where, id: newWarmthID()}}
	err := w.run(ctx)
	log := u.log.With("destination", where.String(), "seconds", time.Since(begun).Seconds(), "bytes", w.sent)
	switch {
	case err == nil:
		u.warm.Store(true)
		log.Info(w.success(), "mbit_per_second", int(w.fastest*8/1e6))
	case errors.Is(err, errLeaving) || u.stopped.Err() != nil:
	case errors.Is(err, errPushesFirst):
		log.Info("the warm-up has made way for pushes")
	default:
		log.Warn("the connections could not be warmed: the first files will take longer", "error", inBrief(err))
	}
}

// beginWarmUp returns the context of a warm-up, which says why it is to end: at once
// where there are pushes, or the daemon stops.
func (u *Uploader) beginWarmUp() context.Context {
	ctx, end := context.WithCancelCause(u.stopped)
	u.mu.Lock()
	defer u.mu.Unlock()
	u.warming = end
	switch {
	case u.draining:
		end(errLeaving)
	case u.queue.pressing() > 0:
		end(errPushesFirst)
	}
	return ctx
}

// endWarmUpLocked ends the warm-up, if there is one.
func (u *Uploader) endWarmUpLocked(why error) {
	if u.warming != nil {
		u.warming(why)
	}
}

func (u *Uploader) warmUpIsOver() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.warming(nil)
	u.warming = nil
	u.idleLocked()
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

// run begins an upload, sends, and gives the upload up.
func (w *warmth) run(ctx context.Context) error {
	w.upload = &journal.Upload{Push: w.id, BegunAt: w.nextBegunAt(), Store: w.up.name, Bucket: w.dest.Bucket, Key: w.dest.Key}
	w.up.conditions.probes.Store(nameOf(w.upload), nil)
	defer w.up.janitor.wake()
	defer w.up.conditions.probes.Delete(nameOf(w.upload))
	in := &s3.CreateMultipartUploadInput{Bucket: &w.dest.Bucket, Key: &w.dest.Key}
	out, err := w.beginUpload(ctx, w.upload, in, nil)
	if err != nil {
		return err
	}
	w.upload.ID = *out.UploadId
	defer w.giveUp()
	select {
	case <-w.up.cooled: // what was lost before: this one warms what there is since
	default:
	}
	if err := w.up.keepUpload(w.up.stopped, w.upload); err != nil {
		return err
	}
	ctx, over := context.WithTimeoutCause(ctx, max(warmUpTakes, mostTrips*w.rtt()), fmt.Errorf("%w on this link", errTooSlow))
	defer over()
	return w.send(ctx)
}

// giveUp aborts the upload, of which the journal has no need then. A store that is
// still at work on a part that was cut off may refuse that for a moment. Where it
// cannot be done soon it is left to the janitor.
func (w *warmth) giveUp() {
	ctx, cancel := context.WithTimeout(w.up.stopped, abortTakes)
	defer cancel()
	for pause := firstAbortPause; pause <= lastAbortPause; pause *= 2 {
		if w.abort(ctx, w.upload.ID, w.id) == nil {
			w.up.journal.DropUpload(w.upload, nil)
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

func (w *warmth) rtt() time.Duration { return w.up.path(w.dest.Bucket).RTT }

// send has the connections share the link, and then one have it alone. That one may
// be cut off in the end, if the time is over: the others are warm.
func (w *warmth) send(ctx context.Context) error {
	w.content = make(filler, fillerSize)
	rand.Read(w.content)
	if err := w.shareLink(ctx); err != nil || w.up.limit == 1 {
		return err
	}
	_, err := w.step(ctx, 1, w.fills(w.fastest), -1)
	if errors.Is(err, errTooSlow) {
		return nil
	}
	return err
}

// fills returns how many bytes a connection that knows nothing has to send until it
// has met the limit of a link of that rate: what this holds, and as much again while
// it gets there, and then some round trips by which it sees that there is no more.
func (w *warmth) fills(rate float64) int64 {
	holds := int64(rate * w.rtt().Seconds())
	return min(max(4*holds, firstWarmth), mostAlone)
}

// shareLink has all connections but one send at the same time, more and more, until
// they have met the limit of the link. Where that is the bandwidth that is allowed, and
// the share of each goes in one round trip however cold it is, there is nothing to learn.
func (w *warmth) shareLink(ctx context.Context) error {
	n := max(1, w.up.limit-1)
	allowed := w.allowed()
	if allowed*w.rtt().Seconds() <= float64(n)*firstWarmth {
		w.fastest = allowed
		return nil
	}
	var steps []round
	for size := int64(firstWarmth); warmer(steps); size = nextWarmth(size, w.fastest/float64(n), w.rtt()) {
		one, err := w.step(ctx, n, size, 0)
		if err != nil {
			return err
		}
		n = max(1, w.had)
		steps, w.fastest = append(steps, one), max(w.fastest, min(one.rate, allowed))
	}
	return nil
}

// allowed returns how many bytes a second may be sent.
func (w *warmth) allowed() float64 {
	if w.up.bandwidth == nil || w.up.bandwidth.Get() == 0 {
		return math.Inf(1)
	}
	return float64(w.up.bandwidth.Get()) / 8
}
