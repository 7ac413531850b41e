package uploader

import (
	"errors"
	"math/rand/v2"
	"time"
)

// Backoff between attempts: full jitter, so that pushes that fail together do
// not come back together.
const (
	backoffBase = 500 * time.Millisecond
	backoffCap  = 10 * time.Second // while somebody waits
	patientCap  = time.Minute      // once nobody does
	// completionSettles is how long a store has for a completion that it answered
	// unclearly before it is asked for another; longestSettling is the most that it has.
	completionSettles = 5 * time.Second
	longestSettling   = 10 * time.Minute
	// fewestCompletions is how often an upload is completed at least before another
	// takes its place.
	fewestCompletions = 3
	// longestRetryAfter is the most that a store's Retry-After is believed.
	longestRetryAfter = 5 * time.Minute
	// longestForCaller is the longest Retry-After that a push is held for that
	// somebody waits for: beyond it he is told, and when to ask again.
	longestForCaller = 30 * time.Second
)

// retryPolicy decides what follows a failed attempt. It knows nothing but what
// happened: no clock, no state shared between pushes, so that one push's bad
// luck never uses up another's tries.
type retryPolicy struct {
	attempts  int                               // tries in all while somebody waits, at least 1
	giveUp    time.Duration                     // how old a push may become that nobody waits for
	settles   time.Duration                     // how long a file that changed is left alone
	completes time.Duration                     // how long an upload is let be whose completion was answered unclearly
	apart     time.Duration                     // how long after an upload that was to be completed another one begins
	jitter    func(time.Duration) time.Duration // a random duration below its argument
}

func newRetryPolicy(attempts int, giveUp time.Duration) retryPolicy {
	return retryPolicy{attempts: attempts, giveUp: giveUp, settles: fileSettles, completes: completionSettles, apart: writtenSlack + time.Second, jitter: func(d time.Duration) time.Duration { return rand.N(d) }}
}

// failure is an attempt that failed.
type failure struct {
	err      error
	attempts int           // made so far
	differed int           // times that the store had, or had got, other bytes than were read
	waited   bool          // whether somebody waits for the push
	age      time.Duration // of the push, since it was accepted or put back
}

// next is what follows a failure.
type next struct {
	again bool
	wait  time.Duration // before the next attempt
}

// after returns what follows a failed attempt of a push.
//
//	what failed for good        fails at once; AccessDenied has a second try
//	what may pass, waited for   is tried again until the attempts are used up
//	what may pass, and nobody   is tried again until the push is too old
//	waits
//	other bytes than were read  is tried again until that has happened as often as there are
//	                            attempts, whoever waits: each costs all of the file
//	what only somebody at the   fails at once where a caller waits, who can be
//	daemon can mend             told; else it is tried like the others
func (p retryPolicy) after(f failure) next {
	switch {
	case mismatched(f.err) && f.differed >= p.attempts:
		return next{}
	case denied(f.err) && f.attempts < 2:
	case !transient(f.err):
		return next{}
	case f.waited && (f.attempts >= p.attempts || needsRepair(f.err) || retryAfter(f.err) > longestForCaller):
		return next{}
	case !f.waited && f.age >= p.giveUp:
		return next{}
	}
	return next{again: true, wait: p.waitAfter(f)}
}

// waitAfter returns how long a push waits that has another attempt.
func (p retryPolicy) waitAfter(f failure) time.Duration {
	most := patientCap
	if f.waited {
		most = backoffCap
	}
	wait := p.jitter(backoffAfter(f.attempts, most))
	if pause := retryAfter(f.err); pause > 0 {
		wait = pause + p.jitter(backoffBase)
	}
	if open, ok := errors.AsType[*unclearError](f.err); ok {
		wait = max(wait, open.wait)
	}
	if errors.Is(f.err, errUnsettled) {
		wait += p.settles
	}
	return wait
}

// settling returns for how long an upload is let be after that many completions of
// it, the last of which ended unclearly: by an answer, or by none, with which the
// store may be at it for longer.
func (p retryPolicy) settling(completions int, answered bool) time.Duration {
	wait := p.completes
	if !answered {
		wait *= 3
	}
	for ; completions > 1 && wait < longestSettling; completions-- {
		wait *= 2
	}
	return min(wait, longestSettling)
}

// inVain reports whether after that many completions, all of which ended unclearly,
// another upload is better.
func (p retryPolicy) inVain(completions int) bool {
	return completions >= max(p.attempts, fewestCompletions)
}

// backoffAfter returns the longest wait after that many attempts.
func backoffAfter(attempts int, most time.Duration) time.Duration {
	if attempts < 1 {
		attempts = 1
	}
	if attempts > 16 {
		return most
	}
	return min(most, backoffBase<<(attempts-1))
}

// withinRequest returns how long one request of a push that runs waits before
// it is made once more, given that attempt number n (from 1) ended with err, or
// false if there is to be none. In place means that the requests around it have
// got somewhere: parts of a file and what follows them. Other pushes give their
// place back while they wait, but for the very first failure if another connection
// mends that: before are the attempts of earlier runs.
func (p retryPolicy) withinRequest(n int, err error, inPlace bool, before int) (time.Duration, bool) {
	var open *unclearError
	switch {
	case errors.As(err, &open): // never a second completion of one upload
		return 0, false
	case needsNewUpload(err):
		return 0, false
	case reusedInVain(err) && n <= mostReused, mendedAtOnce(err) && n == 1 && (before == 0 || inPlace) && n < p.attempts:
		return 0, true
	case !inPlace || n >= p.attempts || !transient(err):
		return 0, false
	}
	if pause := retryAfter(err); pause > 0 {
		return min(pause, backoffCap), true
	}
	return p.jitter(backoffAfter(n, backoffCap)), true
}

// mostReused is how many connections in a row that had been open already a
// request finds gone before that counts as a failure. After the second the pool
// closes the idle ones; more are those that others have just used, with a store
// that closes them after each answer.
const mostReused = 8

// patience is how long a caller waits at least for a store that cannot be
// asked: as long as the backoffs between his attempts would take at most.
func (p retryPolicy) patience() time.Duration {
	var sum time.Duration
	for n := 1; n < p.attempts; n++ {
		sum += backoffAfter(n, backoffCap)
	}
	return sum
}
