package uploader

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/secret"
)

const (
	// lookEvery is between two looks at where the credentials come from, and between
	// two requests that are signed with some that the store refuses.
	lookEvery = time.Second
	// lookPatience is how long a request waits for a look after a pause, though there
	// are credentials that may do: a file system may hang.
	lookPatience = 100 * time.Millisecond
	// lookTakes is the most that a look may take, and whoever has nothing to sign
	// with waits for one.
	lookTakes = 30 * time.Second
	// renewBefore is how long before their end credentials are renewed, or a quarter
	// of the time that they had when they came.
	renewBefore = 5 * time.Minute
	// renewEvery is between two tries to renew what is usable still.
	renewEvery = 10 * time.Second
)

// credentials are what requests are signed with. The SDK reads the files that they
// come from once; here a change of these is seen within two seconds, and what was
// known before stays for as long as the new cannot be had. What has an end is
// renewed before it, beside the requests.
//
// Once the store refuses them the source is asked at once, and then once a second,
// and so is the store.
type credentials struct {
	load func(context.Context) (origin, error)
	log  *slog.Logger
	came func()               // called when there are usable ones again, without mu held
	from func(files []string) // told, by absolute paths, of the files that they come from when these may be others, before they are used; without mu held

	doubted atomic.Bool // refused is not nil

	mu      sync.Mutex // guards all below
	origin  origin
	current aws.Credentials // none yet where number is 0
	number  uint64          // of current: others have another
	gotAt   time.Time       // when current came, or came again
	problem error           // why there is none that is usable; nil where one is
	since   time.Time       // of problem
	refused error           // what the store says to current; nil where it takes them
	looked  time.Time       // when the last look began
	looking chan struct{}   // closed at the end of the look that is under way; nil: none is
	tried   time.Time       // when a request was let through though the store refuses them
	renewed time.Time       // when current was to be renewed, the last time
	changed digest          // what the files hold that is not taken yet
	seen    time.Time       // when that was seen first
	unread  digest          // of the files whose reading failed last, which has been told
}

// staleError marks a failure for want of good credentials where there may be some
// soon: the source can change, and has done so before or may be in the midst of it.
type staleError struct {
	err    error
	others bool // there are some already
}

func (e *staleError) Error() string { return e.err.Error() }
func (e *staleError) Unwrap() error { return e.err }

// heldError is the failure of a request that was not made, since the store has just
// refused another for its credentials. It stands for the answer to that one.
type heldError struct{ err error }

func (e *heldError) Error() string { return e.err.Error() }
func (e *heldError) Unwrap() error { return e.err }

// newCredentials finds where the credentials of the configuration come from. It asks for
// none: the first request does.
func newCredentials(ctx context.Context, cfg Config) (*credentials, error) {
	load := func(ctx context.Context) (origin, error) { return loadOrigin(ctx, cfg.Keys) }
	from, err := load(ctx)
	for _, file := range from.exposed() {
		cfg.Log.Warn("other users of this host can read or write a file with credentials: take the right from them (chmod o= FILE)", "file", file)
	}
	return &credentials{load: load, log: cfg.Log, origin: from}, err
}

// files returns the files that the credentials come from, as far as is known now, by
// absolute paths.
func (c *credentials) files() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return absolute(c.origin.files)
}

func absolute(names []string) []string {
	var paths []string
	for _, name := range names {
		if path, err := filepath.Abs(name); err == nil {
			paths = append(paths, path)
		}
	}
	return paths
}

// Retrieve implements aws.CredentialsProvider. It notes on the trip of the request
// by which credentials that is signed.
func (c *credentials) Retrieve(ctx context.Context) (aws.Credentials, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for round := 0; ; round++ {
		now := time.Now()
		usable := c.usableLocked(now)
		if usable && c.mayTryLocked(now) && (c.origin.fixed || round > 0 || now.Sub(c.looked) < lookEvery) {
			return c.takeLocked(ctx, now), nil
		}
		if round > 0 {
			return aws.Credentials{}, c.lackLocked()
		}
		patience := lookTakes
		if usable && c.refused == nil {
			patience = 0
			if now.Sub(c.looked) > 5*lookEvery && c.looking == nil {
				patience = lookPatience
			}
		}
		if err := c.awaitLookLocked(ctx, now, patience); err != nil {
			return aws.Credentials{}, err
		}
	}
}

// usableLocked reports whether there are credentials, though the store may refuse them.
func (c *credentials) usableLocked(now time.Time) bool {
	return c.number > 0 && !(c.current.CanExpire && !c.current.Expires.After(now))
}

// mayTryLocked reports whether a request may be signed: with refused ones, one a
// second; but where these cannot become others, each shall hear it from the store.
func (c *credentials) mayTryLocked(now time.Time) bool {
	return c.refused == nil || c.origin.fixed || now.Sub(c.tried) >= lookEvery
}

func (c *credentials) takeLocked(ctx context.Context, now time.Time) aws.Credentials {
	if c.refused != nil {
		c.tried = now
	}
	if t := tripOf(ctx); t != nil {
		t.signedBy = c.number
	}
	return c.current
}

// lackLocked says why a request cannot be signed.
func (c *credentials) lackLocked() error {
	if c.refused != nil {
		return &staleError{err: &heldError{c.refused}}
	}
	err := error(&credentialsError{c.problem})
	if c.problem == nil {
		err = &credentialsError{fmt.Errorf("what they come from does not answer within %v", lookTakes)}
	}
	if c.number > 0 { // there were some
		err = &staleError{err: err}
	}
	return err
}

// awaitLookLocked has a look begin once that may be, and waits so long for its end.
// It fails with the context alone.
func (c *credentials) awaitLookLocked(ctx context.Context, now time.Time, patience time.Duration) error {
	if c.looking == nil {
		due := c.looked.Add(lookEvery)
		if c.number == 0 && c.problem != nil && due.After(now) { // nobody gains by waiting
			return nil
		}
		c.beginLookLocked(time.Until(due))
	}
	if patience == 0 {
		return nil
	}
	return c.awaitLocked(ctx, patience)
}

// awaitLocked waits so long for the end of the look that is under way. It fails with
// the context alone.
func (c *credentials) awaitLocked(ctx context.Context, patience time.Duration) error {
	over := c.looking
	c.mu.Unlock()
	defer c.mu.Lock()
	timer := time.NewTimer(patience)
	defer timer.Stop()
	select {
	case <-over:
	case <-timer.C:
	case <-ctx.Done():
		return &credentialsError{context.Cause(ctx)}
	}
	return nil
}

// beginLookLocked begins a look after a pause.
func (c *credentials) beginLookLocked(pause time.Duration) {
	over := make(chan struct{})
	c.looking = over
	go func() {
		time.Sleep(pause)
		usable := c.look()
		close(over)
		if usable && c.came != nil {
			c.came()
		}
	}()
}

// look asks the source, where there is reason to. It reports whether there are
// usable credentials now where there were none.
func (c *credentials) look() (came bool) {
	ctx, cancel := context.WithTimeout(context.Background(), lookTakes)
	defer cancel()
	now := time.Now()
	c.mu.Lock()
	c.looked = now
	from, urgent := c.origin, c.refused != nil || !c.usableLocked(now)
	c.mu.Unlock()

	held, written := digestOf(from.files)
	c.mu.Lock()
	reload := held != from.held && c.takesLocked(held, written, urgent, now)
	renew := reload || urgent || c.endsSoonLocked(now)
	if renew {
		c.renewed = now
	}
	c.mu.Unlock()

	var got aws.Credentials
	var err error
	if reload {
		if from, err = c.load(ctx); err == nil && c.from != nil {
			c.from(absolute(from.files))
		}
	}
	if renew && err == nil {
		got, err = from.retrieve(ctx)
		from.hide() // before anybody says what came of it
		secret.Hide(got.AccessKeyID, got.SecretAccessKey, got.SessionToken)
	}

	c.mu.Lock()
	defer c.mu.Unlock()
	c.looking = nil
	switch {
	case !renew:
		return false
	case err != nil:
		c.failedLocked(err, held, now)
		return false
	}
	return c.gotLocked(from, got, now)
}

// takesLocked reports whether files that have changed are to be read: once they have
// been as they are for a second, since two that belong together are not written at
// one moment; at once where there is nothing to lose.
func (c *credentials) takesLocked(held digest, written time.Time, urgent bool, now time.Time) bool {
	if held != c.changed {
		c.changed, c.seen = held, now
	}
	return urgent || now.Sub(c.seen) >= lookEvery || now.Sub(written) >= lookEvery
}

// endsSoonLocked reports whether current is to be renewed though it is usable.
func (c *credentials) endsSoonLocked(now time.Time) bool {
	if !c.current.CanExpire || now.Sub(c.renewed) < renewEvery {
		return false
	}
	had := c.current.Expires.Sub(c.gotAt)
	return c.current.Expires.Sub(now) < min(renewBefore, had/4)
}

// failedLocked notes that nothing new could be had. What there was stays.
func (c *credentials) failedLocked(err error, held digest, now time.Time) {
	if c.unread != held {
		c.unread = held
		c.log.Warn("no new credentials can be had", "error", (&credentialsError{err}).Error(), "old_ones_stay", c.usableLocked(now))
	}
	if !c.usableLocked(now) {
		if c.problem == nil {
			c.since = now
		}
		c.problem = err
	}
}

// gotLocked takes what the source gave.
func (c *credentials) gotLocked(from origin, got aws.Credentials, now time.Time) (came bool) {
	old := c.current
	c.origin, c.changed, c.unread = from, digest{}, digest{}
	others := c.number == 0 || got.AccessKeyID != old.AccessKeyID || got.SecretAccessKey != old.SecretAccessKey || got.SessionToken != old.SessionToken
	came = c.problem != nil || others && c.refused != nil
	c.problem = nil
	if !others && got.Expires.Equal(old.Expires) {
		return came
	}
	c.current, c.gotAt = got, now
	if !others {
		return came
	}
	if c.number++; c.number > 1 {
		c.log.Info("there are other credentials now", "source", got.Source)
	}
	c.refused = nil
	c.doubted.Store(false)
	return came
}

// judge draws from what became of a request what it says of the credentials by which
// it was signed. Where the store refused them it returns the error as a staleError, if
// there may be others at the next attempt.
func (c *credentials) judge(ctx context.Context, number uint64, err error) error {
	answer := answerOf(err)
	switch {
	case number == 0: // it was never signed
		return err
	case !refusesCredentials(answer):
		if c.doubted.Load() && (err == nil || answer.Status != 0 && answer.Status < 500) {
			c.accepted(number)
		}
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.number == number {
		c.refusedLocked(ctx, err, answer)
	}
	if c.origin.fixed {
		return err
	}
	return &staleError{err: err, others: c.number != number}
}

// refusedLocked notes that the store refuses current, and waits for a look: for one of
// its own the first time.
func (c *credentials) refusedLocked(ctx context.Context, err error, answer push.StoreAnswer) {
	news := c.refused == nil
	if news {
		c.since, c.tried = time.Now(), time.Now()
		c.log.Warn("the store refuses the credentials", "answer", answerText(answer), "may_change", !c.origin.fixed)
	}
	c.refused = err
	c.doubted.Store(true)
	if c.origin.fixed {
		return
	}
	for number := c.number; c.number == number; {
		if c.looking == nil {
			if !news {
				return
			}
			news = false
			c.beginLookLocked(0)
		}
		if c.awaitLocked(ctx, lookTakes) != nil {
			return
		}
	}
}

// accepted notes that the store took what was signed by those of that number.
func (c *credentials) accepted(number uint64) {
	c.mu.Lock()
	took := c.number == number && c.refused != nil
	if took {
		c.refused = nil
		c.doubted.Store(false)
		c.log.Info("the store takes the credentials again")
	}
	c.mu.Unlock()
	if took && c.came != nil {
		c.came()
	}
}

// state returns why no request can be signed so that the store takes it, if so, and
// since when; and when the credentials end, which is never where it is zero.
func (c *credentials) state() (since, end time.Time, problem error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	if c.current.CanExpire {
		end = c.current.Expires
	}
	switch {
	case c.refused != nil:
		return c.since, end, c.refused
	case c.problem != nil:
		return c.since, end, &credentialsError{c.problem}
	case c.number > 0 && !c.usableLocked(now):
		return end, end, &credentialsError{errEnded}
	}
	return time.Time{}, end, nil
}

var errEnded = errors.New("they have expired")

// refusesCredentials reports whether a store's answer is about what the request was
// signed with.
func refusesCredentials(a push.StoreAnswer) bool {
	switch a.Code {
	case "ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "InvalidAccessKeyId", "SignatureDoesNotMatch",
		"XAdminUserNotFound": // versitygw's InvalidAccessKeyId
		return true
	}
	return false
}

// credentialsText says why there are no usable credentials, in no words from outside.
func credentialsText(problem error) string {
	answer := answerOf(problem)
	switch {
	case errors.Is(problem, errEnded):
		return errEnded.Error()
	case !lacksCredentials(problem):
		return "the store says " + codeText(answer)
	case answer.Status != 0:
		return "where they come from it says " + codeText(answer)
	}
	return "none can be had, and the log says why"
}
