package transport

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestMeter: the most that was seen counts for as long as it is of late, and no
// longer than twice that.
func TestMeter(t *testing.T) {
	m, now := new(meter), time.Unix(1e9, 0)
	for _, step := range []struct {
		after time.Duration
		saw   float64
		want  float64
	}{
		{0, 5, 5},
		{time.Minute, 9, 9},
		{time.Minute, 2, 9},
		{lately, 3, 9},
		{lately / 2, 4, 9},
		{lately, 1, 4},
		{lately, 0, 1},
	} {
		now = now.Add(step.after)
		if m.saw(step.saw, now); m.rate() != step.want {
			t.Errorf("after %v: %v, want %v", now.Sub(time.Unix(1e9, 0)), m.rate(), step.want)
		}
	}
}

// TestPathOfSeveral: of the connections to a host the least round trip, the largest
// buffer, and what the idle ones begin with, the highest first.
func TestPathOfSeveral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tr := kept(t, 5, new(impatient))
		synctest.Wait()
		p := tr.pool
		p.mu.Lock()
		for i, info := range []Info{
			{MinRTT: 3 * time.Second, SendBuffer: 1, Rate: 2},
			{MinRTT: time.Second, SendBuffer: 3, Rate: 9}, // which is busy
			{MinRTT: 2 * time.Second, SendBuffer: 2, Rate: 1},
			{MinRTT: 9 * time.Second, Rate: 5},
			{Rate: 3},
		} {
			info.Algorithm = bbr
			p.places[i].member.info = info
		}
		p.places[1].member.state = busy
		p.mu.Unlock()
		path := p.path(p.places[0].member.to)
		if path.RTT != time.Second || path.Window != 3 || !slices.Equal(path.Rates, []float64{5, 3, 2, 1}) {
			t.Errorf("%+v", path)
		}
		if none := p.path(host{"http", "other:80"}); none.RTT != 0 || none.Window != 0 || none.Rates != nil {
			t.Errorf("to another host: %+v", none)
		}
		p.release(p.places[1].member, nil)
	})
}
