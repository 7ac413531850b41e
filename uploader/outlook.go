package uploader

import (
	"math"

	"github.com/lsst-dm/s3daemon/transport"
)

// outlook is what is known at the moment at which a file is about to be sent, and
// tells how long that would take in one way and in another. It is a plain value;
// its times are in seconds, its rates in bytes a second.
//
// The model: one round trip for each request that waits for the one before; beside
// that, bytes over rate. A connection begins at the rate that it remembers, or
// that its first window allows, and gets faster, but neither than its share of the
// link nor than its send buffer allows, which goes out once in each round trip.
type outlook struct {
	path   transport.Path
	beside int // pushes that want the link now, with this one
	slots  int // requests that there is room for, with this one's
}

// What a connection does when it could go faster than it does.
const (
	// coldWindow is the most bytes in a round trip that are taken for those of a
	// connection that remembers nothing: twice as many go in the next.
	coldWindow = 128 << 10
	// probes is how many round trips one takes that remembers a rate until it is
	// twice as fast, where bbr cannot be begun anew. Of eight of them bbr tries in one whether a quarter more gets
	// through.
	probes = 20
)

// known reports whether anything can be told.
func (o outlook) known() bool { return o.path.RTT > 0 && len(o.path.Rates) > 0 }

func (o outlook) rtt() float64 { return o.path.RTT.Seconds() }

// most is what one connection carries at most, by its send buffer: three quarters of
// that in a round trip, as measured, since the kernel asks for more only once a third
// of it is free.
func (o outlook) most() float64 {
	if o.path.Window == 0 {
		return math.Inf(1)
	}
	return 0.75 * float64(o.path.Window) / o.rtt()
}

// share is this push's share of the link. It is without bounds where nothing shows
// what the link carries: little files do not, nor does one connection alone that was
// as fast as its buffer allows.
func (o outlook) share() float64 {
	seen, most := o.path.Rate, o.most()
	if o.path.Rate*o.rtt() <= coldWindow || seen > 0.8*most && seen < 1.25*most {
		return math.Inf(1)
	}
	return seen / float64(max(1, o.beside))
}

// warmed returns what will be known where each of the connections has sent as much
// as it can.
func (o outlook) warmed() outlook {
	rate := min(o.most(), o.share())
	if math.IsInf(rate, 1) {
		return o
	}
	all := make([]float64, len(o.path.Rates))
	for i := range all {
		all[i] = max(rate, o.path.Rates[i])
	}
	o.path.Rates = all
	return o
}

// whole returns how long a file takes in one request.
func (o outlook) whole(size int64) float64 {
	return o.rtt() + o.send(size, o.path.Rates[0], o.share())
}

// inParts returns how long a file takes in so many parts of that size side by side:
// an upload is begun before them, and completed after the slowest.
func (o outlook) inParts(partSize int64, n int) float64 {
	return 3*o.rtt() + o.send(partSize, o.path.Rates[n-1], o.share()/float64(n))
}

// apiece returns at what rate a connection will do for one of so many requests that
// share this push's share of the link; 0 where that is not known. So a connection
// that remembers more is left for who comes alone: with the rate of the whole link it
// would also fill the queue before the link at once, and drive the others out. Half
// of the share will do, since who comes first of a burst knows of a few others only.
func (o outlook) apiece(requests int) float64 {
	if !o.known() || math.IsInf(o.share(), 1) {
		return 0
	}
	return o.share() / float64(requests) / 2
}

// fill returns how many parts of that size keep the link full side by side: each
// is sent, and then waits a round trip for its answer. More than three times what a
// link needs whose connections are all as fast as it would only fill its queue.
func (o outlook) fill(partSize int64) int {
	if !o.known() || math.IsInf(o.share(), 1) {
		return firstParts
	}
	most := 3 * int(math.Ceil(1+o.share()*o.rtt()/float64(partSize)))
	n, rate := 0, 0.0
	for n < min(most, len(o.path.Rates)) && rate < o.share() {
		rate += float64(partSize) / (o.rtt() + o.send(partSize, o.path.Rates[n], o.share()))
		n++
	}
	return max(firstParts, n)
}

// send returns how long it takes a connection that begins at one rate until it has
// sent so many bytes, where it gets no faster than another.
func (o outlook) send(size int64, from, to float64) float64 {
	bytes, doubling := float64(size), o.rtt()
	if from*o.rtt() > coldWindow && !o.path.Doubles {
		doubling *= probes
	}
	to = min(to, o.most())
	from = max(1, min(from, to))
	// At a rate that grows by e in this time, that many bytes have gone by when it
	// has arrived.
	growth := doubling / math.Ln2
	if meanwhile := growth * (to - from); bytes > meanwhile {
		return growth*math.Log(to/from) + (bytes-meanwhile)/to
	}
	return growth * math.Log1p(bytes/(growth*from))
}

// outlook returns what is known now to a push to the bucket that is about to begin.
// Those that are being accepted will want the link at the same moment: of a burst
// each is to know, though it be the first.
func (u *Uploader) outlook(bucket string) outlook {
	u.mu.Lock()
	beside := u.queue.pressing() + u.entering
	u.mu.Unlock()
	beside = max(1, beside)
	return outlook{path: u.path(bucket), beside: beside, slots: min(u.slots.room(), u.limit/beside)}
}

// mostAtOnce returns how many parts of a large file that begins now may ever be under
// way at once: four times its share of the slots, since each costs memory that waits,
// and as many as a file begins with.
func (u *Uploader) mostAtOnce() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	return min(u.limit, max(firstParts, 4*u.limit/max(1, u.queue.running[part])))
}

// pressing returns how many pushes have a place, or could have one.
func (q *queue) pressing() (n int) {
	for k := range q.ready {
		n += q.running[k]
		for lane := range q.ready[k] {
			n += q.ready[k][lane].len()
		}
	}
	return n
}
