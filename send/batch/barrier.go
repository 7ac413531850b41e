package batch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/lsst-dm/s3daemon/push"
	"github.com/lsst-dm/s3daemon/send/client"
)

// slack is how much later than it was asked to a daemon may answer for its
// answer to be heard.
const slack = 2 * time.Second

// TimeoutError says that the time was over before the pushes had ended.
type TimeoutError struct {
	Label   string
	After   time.Duration
	Pending int // of that label, when the daemon last said; -1 if it never did
}

// Error says how many there are.
func (e *TimeoutError) Error() string {
	switch e.Pending {
	case -1:
		return fmt.Sprintf("the daemon did not say within %v whether pushes with the label %s are pending", e.After, push.Quote(e.Label))
	case 1:
		return fmt.Sprintf("after %v one push with the label %s is still queued or running", e.After, push.Quote(e.Label))
	}
	return fmt.Sprintf("after %v there are still %d pushes with the label %s queued or running", e.After, e.Pending, push.Quote(e.Label))
}

// Settle waits until no push with the label is queued or running, through
// restarts of the daemon, and for at most the timeout, where that is not 0.
// Its error is a *TimeoutError, a *GaveUpError, the daemon's problem or the end
// of ctx.
func Settle(ctx context.Context, d Daemon, label string, timeout time.Duration, allowed Patience) error {
	over := &TimeoutError{Label: label, After: timeout, Pending: -1}
	var end time.Time
	if timeout > 0 {
		end = time.Now().Add(timeout)
		bounded, cancel := context.WithDeadlineCause(ctx, end.Add(slack), over)
		defer cancel()
		ctx = bounded
	}
	p := &patience{Patience: allowed}
	defer p.answered()
	for {
		q := client.Query{Label: label, Limit: 1, Wait: longPoll}
		if timeout > 0 {
			q.Wait = max(min(longPoll, time.Until(end)), time.Millisecond)
		}
		page, err := paced(ctx, func() (push.Page, error) {
			return persist(ctx, p, func() (push.Page, error) { return d.List(ctx, q) })
		}, func(page push.Page) bool { return page.Pending == 0 })
		switch {
		case errors.Is(err, over):
			return over
		case err != nil:
			return err
		case page.Pending == 0:
			return nil
		}
		over.Pending = page.Pending
		if timeout > 0 && !time.Now().Before(end) {
			return over
		}
	}
}

// Unfinished calls each with every push of the label that failed or was
// cancelled, newest first. Its errors are those of Settle.
func Unfinished(ctx context.Context, d Daemon, label string, allowed Patience, each func(push.Receipt)) error {
	p := &patience{Patience: allowed}
	defer p.answered()
	q := client.Query{Label: label, States: []push.State{push.Failed, push.Cancelled}}
	for {
		page, err := persist(ctx, p, func() (push.Page, error) { return d.List(ctx, q) })
		if err != nil {
			return err
		}
		for _, r := range page.Pushes {
			each(r)
		}
		if page.Next == "" {
			return nil
		}
		if page.Next == q.Cursor {
			return errors.New("the daemon's list of pushes does not come to an end")
		}
		q.Cursor = page.Next
	}
}
