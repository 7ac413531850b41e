package uploader

import (
	"slices"
	"testing"
	"time"

	"github.com/lsst-dm/s3daemon/transport"
)

// rates is what so many idle connections would begin at, in Mbit/s.
func rates(n int, mbit float64) (all []float64) {
	for range n {
		all = append(all, mbit*1e6/8)
	}
	return all
}

// The figures are of links as they were measured; DESIGN.md has them. What a
// connection begins at that has forgotten its window is 10 packets in a round trip.
func TestCut(t *testing.T) {
	const (
		file  = 18_000_000
		ms    = time.Millisecond
		gbit  = 1e9 / 8
		stock = 4 << 20 // the window that a stock kernel's tcp_wmem allows
		wide  = 60 << 20
	)
	alone := append(rates(1, 1000), rates(24, 60)...)
	p := plan{whole: wholeSize, minPart: minPartSize, split: leastPart}
	for _, tc := range []struct {
		name   string
		size   int64
		path   transport.Path
		beside int
		slots  int
		parts  int
	}{
		{"nothing is known", file, transport.Path{}, 1, 22, 1},
		{"no connection is idle", file, transport.Path{RTT: 200 * ms, Window: wide, Rate: gbit}, 1, 22, 1},
		{"one is as fast as the link", file, transport.Path{RTT: 200 * ms, Rates: alone, Window: wide, Rate: gbit}, 1, 22, 1},
		{"all remember their share of a burst", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 1, 22, 3},
		{"and get faster each round trip", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Doubles: true, Window: wide, Rate: gbit}, 1, 22, 1},
		{"and a file is as large as one request may be", wholeSize, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 1, 22, 6},
		{"and it is small", 10 << 20, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 1, 22, 1},
		{"and no slot is free", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 1, 1, 1},
		{"and two are", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 1, 2, 2},
		{"and twenty want the link", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 20, 22, 1},
		{"and three do", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: gbit}, 3, 8, 3},
		{"and two of them only", file, transport.Path{RTT: 200 * ms, Rates: append(rates(2, 60), rates(23, .6)...), Window: wide, Rate: gbit}, 1, 22, 2},
		{"and it is slow", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: wide, Rate: 60e6 / 8}, 1, 22, 1},
		{"the send buffer holds little", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 120), Window: stock, Rate: 16e6}, 1, 22, 3},
		{"and the link is known to carry no more", file, transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Window: stock, Rate: 7.5e6}, 1, 22, 1},
		{"all are cold, and will carry little each", file, transport.Path{RTT: 200 * ms, Rates: rates(25, .6), Window: stock}, 1, 22, 3},
		{"and little files have gone", file, transport.Path{RTT: 200 * ms, Rates: rates(25, .6), Window: stock, Rate: 1e5}, 1, 22, 3},
		{"and one is warm by now", file, transport.Path{RTT: 200 * ms, Rates: append(rates(1, 120), rates(24, .6)...), Window: stock}, 1, 22, 1},
		{"all are cold, and will carry much", file, transport.Path{RTT: 200 * ms, Rates: rates(25, .6), Window: wide}, 1, 22, 1},
		{"all are cold, and the link is slow", file, transport.Path{RTT: 200 * ms, Rates: rates(25, .6), Window: wide, Rate: 2e6}, 1, 22, 1},
		{"the store is near", file, transport.Path{RTT: time.Millisecond, Rates: rates(25, 900), Window: stock, Rate: gbit}, 1, 22, 1},
		{"the store is near, and the link was shared", file, transport.Path{RTT: 20 * ms, Rates: rates(25, 60), Window: stock, Rate: gbit}, 1, 22, 3},
	} {
		o := outlook{path: tc.path, beside: tc.beside, slots: tc.slots}
		got := 1
		if cut := p.cut(tc.size, o); cut > 0 {
			got = partsOf(tc.size, cut)
			if cut < leastPart {
				t.Errorf("%s: parts of %d bytes", tc.name, cut)
			}
			if by := p.cuts(tc.size, got); !slices.Contains(by, cut) {
				t.Errorf("%s: parts of %d bytes, by their number they would be of %d", tc.name, cut, by)
			}
		}
		if got != tc.parts {
			whole, parts := 0.0, make([]float64, 7)
			if o.known() {
				whole = o.whole(tc.size)
				for n := 2; n < 7; n++ {
					parts[n] = o.inParts(ceil(tc.size, int64(n)), n)
				}
			}
			t.Errorf("%s: %d parts, want %d: as a whole %.2f s, in parts %.2f", tc.name, got, tc.parts, whole, parts[2:])
		}
	}
}

// TestFill: a large file begins with as many parts as the link takes, four where that
// is not known.
func TestFill(t *testing.T) {
	const ms, gbit, stock = time.Millisecond, 1e9 / 8, 4 << 20
	for _, tc := range []struct {
		name   string
		path   transport.Path
		beside int
		want   int
	}{
		{"nothing is known", transport.Path{}, 1, 4},
		{"nor what the link carries", transport.Path{RTT: 200 * ms, Rates: rates(25, 1)}, 1, 4},
		{"each is as fast as the link", transport.Path{RTT: 200 * ms, Rates: rates(25, 1000), Rate: gbit}, 1, 4},
		{"all remember their share of a burst", transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Rate: gbit}, 1, 12},
		{"with three others", transport.Path{RTT: 200 * ms, Rates: rates(25, 60), Rate: gbit}, 4, 5},
		{"few are idle", transport.Path{RTT: 200 * ms, Rates: rates(6, 60), Rate: gbit}, 1, 6},
		{"the link is longer", transport.Path{RTT: 800 * ms, Rates: rates(25, 1000), Rate: gbit}, 1, 13},
		{"the link is slow", transport.Path{RTT: 200 * ms, Rates: rates(25, 1), Rate: gbit / 50}, 1, 4},
		{"the store is near", transport.Path{RTT: ms, Rates: rates(25, 60), Rate: gbit}, 1, 4},
		{"the send buffer holds little", transport.Path{RTT: 200 * ms, Rates: rates(25, 1000), Window: stock, Rate: gbit}, 1, 11},
	} {
		if got := (outlook{path: tc.path, beside: tc.beside}).fill(minPartSize); got != tc.want {
			t.Errorf("%s: %d parts, want %d", tc.name, got, tc.want)
		}
	}
}

// TestMostAtOnce: where many large files run, each may have few parts under way.
func TestMostAtOnce(t *testing.T) {
	u := &Uploader{limit: 25}
	for running, want := range map[int]int{0: 25, 1: 25, 4: 25, 5: 20, 12: 8, 25: 4} {
		if u.queue.running[part] = running; u.mostAtOnce() != want {
			t.Errorf("with %d large files: %d parts, want %d", running, u.mostAtOnce(), want)
		}
	}
	if u.limit = 2; u.mostAtOnce() != 2 {
		t.Errorf("with a pool of two: %d parts", u.mostAtOnce())
	}
}

// TestOutlookOfABurst: a push knows of those that are being accepted beside it, and
// takes no more than its share of the slots.
func TestOutlookOfABurst(t *testing.T) {
	r := newRig(t)
	for _, entering := range []int{0, 1, 2, r.cfg.MaxConnections, 10 * r.cfg.MaxConnections} {
		r.Uploader.mu.Lock()
		r.entering = entering
		r.Uploader.mu.Unlock()
		o := r.outlook("bucket")
		r.Uploader.mu.Lock()
		r.entering = 0
		r.Uploader.mu.Unlock()
		if o.beside != max(1, entering) || o.slots != min(r.slots.room(), r.cfg.MaxConnections/max(1, entering)) {
			t.Errorf("%d: %+v", entering, o)
		}
	}
}
