package uploader

import (
	"time"

	"github.com/lsst-dm/s3daemon/journal"
)

// ownUpload returns which of its uploads, which come oldest first, a push goes on
// with: the newest, as long as the push has not ended. It returns nil where there
// is none, and where the record of the push is nil, since it has left the history.
// What was begun before a push that had ended was put back is not its own either: that
// may be given up at this very moment.
func ownUpload(r *journal.Record, uploads []journal.Upload) *journal.Upload {
	if r == nil || r.State.Ended() {
		return nil
	}
	return newestUpload(uploads, r.RetriedAt)
}

// newestUpload returns the newest of the uploads of a push that was put back then,
// unless it was begun before.
func newestUpload(uploads []journal.Upload, retriedAt time.Time) *journal.Upload {
	for i := len(uploads) - 1; i >= 0; i-- {
		if up := &uploads[i]; !up.Probe {
			if up.BegunAt.Before(retriedAt) {
				return nil
			}
			return up
		}
	}
	return nil
}

// uploadName tells an upload in the journal from all others.
type uploadName struct {
	push    [16]byte
	begunAt int64
}

func nameOf(up *journal.Upload) uploadName { return uploadName{up.Push, up.BegunAt.UnixNano()} }

// orphans returns the uploads in the journal that no push goes on with. Those
// that became orphans a moment ago may not be among them; a push's own never is.
func (u *Uploader) orphans() (orphans []journal.Upload, err error) {
	all, err := u.uploads(func(*journal.Upload) bool { return true })
	for err == nil && len(all) > 0 {
		n := 1
		for n < len(all) && all[n].Push == all[0].Push {
			n++
		}
		var r *journal.Record
		kept, found, why := u.journal.Get(all[0].Push)
		if found {
			r = &kept
		}
		err = why
		own := ownUpload(r, all[:n])
		for i := range all[:n] {
			if up := &all[i]; up != own && !u.probing(up) {
				orphans = append(orphans, *up)
			}
		}
		all = all[n:]
	}
	return orphans, err
}

// probing reports whether the upload is of a question to the store that is under
// way.
func (u *Uploader) probing(up *journal.Upload) bool {
	_, is := u.conditions.probes.Load(nameOf(up))
	return is
}

// uploads returns those of the uploads in the journal that the function is true of.
func (u *Uploader) uploads(which func(*journal.Upload) bool) (found []journal.Upload, err error) {
	err = u.journal.EachUpload(func(up *journal.Upload) error {
		if which(up) {
			found = append(found, *up)
		}
		return nil
	})
	return found, err
}

// duty is what an orphan calls for.
type duty int

const (
	give   duty = iota // it is aborted
	ask                // its completion may be under way, or have been carried out: that is found out first
	search             // nobody heard its id: it is looked for
	clean              // it was for a question to the store: all that this made is removed
	spare              // by the name it is another store's: what this one does not know stays
)

// dutyOf returns what an orphan calls for, where the store has this name.
func dutyOf(up *journal.Upload, store string) duty {
	switch {
	case up.Store != store:
		return spare
	case up.Probe:
		return clean
	case up.ID == "":
		return search
	case !up.CompletedAt.IsZero():
		return ask
	}
	return give
}

const (
	// completionTakes is for how long after it was asked for a completion may be
	// under way, on a store that has much to join: some lose the object where an
	// abort then meets it.
	completionTakes = time.Hour
	// creationTakes is for how long after it was asked for an upload may appear, or
	// what a probe makes.
	creationTakes = 10 * time.Minute
	// orphansKept is how old an orphan becomes that nothing can be done about.
	orphansKept = 7 * 24 * time.Hour
)

// postponed is when an orphan is looked at again that could not be settled.
type postponed struct {
	seen  time.Time // by this process, for the first time
	tries int
	due   time.Time
}

const (
	firstPause = time.Second
	janitorCap = time.Hour
	// enoughTries is how many tries there are at least before an orphan that is
	// old enough is given up: as many as it takes for the pauses to become as long
	// as they can.
	enoughTries = 13
)

// apart is by how much of a second two tries that follow each other differ. By this
// share, the golden one, any few of them are spread evenly over all of it.
const apart = 618 * time.Millisecond

// again postpones an orphan that has been looked at: each time for longer, and to
// another moment within a second, since that tells more of the store's clock.
func (p *postponed) again(now time.Time) {
	p.tries++
	pause := janitorCap
	if p.tries < enoughTries {
		pause = min(firstPause<<(p.tries-1), janitorCap)
	}
	p.due = now.Add(pause)
	within := time.Duration(p.tries) * apart % time.Second
	p.due = p.due.Add((within - time.Duration(p.due.Nanosecond()) + time.Second) % time.Second)
}

// hopeless reports whether an orphan was looked at often enough in vain.
func (p *postponed) hopeless(up *journal.Upload, now time.Time) bool {
	return p.tries >= enoughTries && now.Sub(up.BegunAt) >= orphansKept
}

// refusals is how often the store has refused what was to be done about a bucket's
// orphans. After some in a row one orphan alone is tried after a pause, and the
// others wait for it: there may be thousands, with the same answer to each.
type refusals struct {
	postponed
	inRow   int
	err     error // the last
	waiting int   // orphans, in this round
	known   bool  // that they wait was told
}

// enoughRefusals is how many in a row speak for all orphans of a bucket.
const enoughRefusals = 3

// note takes into account how the try at one of the bucket's orphans has ended.
func (r *refusals) note(err error, now time.Time) {
	switch {
	case err == nil:
		*r = refusals{}
	case answerOf(err).Status == 0 || gone(err): // which is no refusal
	default:
		r.err = err
		if r.inRow++; r.inRow >= enoughRefusals {
			r.again(now)
		}
	}
}

// told ends a round: it returns how many orphans wait, and whether that is to be
// told, once.
func (r *refusals) told() (waiting int, first bool) {
	waiting, r.waiting = r.waiting, 0
	first = waiting > 0 && !r.known
	r.known = r.known || first
	return waiting, first
}

// storeClock is what is known of the store's clock: the bounds of what it is
// ahead of ours. Several answers together tell more than each alone.
type storeClock struct {
	known    bool
	lo, hi   time.Duration
	prompt   time.Duration // the upper bound, if each Date is of the moment
	quickest time.Duration // that an answer came
}

// dateLags is how old a Date may be when it is sent: it has whole seconds, and
// servers write it anew but once a second.
const dateLags = 2 * time.Second

// note takes an answer into account that came between these times of ours.
func (c *storeClock) note(sent, came, date time.Time) {
	lo, hi, prompt, took := date.Sub(came), date.Add(dateLags).Sub(sent), date.Add(time.Second).Sub(sent), came.Sub(sent)
	if !c.known || lo > c.hi || hi < c.lo { // one of the clocks was set
		*c = storeClock{true, lo, hi, prompt, took}
		return
	}
	c.lo, c.hi = max(c.lo, lo), min(c.hi, hi)
	c.prompt, c.quickest = min(c.prompt, prompt), min(c.quickest, took)
}

// closeEnough is how far the bounds may be apart, beside the time that an answer
// takes, for the lower one to be the clock itself.
const closeEnough = 250 * time.Millisecond

// ahead returns what the store's clock is ahead of ours: the least that it can
// be, and nothing as long as they may be alike. So a clock that is behind by less
// than two seconds may hide an upload, rather than one that is right show another's;
// but not where the store tells times to the millisecond, and its answers have
// narrowed the bounds: such stores have a Date of the moment.
func (c *storeClock) ahead(precision time.Duration) time.Duration {
	switch width := c.prompt - c.lo; {
	case c.known && precision < time.Second && width >= 0 && width-c.quickest < closeEnough:
		return c.lo
	case c.lo <= 0 && c.hi >= 0:
		return 0
	}
	return c.lo
}

// notBefore returns the time by which the store can have begun an upload at the
// earliest that was asked for at that time of ours, as the store writes times:
// stores keep them to the second, or to the millisecond.
func (c *storeClock) notBefore(begun time.Time, precision time.Duration) time.Time {
	return begun.Add(c.ahead(precision)).Truncate(precision)
}
