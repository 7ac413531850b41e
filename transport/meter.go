package transport

import "time"

const (
	// meterEvery is for how long what is delivered is added up.
	meterEvery = 500 * time.Millisecond
	// lately is for how long the most that was seen counts, at least.
	lately = 10 * time.Minute
)

// meter finds the most that all connections together deliver. It looks while some
// are busy. It counts packets: of bytes many would be acknowledged at once where one
// before them was lost, as if the link had carried them in that moment.
type meter struct {
	timer *time.Timer
	on    bool
	since time.Time // of what is added up
	had   int64     // packets that had arrived by then, of all connections ever

	best   [2]float64 // bytes a second, now and before the turn
	turned time.Time
}

// saw notes a rate that was seen.
func (m *meter) saw(rate float64, now time.Time) {
	if now.Sub(m.turned) >= lately {
		m.best, m.turned = [2]float64{0, m.best[0]}, now
	}
	m.best[0] = max(m.best[0], rate)
}

// rate returns the most that was seen lately.
func (m *meter) rate() float64 { return max(m.best[0], m.best[1]) }

// meterLocked begins to look, if that is not so.
func (p *pool) meterLocked(now time.Time) {
	if m := &p.meter; !m.on && !p.closed {
		m.on, m.since = true, now
		m.had = p.sumLocked().Arrived
		m.timer.Reset(meterEvery)
	}
}

// measure looks.
func (p *pool) measure() {
	p.mu.Lock()
	defer p.unlock()
	m, now := &p.meter, time.Now()
	all := p.sumLocked()
	if took := now.Sub(m.since); took >= meterEvery/2 {
		m.saw(float64((all.Arrived-m.had)*all.Segment)/took.Seconds(), now)
	}
	m.since, m.had, m.on = now, all.Arrived, false
	for _, at := range p.places {
		m.on = m.on || at.member != nil && at.member.state == busy
	}
	if m.on && !p.closed {
		m.timer.Reset(meterEvery)
	}
}

// seen returns what was seen of all connections.
func (p *pool) seen() seen {
	p.mu.Lock()
	defer p.unlock()
	all := p.sumLocked()
	return seen{most: p.meter.rate(), arrived: all.Arrived, resent: int64(all.Retransmits), segment: all.Segment}
}

// sumLocked returns what all connections ever have done together.
func (p *pool) sumLocked() Info {
	all := p.departed
	for _, at := range p.places {
		if at.member != nil {
			info := at.member.info
			if at.member.state == busy {
				info = at.member.now()
			}
			all = sum(all, info)
		}
	}
	return all
}

// now returns what the kernel says of a connection, else what it said last.
func (m *member) now() Info {
	if info, ok := infoOf(m.conn); ok {
		return info
	}
	return m.info
}

// sum adds up what connections have done.
func sum(a, b Info) Info {
	return Info{
		Acked: a.Acked + b.Acked, Arrived: a.Arrived + b.Arrived, Segment: max(a.Segment, b.Segment), Retransmits: a.Retransmits + b.Retransmits, Busy: a.Busy + b.Busy,
		BufferLimited: a.BufferLimited + b.BufferLimited, ReceiverLimited: a.ReceiverLimited + b.ReceiverLimited,
	}
}
