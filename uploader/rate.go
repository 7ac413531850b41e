package uploader

import "time"

// rateWindow is what the rate of ends is taken over.
const rateWindow = 10 // seconds

// rate counts how many pushes ended in each of the last seconds.
type rate struct {
	second int64 // the last one counted in
	counts [rateWindow]int
}

// ended counts one push.
func (r *rate) ended(at time.Time) {
	r.turn(at)
	r.counts[r.second%rateWindow]++
}

// turn forgets what is too long ago.
func (r *rate) turn(now time.Time) {
	second := now.Unix()
	if second-r.second > rateWindow {
		r.second = second - rateWindow
	}
	for r.second < second {
		r.second++
		r.counts[r.second%rateWindow] = 0
	}
}

// Bounds of what a caller is told of whom there is no room for.
const (
	leastRetryAfter = time.Second
	mostRetryAfter  = time.Minute
)

// untilRoom returns about how long it takes until a full queue has room again,
// for a hundredth of its callers at least, at the rate of the last seconds.
func (r *rate) untilRoom(now time.Time, limit int) time.Duration {
	r.turn(now)
	sum := 0
	for _, n := range r.counts {
		sum += n
	}
	if sum == 0 {
		return mostRetryAfter
	}
	room := time.Duration(max(1, limit/100)) * rateWindow * time.Second / time.Duration(sum)
	return min(max(room, leastRetryAfter), mostRetryAfter)
}
