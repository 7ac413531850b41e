package uploader

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/transport"
)

// Overview returns how the daemon stands. It may be called once a second, however long
// the queue is: nothing is counted for it that is not known.
func (u *Uploader) Overview() push.Overview {
	n := u.depths()
	open, totals := u.wire.Look()
	taken, leftUnanswered := u.takes.last()
	o := push.Overview{
		Store: u.name, Queued: n.queued, Running: n.running, QueueLimit: u.queueLimit, InTurn: n.inTurn, Retrying: n.retrying,
		Slots: u.limit, SlotsInUse: u.slots.inUse(), AckedBytes: totals.AckedBytes, LastTaken: taken, LastUnanswered: leftUnanswered, Troubles: u.troubles(),
	}
	for _, c := range open {
		o.Connections = append(o.Connections, connectionOf(c))
	}
	return o
}

// nearby is the round trip up to which a connection that remembers nothing is as good as
// any: it has the rate of the way within some of them.
const nearby = 5 * time.Millisecond

func connectionOf(c transport.Connection) push.Connection {
	return push.Connection{
		Number: c.Number, Address: c.Address, Busy: c.Busy, Age: c.Age, Requests: c.Requests,
		RTT: c.Info.RTT, Rate: c.Info.Rate, FirstRoundTrip: c.FirstRoundTrip,
		Warm: c.FirstRoundTrip > coldWindow || c.Info.RTT > 0 && c.Info.RTT <= nearby,
	}
}

// depths is what is in the queue.
type depths struct {
	queued, running push.Line
	inTurn          time.Duration // see push.Overview
	retrying        int
	onTrial         int // buckets
}

// depths looks at the queue. It looks at those that are under way one by one, and at
// no others: the oldest of these is the first that the journal has.
func (u *Uploader) depths() (d depths) {
	now := time.Now()
	u.mu.Lock()
	running := u.queue.atWorkIDs()
	size := u.queue.size
	if e := u.queue.oldestInTurn(); e != nil {
		d.inTurn = max(0, time.Duration(now.UnixNano()-e.since))
	}
	d.retrying, d.onTrial = u.queue.retrying, len(u.queue.onTrial)
	u.mu.Unlock()
	age := func(id push.ID) time.Duration { return max(0, now.Sub(id.Time())) }
	slices.SortFunc(running, push.ID.Compare)
	if d.running.Pushes = len(running); len(running) > 0 {
		d.running.Oldest = age(running[0])
	}
	d.queued.Pushes = size - len(running)
	if d.queued.Pushes == 0 {
		return d
	}
	runs := func(id push.ID) bool {
		_, found := slices.BinarySearchFunc(running, id, push.ID.Compare)
		return found
	}
	if id, found := u.journal.OldestQueued(runs); found {
		d.queued.Oldest = age(id)
	}
	return d
}

// mostBuckets is how many buckets on trial are told of.
const mostBuckets = 10

// troubles returns what keeps pushes from being accepted or delivered, the worst first.
func (u *Uploader) troubles() (all []push.Trouble) {
	tell := func(kind push.TroubleKind, since time.Time, what, cause string) {
		t := push.Trouble{Kind: kind, Since: since.UTC(), Detail: what, Cause: cause}
		if cause != "" {
			t.Detail += ": " + cause
		}
		all = append(all, t)
	}
	u.mu.Lock()
	draining, buckets := u.draining, u.queue.trials()
	u.mu.Unlock()
	if draining {
		tell(push.TroubleShuttingDown, time.Time{}, "the daemon is shutting down, and takes no more pushes", "")
	}
	if since, cause := u.journal.Failing(); cause != nil {
		tell(push.TroubleJournal, since, "the journal cannot be written", push.OneLine(cause.Error()))
	}
	if since, cause, down := u.endpoint.down(); down {
		tell(push.TroubleStore, since, "the store cannot be reached", awayText(cause))
	}
	if since, _, problem := u.credentials.state(); problem != nil {
		tell(push.TroubleCredentials, since, "the store cannot be asked for pushes, for want of good credentials", credentialsText(problem))
		buckets = nil // they fail for the same reason
	}
	for _, b := range buckets[:min(len(buckets), mostBuckets)] {
		tell(push.TroubleBucket, b.since, fmt.Sprintf("pushes to the bucket %s fail, and it is tried once a second", push.Quote(b.name)), cmp.Or(b.problem, "its requests fail"))
		all[len(all)-1].Bucket = b.name
	}
	if path := u.journal.MovedAside(); path != "" {
		tell(push.TroubleJournalMovedAway, time.Time{}, fmt.Sprintf("the journal could not be read when the daemon was started, and was moved to %s: pushes that it had are not known", path), "")
	}
	return all
}

// Ready returns nil while pushes are accepted, else a *push.Error that says
// why not; and in any case what somebody should know who asks. No words of the store's
// are in it, nor the name of a bucket: anybody may ask.
func (u *Uploader) Ready() (notes []string, err error) {
	for _, t := range u.troubles() {
		switch {
		case t.Kind == push.TroubleShuttingDown:
			err = errShuttingDown()
		case t.Kind == push.TroubleJournal:
			err = cmp.Or(err, error(&push.Error{Code: push.JournalUnavailable, RetryAfter: journalRetryAfter,
				Detail: fmt.Sprintf("since %s %s: no push is accepted; make room on the disk of S3DAEMON_DATA_DIR, or look into the daemon's log", t.Since.Format(time.RFC3339), t.Detail)}))
		case t.Kind == push.TroubleBucket:
		case t.Since.IsZero():
			notes = append(notes, t.Detail)
		default:
			notes = append(notes, fmt.Sprintf("since %s %s", t.Since.Format(time.RFC3339), t.Detail))
		}
	}
	return notes, err
}
