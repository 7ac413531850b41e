package api

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// waits has the places of those who wait for the end of a push, or at the
// barrier. They are among the callers who are served, of whom there are so many
// at once. A wait may last for hours, so some places are left for those who
// want an answer now: a push that nobody waits for is taken however many wait.
// Those who ask how pushes stand, or watch, have half of the places at most,
// since they lose nothing by asking again; the others are for callers who wait
// for their own push.
type waits struct {
	most, mostAsking int
	refused          prometheus.Counter

	mu          sync.Mutex // guards what follows
	now, asking int
}

// newWaits makes those of so many callers; 0: there may be any number.
func newWaits(callers int, registry prometheus.Registerer) *waits {
	w := &waits{most: callers, mostAsking: (callers + 1) / 2, refused: prometheus.NewCounter(prometheus.CounterOpts{
		Name: "s3daemon_waits_refused_total", Help: "Requests that wanted to wait when as many waited as may: answered at once, or refused where they would push."})}
	if callers > 1 {
		w.most = callers - max(1, callers/16)
	}
	registry.MustRegister(w.refused)
	return w
}

// enter reports whether one more may wait, who asks how pushes stand, or pushes.
func (w *waits) enter(asking bool) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.most > 0 && (w.now >= w.most || asking && w.asking >= w.mostAsking) {
		w.refused.Inc()
		return false
	}
	w.now++
	if asking {
		w.asking++
	}
	return true
}

// leave ends what enter allowed.
func (w *waits) leave(asking bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now--
	if asking {
		w.asking--
	}
}

// whileWaiting asks how something stands once it is over, or the wait is. Where
// no more may wait it asks how it stands now, as at the end of the wait.
func whileWaiting[T any](w *waits, wait time.Duration, ask func(time.Duration) (T, error)) (T, error) {
	if wait > 0 && !w.enter(true) {
		wait = 0
	} else if wait > 0 {
		defer w.leave(true)
	}
	return ask(wait)
}
