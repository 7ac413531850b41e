package status

import (
	"math"
	"time"

	"github.com/lsst-dm/s3daemon/push"
)

// maker makes the frames of a board. One goroutine has it.
type maker struct {
	board   *Board
	source  Source
	now     push.Overview
	samples [rateSamples]sample // the newest last
	changes uint64              // that have been told of
	last    *frame
}

// rateSamples is how many samples, one a second, show how fast it goes now.
const rateSamples = 6

// sample is what had been delivered at a moment.
type sample struct {
	at    time.Time // zero: none
	acked int64
	done  int64
}

// sample looks at the source, for the tally's sake.
func (m *maker) sample(now time.Time) {
	m.now = m.source.Overview()
	newest := m.samples[rateSamples-1]
	b := m.board
	b.mu.Lock()
	if !newest.at.IsZero() {
		b.tally.acknowledged(now, max(0, m.now.AckedBytes-newest.acked))
	}
	done := b.tally.total.Done
	b.mu.Unlock()
	copy(m.samples[:], m.samples[1:])
	m.samples[rateSamples-1] = sample{now, m.now.AckedBytes, done}
}

// look looks at the source, and makes a frame of that where somebody watches.
func (m *maker) look() {
	m.sample(time.Now())
	if m.board.watched() {
		m.board.show(m.frame(time.Now()))
	}
}

// rates returns bytes and pushes a second, over the last 5 seconds.
func (m *maker) rates() (bytes, pushes float64) {
	newest := m.samples[rateSamples-1]
	for _, oldest := range m.samples {
		if seconds := newest.at.Sub(oldest.at).Seconds(); !oldest.at.IsZero() && seconds > 0 {
			return max(0, float64(newest.acked-oldest.acked)) / seconds, float64(newest.done-oldest.done) / seconds
		}
	}
	return 0, 0
}

// littleIn is what may be acknowledged in a step when nothing goes out on so many
// connections: questions that keep them open.
func littleIn(connections int) int64 { return 256 * int64(1+connections) }

// frame makes the next frame, of what the source was when it was looked at last.
func (m *maker) frame(now time.Time) *frame {
	b := m.board
	bytes, pushes := m.rates()
	b.mu.Lock()
	last, times := b.tally.last(now)
	f := facts{
		now: now, deadline: b.cfg.Deadline, overview: m.now, last: last, ever: b.tally.total != counts{}, failures: b.tally.failures.told(), refusedFor: b.tally.why,
		started: b.tally.started, rate: bytes, quiet: b.tally.quiet(now, littleIn(len(m.now.Connections))),
	}
	total, step, bounds, started := b.tally.total, b.tally.number, b.tally.bounds, b.tally.started
	b.mu.Unlock()

	v := judge(f)
	status := statusEvent{
		At: now.UTC(), Version: b.cfg.Version, StartedAt: started.UTC(), Level: v.level.String(), Summary: v.summary, Advice: v.advice,
		DeadlineSeconds: b.cfg.Deadline.Seconds(),
		Store:           storeState{m.now.Store, !f.has(push.TroubleStore)},
		Throughput:      throughput{math.Round(bytes), rounded(pushes, 100)},
		Queue:           queueState{lineOf(m.now.Queued), lineOf(m.now.Running), m.now.Retrying},
		Last:            last, SinceStart: total, Failures: f.failures, FailuresLeftOut: leftOut(last.Failed, f.failures), Times: timesOf{bounds, times}, Pool: poolOf(m.now), Troubles: m.now.Troubles,
	}
	if status.Troubles == nil {
		status.Troubles = []push.Trouble{}
	}
	m.last = newFrame(now, m.last, status, m.changed(), func() historyEvent { return b.history(now) }, step)
	return m.last
}

// changed returns what has changed since the frame before; nil: nothing.
func (m *maker) changed() *pushesEvent {
	changed, number, left := m.source.Changes(m.changes)
	m.changes = number
	if len(changed) == 0 && left == 0 {
		return nil
	}
	if show := m.board.cfg.Show; show != nil {
		for i := range changed {
			changed[i] = show(changed[i])
		}
	}
	return &pushesEvent{append([]push.Receipt{}, changed...), left} // a list, also where it is empty
}

// history returns the last 15 minutes.
func (b *Board) history(now time.Time) historyEvent {
	b.mu.Lock()
	whole, until := b.tally.whole(now), b.tally.until(now)
	b.mu.Unlock()
	h := historyEvent{Until: until.UTC(), StepSeconds: stepTime.Seconds()}
	for _, s := range whole {
		h.Bytes = append(h.Bytes, s.acked/int64(stepTime/time.Second))
		h.Done = append(h.Done, rounded(float64(s.Done)/stepTime.Seconds(), 100))
		h.Failed = append(h.Failed, rounded(float64(s.Failed)/stepTime.Seconds(), 100))
	}
	return h
}

// rounded returns a number in parts of one, of which there are so many.
func rounded(v, parts float64) float64 { return math.Round(v*parts) / parts }

// secondsOf returns a time in seconds, to the microsecond.
func secondsOf(d time.Duration) float64 { return d.Round(time.Microsecond).Seconds() }
